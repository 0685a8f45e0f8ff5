"""A folder that is there whole or not at all."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lit_seqlm.data.shards import MANIFEST
from lit_seqlm.errors import UserError


@contextmanager
def whole_folder(output: Path) -> Iterator[Path]:
    """A hidden folder beside `output` to work in, which takes that name when all went well.

    What a killed process left behind is removed.

    Raises:
        UserError: if `output` is there already, if another process is making it, or if the disk is
        full or not writable.
    """
    output = output.absolute()
    if (output / MANIFEST).exists():
        raise UserError(
            f"{output} is a finished corpus already. Give another --output, or remove it to make "
            "it again."
        )
    if output.exists():
        raise UserError(f"{output} is there already, and is no corpus. Give another --output.")
    partial = output.with_name(f".{output.name}.{os.getpid()}")
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        _remove_leftovers(output)
        partial.mkdir()
        yield partial
        partial.rename(output)
    except OSError as error:
        raise UserError(
            f"{output} cannot be written ({error.strerror or error}). Nothing is left of it."
        ) from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _remove_leftovers(output: Path) -> None:
    for other in output.parent.glob(f".{output.name}.*"):
        number = other.name.rpartition(".")[2]
        if not number.isdigit():
            continue
        if _is_running(int(number)):
            raise UserError(
                f"process {number} is making {output} at this moment. Wait for it, or give another "
                "--output."
            )
        shutil.rmtree(other, ignore_errors=True)


def _is_running(process: int) -> bool:
    if process == os.getpid():
        return False
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # somebody else's
        return True
    return True
