"""A memory in a file: written whole or not at all, and taken back only by the model it belongs to."""

import errno
import hashlib
import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

import torch

from lit_seqlm.errors import UserError

MAGIC = b"lit_seqlm memory\n"
FORMAT = 1
PIECE = 2**22

Identity = Mapping[str, str | int]


class _Hashed:
    """A file for torch.save that digests and counts what passes, so that nothing is held twice."""

    def __init__(self, file: BinaryIO):
        self.file = file
        self.digest = hashlib.sha256()
        self.num_bytes = 0

    def write(self, data: Any) -> int:
        self.digest.update(data)
        self.num_bytes += len(data)
        return self.file.write(data)

    def flush(self) -> None:
        self.file.flush()


def _header(identity: Identity, sha256: str, num_bytes: int) -> bytes:
    """Of the same length whatever the digest and the size: it is written again when they are known."""
    fields = {
        "format": FORMAT,
        "identity": dict(identity),
        "sha256": sha256,
        "num_bytes": f"{num_bytes:020d}",
    }
    return MAGIC + json.dumps(fields, sort_keys=True).encode() + b"\n"


def save(state: dict[str, Any], path: Path, identity: Identity) -> None:
    """Write a state (tensors and plain values) beside `path`, then rename: a crash leaves the older file as it was.

    Args:
        identity: what the memory belongs to and how it was made (model digest, dimension, metric, kind, ...).

    Raises:
        UserError: if it cannot be written. The older file is kept and no part of the new one is left.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    for leftover in path.parent.glob(f".{path.name}.partial-*"):
        if not Path(f"/proc/{leftover.name.rpartition('-')[2]}").exists():  # killed while it wrote
            leftover.unlink(missing_ok=True)
    partial = path.with_name(f".{path.name}.partial-{os.getpid()}")
    try:
        with partial.open("wb") as file:
            file.write(_header(identity, "0" * 64, 0))
            hashed: Any = _Hashed(file)
            torch.save(state, hashed)
            file.seek(0)
            file.write(_header(identity, hashed.digest.hexdigest(), hashed.num_bytes))
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    except (OSError, RuntimeError) as error:
        # A full disk can reach us as a RuntimeError of torch's zip writer that does not name it.
        full = getattr(error, "errno", None) == errno.ENOSPC
        full = full or shutil.disk_usage(path.parent).free < 2**20
        reason = "the disk is full" if full else str(error).splitlines()[0]
        raise UserError(
            f"cannot write the memory {path}: {reason}. The file before it is kept, if there was one; "
            "make room and give the same command again to continue."
        ) from error
    finally:
        partial.unlink(missing_ok=True)


def load(path: Path, identity: Identity) -> dict[str, Any]:
    """The state that `save` wrote, on the CPU.

    Raises:
        UserError: if the file is missing, no memory, of another format, of another model or made otherwise, cut
            short, or damaged.
    """
    try:
        with path.open("rb") as file:
            fields = _read_header(file, path)
            _check_identity(fields["identity"], identity, path)
            start = file.tell()
            _check_payload(file, fields, path)
            file.seek(start)
            return torch.load(file, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise UserError(
            f"there is no memory at {path}. Give the path of a saved one, or begin a new memory."
        ) from None
    except OSError as error:
        raise UserError(f"cannot read the memory {path}: {error.strerror or error}.") from error


def _read_header(file: BinaryIO, path: Path) -> dict[str, Any]:
    if file.read(len(MAGIC)) != MAGIC:
        raise UserError(f"{path} is not a memory that this program saved. Give the path of one.")
    try:
        fields = json.loads(file.readline())
    except ValueError:
        raise UserError(
            f"the memory {path} is damaged or cut short in its header. Delete it and begin a new one."
        ) from None
    if fields["format"] != FORMAT:
        raise UserError(
            f"the memory {path} has format {fields['format']}; this program reads {FORMAT}. "
            "Delete it and begin a new one."
        )
    return fields


def _check_identity(there: Identity, wanted: Identity, path: Path) -> None:
    names = sorted(there.keys() | wanted.keys())
    other = [
        f"{name} is {there.get(name, 'not given')}, here it is {wanted.get(name, 'not given')}"
        for name in names
        if there.get(name) != wanted.get(name)
    ]
    if other:
        raise UserError(
            f"the memory {path} does not belong here: {'; '.join(other)}. "
            "Use the model and the options it was made with, or begin a new memory."
        )


def _check_payload(file: BinaryIO, fields: dict[str, Any], path: Path) -> None:
    digest, num_bytes = hashlib.sha256(), 0
    while piece := file.read(PIECE):
        digest.update(piece)
        num_bytes += len(piece)
    if num_bytes < int(fields["num_bytes"]):
        raise UserError(
            f"the memory {path} is cut short: {num_bytes} of {int(fields['num_bytes'])} bytes. "
            "Delete it and begin a new one."
        )
    if digest.hexdigest() != fields["sha256"]:
        raise UserError(
            f"the memory {path} is damaged: its checksum is wrong. Delete it and begin a new one."
        )
