"""Work that is worth keeping between runs: arrays and strings, in files named by a digest of what they follow from."""

import hashlib
import os
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from lit_seqlm.errors import UserError

SEPARATOR = "\n"


class Kept:
    """One file of named arrays in a cache folder.

    It appears whole or not at all, and nothing stale is ever read, since the name follows from all
    that the content follows from.

    Args:
        cache_dir: the folder; null keeps nothing.
        kind: begins the file's name.
        follows_from: what decides the content: inputs, options, versions.
    """

    def __init__(self, cache_dir: str | None, kind: str, follows_from: Iterable[str | bytes]):
        digest = hashlib.sha256()
        for part in follows_from:
            encoded = part if isinstance(part, bytes) else part.encode()
            digest.update(len(encoded).to_bytes(8, "little") + encoded)
        name = f"{kind}-{digest.hexdigest()[:16]}.npz"
        self.path = None if cache_dir is None else Path(cache_dir) / name

    def read(self) -> dict[str, np.ndarray] | None:
        """The arrays; None where there are none yet."""
        if self.path is None or not self.path.exists():
            return None
        with np.load(self.path) as file:
            return {name: file[name] for name in file.files}

    def write(self, arrays: dict[str, np.ndarray]) -> None:
        """Raise UserError where the folder cannot be written."""
        if self.path is None:
            return
        partial = self.path.with_name(f".{self.path.stem}.{os.getpid()}.npz")
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            np.savez(partial, **arrays)  # type: ignore[arg-type]
            partial.replace(self.path)
        except OSError as error:
            raise UserError(
                f"{self.path.parent} cannot be written ({error.strerror}). "
                "Choose another paths.cache_dir."
            ) from None
        finally:
            partial.unlink(missing_ok=True)


def packed(texts: Iterable[str]) -> np.ndarray:
    """Strings without newlines as one array of bytes."""
    return np.frombuffer(SEPARATOR.join(texts).encode(), np.uint8)


def unpacked(text_bytes: np.ndarray) -> list[str]:
    """What `packed` was given, if that was not empty."""
    return text_bytes.tobytes().decode().split(SEPARATOR)
