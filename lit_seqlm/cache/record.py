"""What a pass over a stream writes down once; settings and weights are then chosen in NumPy, in seconds.

`record_writer` fills it.
"""

# N = scored tokens, S = settings of one memory

import io
import json
import os
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from lit_seqlm.errors import UserError, did_you_mean

FORMAT, VERSION = "lit_seqlm record", 1


@dataclass
class Record:
    """Per scored token, the log-probability of the target under the model and under every memory.

    In `memories`, NaN says that the memory was empty (its weight then goes to the static model), and
    -inf that it gave the target no mass.

    Args:
        static_N: float64, log p_static(target).
        words_N: int64, the targets in open ids.
        memories: float32 (S, N) by name.
        settings: by name, what each of the S rows was made with.
        features: float32 (N,) by name, known before the target is: entropy, distances.

    Raises:
        UserError: if the model's own log-probabilities hold NaN.
    """

    static_N: np.ndarray
    words_N: np.ndarray
    memories: dict[str, np.ndarray]
    settings: dict[str, list[dict[str, Any]]]
    features: dict[str, np.ndarray]

    def __post_init__(self) -> None:
        num_tokens = len(self.static_N)
        assert self.words_N.shape == (num_tokens,)
        assert self.memories.keys() == self.settings.keys()
        for name, log_p_SN in self.memories.items():
            assert log_p_SN.shape == (len(self.settings[name]), num_tokens), name
        assert all(values_N.shape == (num_tokens,) for values_N in self.features.values())
        if num_broken := int(np.isnan(self.static_N).sum()):
            raise UserError(
                f"the model gives NaN as log-probability of {num_broken} of {num_tokens} targets; finite "
                "numbers or -inf can be mixed. Try another checkpoint: this one has diverged."
            )

    def __len__(self) -> int:
        return len(self.static_N)

    def cut(self, start: int, stop: int) -> "Record":
        """The tokens start to stop - 1, as views."""
        return Record(
            self.static_N[start:stop],
            self.words_N[start:stop],
            {name: log_p_SN[:, start:stop] for name, log_p_SN in self.memories.items()},
            self.settings,
            {name: values_N[start:stop] for name, values_N in self.features.items()},
        )

    def row(self, memory: str, wanted: Mapping[str, Any]) -> int:
        """Number of the one setting that has all the wanted values.

        Raises:
            UserError: if the memory is not there, or if none or several of its settings fit.
        """
        if memory not in self.settings:
            raise UserError(
                f"no memory '{memory}' was recorded. {did_you_mean(memory, self.settings)}"
            )
        settings = self.settings[memory]
        rows = [
            row
            for row, setting in enumerate(settings)
            if all(name in setting and setting[name] == value for name, value in wanted.items())
        ]
        if len(rows) != 1:
            told = "; ".join(str(setting) for setting in settings[:20])
            raise UserError(
                f"{len(rows)} of the {len(settings)} recorded settings of '{memory}' fit {dict(wanted)}, "
                f"one must. Recorded: {told}. Name one of them, or record again with what you want."
            )
        return rows[0]

    def save(self, path: Path) -> None:
        """One .npz without pickled objects, written aside and renamed: whole or not at all.

        Raises:
            UserError: if it cannot be written; an older file is kept.
        """
        path = Path(path)
        header = {
            "format": FORMAT,
            "version": VERSION,
            "settings": self.settings,
            "features": list(self.features),
        }
        arrays: dict[str, Any] = {
            "header": np.frombuffer(json.dumps(header).encode(), dtype=np.uint8),
            "static": self.static_N,
            "words": self.words_N,
        }
        for number, name in enumerate(self.settings):
            arrays[f"memory_{number}"] = self.memories[name]
        for number, values_N in enumerate(self.features.values()):
            arrays[f"feature_{number}"] = values_N
        partial = path.with_name(f".{path.name}.{os.getpid()}")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with partial.open("wb") as file:
                np.savez(file, **arrays)
                file.flush()
                os.fsync(file.fileno())
            partial.replace(path)
        except OSError as error:
            raise UserError(
                f"cannot write the record {path}: {error.strerror or error}. A record that was there before "
                "is kept; make room and give the same command again."
            ) from error
        finally:
            partial.unlink(missing_ok=True)

    @classmethod
    def load(cls, path: Path) -> "Record":
        """Read what `save` wrote.

        Raises:
            UserError: if the file is missing, cut short, changed, or no record.
        """
        again = "Evaluate once more to write it again."
        try:
            # Read whole: every member's checksum is then compared.
            with np.load(io.BytesIO(Path(path).read_bytes()), allow_pickle=False) as file:
                arrays = {name: file[name] for name in file.files}
            header = json.loads(arrays["header"].tobytes())
            if header["format"] != FORMAT or header["version"] != VERSION:
                raise UserError(
                    f"{path} is not a record of version {VERSION}: its header says "
                    f"{header['format']}, version {header['version']}. {again}"
                )
            settings = header["settings"]
            return cls(
                arrays["static"],
                arrays["words"],
                {name: arrays[f"memory_{number}"] for number, name in enumerate(settings)},
                settings,
                {
                    name: arrays[f"feature_{number}"]
                    for number, name in enumerate(header["features"])
                },
            )
        except FileNotFoundError as error:
            raise UserError(f"there is no record {path}. {again}") from error
        except UserError:
            raise
        except (OSError, EOFError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise UserError(
                f"{path} is broken or is not a record of scored tokens. {again}"
            ) from error
        except (zipfile.BadZipFile, AssertionError, IndexError) as error:
            raise UserError(
                f"{path} is broken or is not a record of scored tokens. {again}"
            ) from error
