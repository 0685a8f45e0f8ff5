"""Files of TAPE: an LMDB of pickled proteins, or the same proteins as JSON; pickled code is never run."""

import logging
import pickle
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from lit_seqlm.data.json_rows import read_json_lines, read_json_list
from lit_seqlm.data.proteins.plain_pickle import RefusedError, load_plain
from lit_seqlm.errors import UserError

log = logging.getLogger(__name__)

ENDINGS = (".lmdb", ".json")
HOME = "TAPE (songlab-cal/tape on GitHub has the addresses)"
COUNT = b"num_examples"
DATA = "data.mdb"  # of an LMDB that is a folder
MAGIC = (0xBEEFC0DE).to_bytes(4, "little")
MAGIC_PLACE = 16


def tape_file(folder: Path, task: str, split: str) -> Path:
    """``TASK_SPLIT.lmdb`` or ``TASK_SPLIT.json`` in a folder, or in the folder ``TASK`` below it.

    Raises:
        UserError: if there is none; says where it comes from.
    """
    names = [f"{task}_{split}{ending}" for ending in ENDINGS]
    for place in (folder / task, folder):
        for name in names:
            if (place / name).exists():
                return place / name
    raise UserError(
        f"there is no {' or '.join(names)} in {folder}, nor in {folder / task}. Get it from {HOME}."
    )


def read_tape(path: str | Path) -> Iterator[dict[str, Any]]:
    """The proteins of a file, in its order: ``primary`` is the sequence, the rest is the task's.

    An LMDB (`.lmdb`, a file or a folder), a `.json` that is one list, or a `.jsonl` with one protein a line; the
    latter two have lists where an LMDB has arrays. ``id`` is the place in the file, from 0, where a protein has none.

    Raises:
        UserError: for a file that is missing, damaged or cut off, and for a protein that is no dictionary or brings
            more than plain values and arrays; names it by its place from 1.
    """
    path = Path(path)
    name = path.name.lower().removesuffix(".gz")
    if name.endswith(".jsonl"):
        records: Iterator[dict[str, Any]] = (record for _, record in read_json_lines(str(path)))
    elif name.endswith(".json"):
        records = read_json_list(str(path))
    elif name.endswith((".lmdb", ".mdb")) or (path / DATA).is_file():
        records = _read_lmdb(path)
    else:
        raise UserError(f"{path}: files of TAPE end in .lmdb, .json or .jsonl.")
    for number, record in enumerate(records):
        record.setdefault("id", str(number))
        yield record


def _read_lmdb(path: Path) -> Iterator[dict[str, Any]]:
    with _opened(path) as (environment, transaction):
        count = _count(transaction.get(COUNT), path)
        if environment.stat()["entries"] > count + 1:
            more = environment.stat()["entries"] - count - 1
            log.warning("%s: %d entries beside its %d proteins are not read", path, more, count)
        for number in range(count):
            value = transaction.get(str(number).encode())
            if value is None:
                raise UserError(
                    f"{path}, protein {number + 1}: it is missing, though the file says {count:,}. Fetch it again."
                )
            record = _loaded(value, f"{path}, protein {number + 1}")
            if not isinstance(record, dict) or not all(isinstance(key, str) for key in record):
                raise UserError(
                    f"{path}, protein {number + 1}: not a dictionary of the task's values."
                )
            yield record


def _count(value: bytes | None, path: Path) -> int:
    if value is None:
        raise UserError(f"{path} has no key 'num_examples': it is no file of TAPE.")
    count = _loaded(value, f"{path}, num_examples")
    if not isinstance(count, int) or isinstance(count, bool) or count < 0:
        raise UserError(f"{path}: num_examples is no number of proteins.")
    return count


def _loaded(value: bytes, where: str) -> Any:
    try:
        return load_plain(value)
    except RefusedError as error:
        raise UserError(
            f"{where}: its pickle holds more than numbers, texts and arrays ({error}), so it was refused and nothing "
            "of it was run. Files of TAPE hold no such thing: do not trust this one."
        ) from None
    except pickle.UnpicklingError as error:
        raise UserError(f"{where}: not a readable pickle ({error}).") from None


@contextmanager
def _opened(path: Path) -> Iterator[tuple[Any, Any]]:
    """An environment and a transaction that read; no lock file is made."""
    try:
        import lmdb
    except ImportError:
        raise UserError(
            f"{path}: reading LMDB needs lmdb (pip install lmdb). TAPE's JSON files do not."
        ) from None
    _check_magic(path)
    try:
        with lmdb.open(
            str(path),
            subdir=path.is_dir(),
            readonly=True,
            lock=False,
            readahead=False,
            create=False,
        ) as environment:
            _check_size(environment, path)
            with environment.begin(buffers=False) as transaction:
                yield environment, transaction
    except lmdb.Error as error:
        raise UserError(f"{path} cannot be read as LMDB ({error}).") from None


def _check_magic(path: Path) -> None:
    """What the library does not survive is found out before it sees the file."""
    whole = path / DATA if path.is_dir() else path
    try:
        with whole.open("rb") as file:
            begin = file.read(MAGIC_PLACE + len(MAGIC))
    except OSError as error:
        raise UserError(f"{whole} cannot be read ({error.strerror}).") from None
    if begin[MAGIC_PLACE:] != MAGIC:
        raise UserError(f"{whole} is no LMDB, or of a computer with another order of bytes.")


def _check_size(environment: Any, path: Path) -> None:
    whole = path / DATA if path.is_dir() else path
    size = (environment.info()["last_pgno"] + 1) * environment.stat()["psize"]
    if whole.stat().st_size < size:
        raise UserError(
            f"{whole} is cut off: {whole.stat().st_size:,} bytes of {size:,}. Fetch it again."
        )
