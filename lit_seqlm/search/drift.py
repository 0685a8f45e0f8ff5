"""Whether the stream has moved away from what an index was trained on."""

# H = states held out of training, N = new states

import logging
import math

import numpy as np

log = logging.getLogger(__name__)

TOLERATED = 1.1  # times the error at training
HELD_OUT = 16  # every 16th state is left out of training, to measure the error there


class Drift:
    """Compares the mean quantisation error of the states since training with that at training.

    The latter is that of states held out: on the ones trained on it would be too small, and all would look like
    drift. The stream has moved if the error is a tenth larger, and two standard errors of the held-out mean beyond.
    """

    def __init__(self, at_training: float, standard_error: float):
        self.at_training, self.standard_error = at_training, standard_error
        self.error_sum, self.count = 0.0, 0

    @classmethod
    def from_held_out(cls, errors_H: np.ndarray) -> "Drift":
        return cls(float(errors_H.mean()), float(errors_H.std()) / math.sqrt(len(errors_H)))

    def see(self, errors_N: np.ndarray) -> None:
        self.error_sum += float(errors_N.sum())
        self.count += len(errors_N)

    def moved(self, num_seen: int) -> bool:
        """Has the stream moved since training? Says so in the log, at `num_seen` states."""
        since = self.error_sum / self.count if self.count else 0.0
        moved = since > TOLERATED * self.at_training + 2 * self.standard_error
        log.info(
            "after %d states the index's error is %.4g, at training %.4g: %s",
            num_seen,
            since,
            self.at_training,
            "trained again" if moved else "kept",
        )
        return moved

    def state_dict(self) -> dict[str, float]:
        return dict(vars(self))

    @classmethod
    def from_state(cls, state: dict[str, float]) -> "Drift":
        drift = cls(state["at_training"], state["standard_error"])
        drift.error_sum, drift.count = state["error_sum"], int(state["count"])
        return drift
