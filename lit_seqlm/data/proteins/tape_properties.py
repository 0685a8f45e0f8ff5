"""Two tasks of TAPE in its own files: fluorescence and stability."""

from typing import Any

import numpy as np

from lit_seqlm.data.corpus import SPLITS
from lit_seqlm.data.label_rows import LabelRows
from lit_seqlm.data.proteins.gfp import BRIGHTNESS
from lit_seqlm.data.proteins.property_source import MEASURES, Proteins
from lit_seqlm.data.proteins.reading import Reading
from lit_seqlm.data.proteins.tape_annotated import TapeTask, numbers_of, value_of
from lit_seqlm.data.targets import Target
from lit_seqlm.errors import UserError, did_you_mean

STABILITY = Target(
    name="stability_score",
    column="stability_score",
    unit="",
    chemists_unit="",
    chemists_factor=1.0,
    extensive=False,
    repeats="",
    measures=MEASURES,
)
TARGETS = {"fluorescence": BRIGHTNESS, "stability": STABILITY}


class TapeProperty(TapeTask, Proteins):
    """A number of each protein, in the splits of the files.

    ``fluorescence`` is `gfp`'s: 21,446 to train on, 5,362 and 27,217 to validate and test. ``stability`` is of
    small designed proteins (Rocklin et al. 2017); the test are neighbours of the best designs.

    Args:
        data_dir: below it is `path`, the folder of the files.
        task: ``fluorescence`` or ``stability``.
        stop, illegal: see `Reading`.
        features: see `Proteins`.
    """

    tests, files = ("test",), {}

    def __init__(self, data_dir: str, path: str, task: str, stop: str, illegal: str, features: str):
        if task not in TARGETS:
            raise UserError(f"data.source.task={task}: {did_you_mean(task, TARGETS)}")
        TapeTask.__init__(self, data_dir, path)
        target, reading = TARGETS[task], Reading(stop, illegal)
        Proteins.__init__(
            self, f"tape_{task}", "regression", [target], "column", None, 0, reading, features
        )
        self.task = task

    def read(self) -> LabelRows:
        parts = []
        for split in SPLITS:
            found = list(self.proteins(split))
            labels_NK = np.array([[one.label] for one in found], np.float64).reshape(-1, 1)
            numbers_N = np.array([one.number for one in found], np.int64)
            sequences = [one.sequence for one in found]
            parts.append(LabelRows(sequences, labels_NK, numbers_N, [split] * len(found)))
        return LabelRows.joined(parts)

    def label(self, record: dict[str, Any], where: str) -> tuple[Any, dict[str, np.ndarray]]:
        key = self.targets[0].name
        numbers = numbers_of(record, key, where)
        is_flag = np.asarray(value_of(record, key, where)).dtype == bool
        if numbers.shape != (1,) or not np.isfinite(numbers[0]) or is_flag:
            raise UserError(f"{where}: {key!r} is not one finite number.")
        return float(numbers[0]), {}
