"""All definitions of contact precision of a split, in one pass."""

# B = sequences of a batch, T = tokens, P = proteins, M = numbers kept of each

import numpy as np
import torch
from torch import Tensor
from torchmetrics import Metric

from lit_seqlm.errors import DivergedError
from lit_seqlm.metrics.bootstrap import Interval, of_equal, ratio_interval
from lit_seqlm.metrics.collect import joined
from lit_seqlm.metrics.contacts import (
    ESM_RANGES,
    ESM_SHARES,
    TAPE_RANGES,
    esm,
    mean_over_batches,
    plm_megatron,
    tape2019_analysis,
    tape2019_train,
    tape_torch,
)

SHARES = ("tape_torch", "tape2019_train", "plm_megatron")  # kept as right and picked
BY_BATCH = {
    "p_at_l5_tape_torch": "tape_torch",
    "p_at_l5_tape2019_train": "tape2019_train",
    "p_at_l5_plm_megatron_log": "plm_megatron",
}
ANALYSIS = [f"p_at_l5_tape2019_analysis_{name}" for name in TAPE_RANGES]
ESM = [f"{key}_esm_{name}" for name in ESM_RANGES for key in (*ESM_SHARES, "auc")]
WITH_INTERVALS = [*ANALYSIS, *ESM, "p_at_l5_plm_megatron"]
SAMPLES = 1000


class ContactPrecision(Metric):
    """Every definition of `lit_seqlm.metrics.contacts`, by its name.

    ``p_at_l5_DEFINITION`` and, by range, ``p_at_l5_tape2019_analysis_RANGE`` and ``p_at_l5_esm_RANGE``; ``p_at_l``,
    ``p_at_l2`` and ``auc`` of ``esm`` too. What is a mean over proteins, and ``p_at_l5_plm_megatron``, has the ends
    ``_low`` and ``_high`` of a 95 % interval over proteins, copies of one drawn together; means over batches have not.
    ``p_at_l5_plm_megatron_log`` is the mean over batches that ProteinLM logs in training.
    ``proteins``, their ``distinct_proteins``, those ``proteins_without_pairs`` among them, which have no labelled pair
    6 or more apart, and ``proteins_esm_RANGE`` that ESM's mean is over. What nothing was picked for has no number, nor
    has a range whose pairs were not learnt. A protein without any label is not counted.

    Args:
        begin: tokens before the first residue.
        learnt_from: pairs nearer than this were not learnt.
        same_N: of each row, by its number, one that its copies share; null: there are no copies.
    """

    full_state_update = False
    rows: list[Tensor]
    batches: list[Tensor]
    values: list[Tensor]

    def __init__(self, begin: int = 1, learnt_from: int = 0, same_N: np.ndarray | None = None):
        super().__init__()
        self.begin, self.same_N = begin, same_N
        self.ranges = learnt_ranges(learnt_from)
        other = tuple(f"_{name}" for name in ESM_RANGES if name not in self.ranges)
        self.means = [name for name in (*ANALYSIS, *ESM) if not name.endswith(other)]
        self.columns = [f"{name}_{side}" for name in SHARES for side in ("right", "picked")]
        self.columns += [*ANALYSIS, *ESM]
        for state in ("rows", "batches", "values"):
            self.add_state(state, [], dist_reduce_fx="cat")
        self.set_dtype(torch.float64)

    def update(
        self, score_BTT: Tensor, label_BTT: Tensor, rows_B: Tensor, lengths_B: Tensor
    ) -> None:
        """Add a batch, whose proteins are those that definitions by batch pool.

        Args:
            score_BTT: probabilities of a contact, by token; float64 keeps strong ones apart.
            label_BTT: 1, 0, or -1 where there is no label.
            rows_B: numbers of the rows; each is given once.
            lengths_B: residues of each, without label or with.

        Raises:
            DivergedError: a probability is not finite.
        """
        maps = []
        scores, labels = score_BTT.detach().double().cpu().numpy(), label_BTT.cpu().numpy()
        for score_TT, label_TT, length in zip(scores, labels, lengths_B.tolist(), strict=True):
            inner = slice(self.begin, self.begin + length)
            maps.append((score_TT[inner, inner], label_TT[inner, inner].astype(np.int8)))
        longest = int(lengths_B.max()) if len(maps) else 0
        kept = [place for place, (_, label_LL) in enumerate(maps) if (label_LL != -1).any()]
        values = np.full((len(kept), len(self.columns)), np.nan)
        for number, place in enumerate(kept):
            for name, value in protein_values(*maps[place], longest).items():
                values[number, self.columns.index(name)] = value
        rows_B = rows_B.detach().to(self.device)
        self.rows.append(rows_B[kept])
        self.batches.append(rows_B.min().expand(len(kept)) if len(maps) else rows_B)
        self.values.append(torch.from_numpy(values).to(self.device))

    def per_protein(self) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        """Row numbers (P,), rising, and each column (P,), NaN where a protein has no such number."""
        rows_P, _, values_PM = self._collected()
        return rows_P, dict(zip(self.columns, values_PM.T, strict=True))

    def interval(self, name: str, num_samples: int = SAMPLES, seed: int = 0) -> Interval:
        """Of a mean over proteins, or of ``p_at_l5_plm_megatron``: proteins are drawn."""
        rows_P, column = self.per_protein()
        if name == "p_at_l5_plm_megatron":
            parts_P2 = np.stack([column[f"plm_megatron_{part}"] for part in ("right", "picked")], 1)
        else:
            known_P = ~np.isnan(column[name])
            parts_P2 = np.stack([np.where(known_P, column[name], 0.0), known_P], 1)
        right_D, picked_D = of_equal(parts_P2, self._same(rows_P)).T
        some_D = picked_D > 0
        return ratio_interval(right_D[some_D], picked_D[some_D], num_samples, seed)

    def compute(self) -> dict[str, float]:
        """Numbers by name; empty where nothing has been scored."""
        rows_P, batch_of_P, values_PM = self._collected()
        if not len(rows_P):
            return {}
        column = dict(zip(self.columns, values_PM.T, strict=True))
        numbers: dict[str, float] = {}
        for name, definition in BY_BATCH.items():
            sides = [column[f"{definition}_{side}"] for side in ("right", "picked")]
            mean = mean_over_batches(np.stack(sides, 1), batch_of_P)
            numbers |= {} if mean is None else {name: mean}
        for name in self.means:
            known_P = column[name][~np.isnan(column[name])]
            numbers |= {name: float(known_P.mean())} if len(known_P) else {}
        if (picked := column["plm_megatron_picked"].sum()) > 0:
            numbers["p_at_l5_plm_megatron"] = float(column["plm_megatron_right"].sum() / picked)
        for name in WITH_INTERVALS:
            found = self.interval(name) if name in numbers else Interval(np.nan, np.nan, np.nan)
            if not np.isnan(found.low):  # of one protein nothing is known
                numbers |= {f"{name}_low": found.low, f"{name}_high": found.high}
        for range_name in self.ranges:
            counted_P = ~np.isnan(column[f"auc_esm_{range_name}"])
            numbers[f"proteins_esm_{range_name}"] = float(counted_P.sum())
        numbers["proteins"] = float(len(rows_P))
        numbers["distinct_proteins"] = float(len(np.unique(self._same(rows_P))))
        without = float((column["tape2019_train_picked"] == 0).sum())
        return numbers | {"proteins_without_pairs": without}

    def _same(self, rows_P: np.ndarray) -> np.ndarray:
        return rows_P if self.same_N is None else self.same_N[rows_P]

    def _collected(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        if not len(self.rows):
            return np.empty(0, np.int64), np.empty(0, np.int64), np.empty((0, len(self.columns)))
        rows = joined(self.rows)
        first_P = np.unique(rows, return_index=True)[1]
        return rows[first_P], joined(self.batches)[first_P], joined(self.values)[first_P]


def learnt_ranges(learnt_from: int) -> list[str]:
    """Those ranges of which a pair was learnt, where nearer ones than `learnt_from` were not."""
    return [name for name, (_, limit) in ESM_RANGES.items() if limit is None or limit > learnt_from]


def protein_values(score_LL: np.ndarray, label_LL: np.ndarray, longest: int) -> dict[str, float]:
    """What is kept of a protein: sums of the definitions that pool, and the numbers of the others."""
    if not np.isfinite(score_LL).all():
        raise DivergedError(
            f"{int((~np.isfinite(score_LL)).sum())} of {score_LL.size} probabilities of contacts are not finite. "
            "Try a smaller optimizer.lr, or trainer.precision=32-true."
        )
    shares = (
        tape_torch(score_LL, label_LL),
        tape2019_train(score_LL, label_LL, longest),
        plm_megatron(score_LL, label_LL),
    )
    values = {
        f"{name}_{side}": getattr(share, side)
        for name, share in zip(SHARES, shares, strict=True)
        for side in ("right", "picked")
    }
    analysis = tape2019_analysis(score_LL, label_LL)
    values |= {f"p_at_l5_tape2019_analysis_{name}": value for name, value in analysis.items()}
    for name, found in esm(score_LL, label_LL).items():
        values |= {f"{key}_esm_{name}": value for key, value in found.items()}
    return values
