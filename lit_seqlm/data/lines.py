"""Lines of a text file, with every way to fail told to the user."""

import gzip
import os
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from lit_seqlm.data.progress import ByteBar
from lit_seqlm.errors import UserError

BYTE_ORDER_MARK = "\ufeff"
REPORT_EVERY = 2048  # lines between looks at the progress


def read_lines(path: Path, what: str) -> Iterator[str]:
    """Lines of a UTF-8 text file, plain or .gz, ending in a newline alone (``\\r\\n`` is mended).

    Args:
        what: begins the message if something is wrong: ``data=ptb``.

    Raises:
        UserError: if the file is missing, empty, a folder, a broken archive or not UTF-8, with the
        line number.
    """
    number = 0
    try:
        with path.open("rb") as raw, ByteBar(path.name, os.fstat(raw.fileno()).st_size) as bar:
            file: IO[bytes] = gzip.GzipFile(fileobj=raw) if path.suffix == ".gz" else raw  # type: ignore[assignment]
            for number, line in enumerate(file, start=1):
                if number % REPORT_EVERY == 0:
                    bar.move_to(raw.tell())
                text = line.decode("utf-8")
                if number == 1:
                    text = text.removeprefix(BYTE_ORDER_MARK)
                yield text[:-2] + "\n" if text.endswith("\r\n") else text
    except UnicodeDecodeError as error:
        raise UserError(
            f"{what}: {path} is not UTF-8 in line {number} (byte {error.object[error.start]:#x}). "
            "Convert it, for example with iconv -f latin1 -t utf-8."
        ) from None
    except IsADirectoryError:
        raise UserError(
            f"{what}: {path} is a folder where a text file should be. Move it away."
        ) from None
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise UserError(
            f"{what}: {path} is a broken or cut-off gzip file, after line {number} ({error}). "
            "Fetch it again."
        ) from None
    except OSError as error:
        raise UserError(f"{what}: {path} cannot be read ({error.strerror}).") from None
    if number == 0:
        raise UserError(f"{what}: {path} is empty. Put the text there, or remove the file.")
