"""Classes of the residues, pairs of residues or whole chains of every row of a file."""

# B = sequences, T = tokens, L = residues, K = values of a row, C = classes

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from lit_seqlm.data.row_tables import TABLES
from lit_seqlm.errors import UserError
from lit_seqlm.model.site_model import SiteModel
from lit_seqlm.task.rows import RowTask

ARRAYS = ".npz"
CONTACT = 1  # the class of a pair whose probability is kept
MOST = 5  # classes of a chain that are told
PAIRS = 2**18  # padded, of which a head is asked at once


class Annotate(RowTask):
    """A run of ``task=label_sites``, whole: trunk and head.

    A row of residues has a string of classes, one of confidences (the digit d says that the likeliest class
    has a probability of at least d / 10), and the mean of these probabilities; a row of a chain its likeliest
    classes with their probabilities; a row of pairs how many contacts are expected among those as far apart as
    the pairs that were learnt. In an ``.npz`` each protein has an array under its name: probabilities (L, classes),
    (classes,), or of a contact (L, L), in which nearer pairs mean nothing.

    Args:
        site: what the classes are of.
        classes: their names.
        train_separation: nearer pairs were not learnt, says the data that the run was trained on.
        model, head: as in training.
        input, output, column, window, token_budget, overwrite: see `RowTask`.
    """

    inherits = ("model", "data", "head")
    accepted = (*TABLES, ARRAYS)

    def __init__(
        self,
        model: nn.Module,
        head: Callable[..., Any],
        site: str,
        classes: Sequence[str],
        train_separation: int,
        input: str,
        output: str,
        column: str | None,
        window: int,
        token_budget: int,
        overwrite: bool,
    ):
        whole = SiteModel.on(model, head, site, len(classes))
        super().__init__(whole, input, output, column, window, token_budget, overwrite)
        if site == "pair" and self.output.suffix != ARRAYS:
            raise UserError(
                f"task.output={output}: a map is no row of a table. Say task.output=NAME.npz: a table stands beside it."
            )
        self.site, self.classes = site, list(classes)
        self.nearest = max(1, train_separation)  # residues that a pair which counts is apart
        self.own_arrays = self.output.suffix == ARRAYS
        self.columns, self.texts = _columns(site, min(MOST, len(classes)))

    def answers(self, tokens_BT: Tensor, covariates_BC: Tensor | None) -> np.ndarray:
        size = max(1, PAIRS // tokens_BT.size(1) ** 2) if self.site == "pair" else len(tokens_BT)
        rows = []
        for some_BT in tokens_BT.split(size):
            probability = torch.softmax(self.model(some_BT).float(), -1).cpu().numpy()
            rows += [self._row(one) for one in probability]
        answers_BK = np.empty((len(rows), len(self.columns) + self.own_arrays), object)
        for place, row in enumerate(rows):
            for column, value in enumerate(row[: answers_BK.shape[1]]):
                answers_BK[place, column] = value
        return answers_BK

    def _row(self, probability: np.ndarray) -> list[Any]:
        """A sequence's values, and behind them its array."""
        if self.site == "chain":
            best = np.argsort(-probability, kind="stable")[:MOST]
            told = [[self.classes[one], float(probability[one])] for one in best]
            return [*[value for pair in told for value in pair], probability]
        inner = self.own_tokens(len(probability))
        if self.site == "pair":
            map_LL = np.ascontiguousarray(probability[inner, inner, CONTACT])
            return [float(np.triu(map_LL, self.nearest).sum()), map_LL]
        probability_LC = np.ascontiguousarray(probability[inner])
        likeliest_L, best_L = probability_LC.argmax(1), probability_LC.max(1)
        separator = "" if all(len(name) == 1 for name in self.classes) else " "
        labels = separator.join(self.classes[one] for one in likeliest_L)
        digits = "".join(str(min(9, int(10 * one))) for one in best_L)
        return [labels, digits, float(best_L.mean()), probability_LC]


def _columns(site: str, number: int) -> tuple[list[str], list[str]]:
    """Names of the columns, and of those that are texts."""
    if site == "residue":
        return ["classes", "confidences", "mean_confidence"], ["classes", "confidences"]
    if site == "pair":
        return ["expected_contacts"], []
    classes = [f"class_{place}" for place in range(1, number + 1)]
    both = [word for one in classes for word in (one, one.replace("class", "probability"))]
    return both, classes
