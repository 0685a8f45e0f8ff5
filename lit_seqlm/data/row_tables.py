"""Tables of answers to rows, written as they come: CSV, parquet; whole at the end or not there at all."""

# N = rows, K = numbers of a row

import csv
import gzip
import io
import os
from collections.abc import Collection, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from lit_seqlm.data.input_rows import InputRow
from lit_seqlm.errors import UserError

# What stands before the numbers; names where rows have some.
ABOUT = ("row", "input", "status", "reason", "name")
TABLES = (".csv", ".csv.gz", ".parquet")


def about(rows: Sequence[InputRow]) -> Sequence[str]:
    """What a file says of each row beside its numbers, as the first window of rows decides."""
    return ABOUT if any(row.name for row in rows) else ABOUT[:-1]


def told(row: InputRow) -> tuple[int | str, ...]:
    """What `ABOUT` names."""
    return row.number, row.written, row.status, row.reason, row.name


class RowFile:
    """Written beside its place under a hidden name, and moved there when it is complete.

    Args:
        path: where it will be.
    """

    def __init__(self, path: Path):
        self.path, self.partial = path, path.with_name(f".{path.name}.unfinished")

    def write(self, rows: Sequence[InputRow], values_NK: np.ndarray) -> None:
        raise NotImplementedError

    def close(self) -> None:
        raise NotImplementedError

    def commit(self) -> None:
        """Make it appear."""
        self.close()
        with self.partial.open("rb+") as file:
            os.fsync(file.fileno())
        self.partial.replace(self.path)

    def discard(self) -> None:
        """Leave nothing behind."""
        with suppress(OSError):  # a full disk refuses what was not yet written
            self.close()
        self.partial.unlink(missing_ok=True)


class CsvFile(RowFile):
    """One line a row; a missing number is ``nan``, a missing text empty.

    Numbers are written so that reading gives the same ones.
    """

    def __init__(self, path: Path, columns: Sequence[str]):
        super().__init__(path)
        self._raw = self.partial.open("wb")
        zipped = path.name.endswith(".gz")
        # Without a time or a name in it: the same rows give the same bytes.
        self._zip = gzip.GzipFile("", "wb", fileobj=self._raw, mtime=0) if zipped else None
        binary: Any = self._zip or self._raw
        self._text = io.TextIOWrapper(binary, encoding="utf-8", newline="")
        self._lines = csv.writer(self._text, lineterminator="\n")
        self._columns = columns
        self._about: Sequence[str] = ()

    def write(self, rows: Sequence[InputRow], values_NK: np.ndarray) -> None:
        if not self._about:
            self._begin(rows)
        for row, values_K in zip(rows, values_NK, strict=True):
            # Nine digits tell all float32 apart; a float64 is written by its shortest form.
            single = values_K.dtype == np.float32
            numbers = [f"{value:.9g}" for value in values_K] if single else values_K.tolist()
            self._lines.writerow([*told(row)[: len(self._about)], *numbers])

    def _begin(self, rows: Sequence[InputRow]) -> None:
        self._about = about(rows)
        self._lines.writerow([*self._about, *self._columns])

    def close(self) -> None:
        if not self._about:
            self._begin([])
        self._text.close()
        self._raw.close()


class ParquetFile(RowFile):
    """A column for each number or text, or one column of vectors; a window of rows is a row group."""

    def __init__(
        self, path: Path, columns: Sequence[str], vector: str, dtype: str, texts: Collection[str]
    ):
        try:
            import pyarrow as arrow
            from pyarrow import parquet
        except ImportError:
            raise UserError(
                f"task.output={path}: writing parquet needs pyarrow (pip install pyarrow). CSV does not."
            ) from None
        super().__init__(path)
        self._arrow, self._parquet, self._vector = arrow, parquet, vector
        number = arrow.from_numpy_dtype(np.dtype(dtype))
        self._numbers = [(name, arrow.string() if name in texts else number) for name in columns]
        if vector:
            self._numbers = [(vector, arrow.list_(number, len(columns)))]
        self._writer: Any = None

    def write(self, rows: Sequence[InputRow], values_NK: np.ndarray) -> None:
        if self._writer is None:
            self._begin(rows)
        texts = list(zip(*map(told, rows), strict=True))[: len(self._about)]
        if not self._vector:
            columns = zip(np.ascontiguousarray(values_NK.T), self._numbers, strict=True)
            numbers = [self._arrow.array(column, kind) for column, (_, kind) in columns]
        else:
            flat = self._arrow.array(values_NK.reshape(-1))
            numbers = [self._arrow.FixedSizeListArray.from_arrays(flat, values_NK.shape[1])]
        arrays = [*map(self._arrow.array, texts), *numbers]
        self._writer.write_table(self._arrow.Table.from_arrays(arrays, schema=self._schema))

    def _begin(self, rows: Sequence[InputRow]) -> None:
        self._about = about(rows)
        kinds = [self._arrow.int64(), *[self._arrow.string()] * len(self._about[1:])]
        self._schema = self._arrow.schema([*zip(self._about, kinds, strict=True), *self._numbers])
        self._writer = self._parquet.ParquetWriter(str(self.partial), self._schema)

    def close(self) -> None:
        if self._writer is None:
            self._begin([])
        self._writer.close()
