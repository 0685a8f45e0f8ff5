"""Fills a record while the stream is read."""

# N = scored tokens of one call, S = settings of one memory

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lit_seqlm.cache.record import Record
from lit_seqlm.errors import UserError


class RecordWriter:
    """A Record that grows with the stream, at constant cost per token.

    Args:
        settings: by memory, the setting of each row that will be appended.
        features: names of what will be appended beside the log-probabilities.
    """

    def __init__(self, settings: dict[str, list[dict[str, Any]]], features: Sequence[str]):
        self.settings, self.features = settings, list(features)
        self.count = 0
        self.arrays: dict[str, np.ndarray] = {
            "static": np.empty(0),
            "words": np.empty(0, dtype=np.int64),
        }
        for name, rows in settings.items():
            self.arrays[f"memory/{name}"] = np.empty((len(rows), 0), dtype=np.float32)
        for name in self.features:
            self.arrays[f"feature/{name}"] = np.empty(0, dtype=np.float32)

    def append(
        self,
        static_N: Tensor,
        words_N: Tensor,
        memories: Mapping[str, Tensor],
        features: Mapping[str, Tensor],
    ) -> None:
        """Add the next tokens; tensors of any device and float type, memories as (S, N)."""
        values = {"static": static_N, "words": words_N}
        values |= {f"memory/{name}": log_p_SN for name, log_p_SN in memories.items()}
        values |= {f"feature/{name}": values_N for name, values_N in features.items()}
        assert values.keys() == self.arrays.keys(), sorted(values.keys() ^ self.arrays.keys())
        stop = self.count + len(static_N)
        for name, tensor in values.items():
            expected = (*self.arrays[name].shape[:-1], stop - self.count)
            assert tuple(tensor.shape) == expected, f"{name}: {tuple(tensor.shape)}, not {expected}"
            self._reserve(name, stop)
            self.arrays[name][..., self.count : stop] = tensor.detach().cpu().numpy()
        self.count = stop

    def _reserve(self, name: str, stop: int) -> None:
        old = self.arrays[name]
        if old.shape[-1] < stop:
            grown = np.empty((*old.shape[:-1], max(stop, old.shape[-1] * 3 // 2)), old.dtype)
            grown[..., : self.count] = old[..., : self.count]
            self.arrays[name] = grown

    def record(self) -> Record:
        """All tokens so far, as views; appending more leaves them as they are."""
        filled = {name: array[..., : self.count] for name, array in self.arrays.items()}
        return Record(
            filled["static"],
            filled["words"],
            {name: filled[f"memory/{name}"] for name in self.settings},
            self.settings,
            {name: filled[f"feature/{name}"] for name in self.features},
        )

    def state_dict(self) -> dict[str, Tensor]:
        """Copies of all columns; names as in `append`, with memory/ and feature/ before them."""
        return {
            name: torch.from_numpy(array[..., : self.count].copy())
            for name, array in self.arrays.items()
        }

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Go on where the state was taken; memories, settings and features must be the same."""
        if {name: tuple(tensor.shape[:-1]) for name, tensor in state.items()} != {
            name: array.shape[:-1] for name, array in self.arrays.items()
        }:
            raise UserError(
                "the interrupted evaluation recorded other memories, settings or features than this one "
                f"({', '.join(sorted(state))}). Start again, or give the options that it had."
            )
        self.arrays = {name: tensor.numpy().copy() for name, tensor in state.items()}
        self.count = self.arrays["static"].shape[-1]
