"""Memories that weigh the nearest remembered states: what the unbounded cache and the kNN-LM share."""

# N = tokens of a chunk, K = neighbours, S = settings, D = hidden size

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from lit_seqlm.cache.kernel import check_kernel, log_kernel, log_prob
from lit_seqlm.cache.memory import Memory, Scores
from lit_seqlm.cache.normalize import Normalizer
from lit_seqlm.errors import UserError
from lit_seqlm.search.store import Store


class NearestMemory(Memory):
    """p(w) ~ sum over the k nearest states h_i, whose next word was w, of K(h, h_i).

    Args:
        k: neighbours; null: all states. While there are fewer, all of them serve, and the last is the k-th.
        kernel: gaussian | epanechnikov | dot | rbf, see `lit_seqlm.cache.kernel.log_kernel`.
        bandwidth: ``kth``: `bandwidth_scale` times the distance to the k-th neighbour; ``fixed``: `theta`.
        theta: the fixed width of a gaussian or epanechnikov kernel, the temperature of rbf, the factor of dot.
        normalize: of the states before they are compared: none | l2 | layer_norm | pca.
        store: where the states are, and how they are searched; its metric must be what the kernel reads.
    """

    tunable = ("k", "kernel", "bandwidth", "bandwidth_scale", "theta")

    def __init__(
        self,
        lam: float,
        k: int | None,
        kernel: str,
        bandwidth: str,
        bandwidth_scale: float,
        theta: float,
        normalize: str,
        store: Store,
        grid: Mapping[str, Sequence[Any] | None],
    ):
        self.k, self.kernel, self.bandwidth = k, kernel, bandwidth
        self.bandwidth_scale, self.theta = bandwidth_scale, theta
        super().__init__(lam, grid)
        self.store, self.normalizer = store, Normalizer(normalize)
        self.listener: Callable[[Tensor, Tensor], None] | None = None  # told what is found
        for setting in self.settings:
            self._check(setting)
        ks = [setting["k"] for setting in self.settings]
        # Also after one setting was chosen: what an index finds depends on how many it is asked for.
        self.width = None if None in ks else max(ks)
        self.measures = ("nearest", "farthest") if self.metric == "l2" else ("highest", "lowest")

    def _check(self, setting: dict[str, Any]) -> None:
        metric = check_kernel(setting["kernel"], setting["bandwidth"])
        if metric != self.metric:
            raise UserError(
                f"cache.kernel={setting['kernel']} reads the metric {metric}, not {self.metric}. "
                f"Say cache.store.metric={metric}."
            )
        if setting["k"] is not None and setting["k"] < 1:
            raise UserError(f"cache.k={setting['k']}: at least one neighbour, or null for all.")
        for key in ("theta", "bandwidth_scale"):
            if not setting[key] > 0 and setting["kernel"] != "dot":
                raise UserError(f"cache.{key}={setting[key]}: a width is above 0.")

    @property
    def metric(self) -> str:
        return self.store.options.metric

    def weigh(self, measure_NK: Tensor, labels_NK: Tensor, words_N: Tensor) -> Scores:
        """Scores from neighbours, best first; a label of -1 is no neighbour."""
        match_NK = labels_NK == words_N[:, None]
        if self.listener is not None:
            self.listener(measure_NK, match_NK)
        if not measure_NK.size(1):  # an empty memory
            nothing_SN = measure_NK.new_full((len(self.settings), len(words_N)), torch.nan)
            return Scores(nothing_SN, nothing_SN[0], nothing_SN[0])
        rows = []
        for setting in self.settings:
            near = slice(0, setting["k"])
            weight_NK = log_kernel(
                measure_NK[:, near],
                setting["kernel"],
                setting["bandwidth"],
                setting["bandwidth_scale"],
                setting["theta"],
            )
            missing_NK = labels_NK[:, near] < 0
            weight_NK = weight_NK.masked_fill(missing_NK, -torch.inf)
            rows.append(log_prob(weight_NK, match_NK[:, near]))
        finite_NK = measure_NK.masked_fill(labels_NK < 0, torch.nan)
        present_N1 = (labels_NK >= 0).sum(dim=1, keepdim=True)
        farthest_N1 = finite_NK.gather(1, (present_N1 - 1).clamp(min=0))
        return Scores(torch.stack(rows), finite_NK[:, 0], farthest_N1.squeeze(1))

    def describe(self) -> dict[str, Any]:
        """Of the store; recall only where an index may miss."""
        numbers = {
            "search": self.store.describe(),
            "num_states": len(self.store),
            "num_bytes": self.store.num_bytes,
            "bytes_per_state": self.store.bytes_per_state,
        }
        recall = None if self.width is None else self.store.recall(self.width)
        return numbers if recall is None else {**numbers, "recall": recall}

    def state_dict(self) -> dict[str, Any]:
        return {
            **super().state_dict(),
            "store": self.store.state_dict(),
            "normalizer": self.normalizer.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        super().load_state_dict(state)
        self.store.load_state_dict(state["store"])
        self.normalizer.load_state_dict(state["normalizer"])
