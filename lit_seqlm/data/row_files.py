"""Answers to rows, written as they come: CSV, parquet, NumPy arrays; whole at the end or not there at all."""

# N = rows, K = numbers of a row

import csv
import gzip
import io
import os
import shutil
import zipfile
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np

from lit_seqlm.data.input_rows import InputRow
from lit_seqlm.data.row_places import ARRAYS, beside
from lit_seqlm.errors import UserError

ABOUT = ("row", "input", "status", "reason")  # what stands before the numbers
TABLES = (".csv", ".csv.gz", ".parquet")


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
        self._lines.writerow([*ABOUT, *columns])

    def write(self, rows: Sequence[InputRow], values_NK: np.ndarray) -> None:
        for row, values_K in zip(rows, values_NK, strict=True):
            # Nine digits tell all float32 apart; a float64 is written by its shortest form.
            single = values_K.dtype == np.float32
            numbers = [f"{value:.9g}" for value in values_K] if single else values_K.tolist()
            self._lines.writerow([row.number, row.written, row.status, row.reason, *numbers])

    def close(self) -> None:
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
        self._arrow, self._vector = arrow, vector
        number = arrow.from_numpy_dtype(np.dtype(dtype))
        kinds = [arrow.int64(), arrow.string(), arrow.string(), arrow.string()]
        about = list(zip(ABOUT, kinds, strict=True))
        numbers = [(name, arrow.string() if name in texts else number) for name in columns]
        if vector:
            numbers = [(vector, arrow.list_(number, len(columns)))]
        self._schema = arrow.schema([*about, *numbers])
        self._writer = parquet.ParquetWriter(str(self.partial), self._schema)

    def write(self, rows: Sequence[InputRow], values_NK: np.ndarray) -> None:
        about = [
            [row.number for row in rows],
            [row.written for row in rows],
            [row.status for row in rows],
            [row.reason for row in rows],
        ]
        types = self._schema.types[len(ABOUT) :]
        if not self._vector:
            columns = zip(np.ascontiguousarray(values_NK.T), types, strict=True)
            numbers = [self._arrow.array(column, kind) for column, kind in columns]
        else:
            flat = self._arrow.array(values_NK.reshape(-1))
            numbers = [self._arrow.FixedSizeListArray.from_arrays(flat, values_NK.shape[1])]
        arrays = [*map(self._arrow.array, about), *numbers]
        self._writer.write_table(self._arrow.Table.from_arrays(arrays, schema=self._schema))

    def close(self) -> None:
        self._writer.close()


class ArrayFile(RowFile):
    """One array (N, K) in .npy, or in .npz under a name, and beside it ``NAME.rows.csv`` with what is no number."""

    def __init__(self, path: Path, num_columns: int, name: str, dtype: str):
        super().__init__(path)
        self.name, self.shape, self.dtype = name, [0, num_columns], np.dtype(dtype)
        self.beside = CsvFile(beside(path), [])
        self._file = self.partial.open("wb")
        self._begin = self._header()

    def write(self, rows: Sequence[InputRow], values_NK: np.ndarray) -> None:
        self._file.write(np.ascontiguousarray(values_NK, self.dtype).tobytes())
        self.shape[0] += len(rows)
        self.beside.write(rows, values_NK[:, :0])

    def close(self) -> None:
        self.beside.close()
        self._file.close()

    def commit(self) -> None:
        self._file.seek(0)
        end = self._header()  # now with the number of rows, for which NumPy leaves room
        assert end == self._begin, "the array's header has changed its length"
        self._file.close()
        if self.path.suffix == ".npz":
            self._pack()
        self.beside.commit()
        super().commit()

    def discard(self) -> None:
        self.beside.discard()
        super().discard()

    def _header(self) -> int:
        said = {"descr": self.dtype.str, "fortran_order": False, "shape": tuple(self.shape)}
        np.lib.format.write_array_header_1_0(self._file, said)
        return self._file.tell()

    def _pack(self) -> None:
        packed = self.partial.with_name(f"{self.partial.name}.zip")
        entry = zipfile.ZipInfo(f"{self.name}.npy")  # of a fixed date
        with (
            zipfile.ZipFile(packed, "w") as archive,
            archive.open(entry, "w", force_zip64=True) as target,
            self.partial.open("rb") as array,
        ):
            shutil.copyfileobj(array, target, 2**20)
        packed.replace(self.partial)


class OwnArraysFile(RowFile):
    """An .npz with an array of its own shape for each row that has one, and beside it ``NAME.rows.csv`` with the rest.

    The array of a row is the last of its values. It is called as the row is, or by the row's number.
    """

    def __init__(self, path: Path, columns: Sequence[str]):
        super().__init__(path)
        self.beside = CsvFile(beside(path), columns)
        self._archive = zipfile.ZipFile(self.partial, "w")
        self._names: set[str] = set()

    def write(self, rows: Sequence[InputRow], values_NK: np.ndarray) -> None:
        for row, array in zip(rows, values_NK[:, -1], strict=True):
            if array is None:
                continue
            name = row.name or f"row_{row.number}"
            name = f"{name}_{row.number}" if name in self._names else name
            self._names.add(name)
            entry = zipfile.ZipInfo(f"{name}.npy")  # of a fixed date
            with self._archive.open(entry, "w", force_zip64=True) as target:
                np.lib.format.write_array(target, array, allow_pickle=False)
        self.beside.write(rows, values_NK[:, :-1])

    def close(self) -> None:
        self.beside.close()
        self._archive.close()

    def commit(self) -> None:
        self.beside.commit()
        super().commit()

    def discard(self) -> None:
        self.beside.discard()
        super().discard()


@contextmanager
def row_file(
    path: Path,
    columns: Sequence[str],
    vector: str,
    dtype: str,
    texts: Collection[str] = (),
    own_arrays: bool = False,
) -> Iterator[RowFile]:
    """A file to write rows to, of the kind that its ending says; it appears when the block ends well.

    Args:
        columns: a name for each number of a row.
        vector: what all numbers of a row together are called; empty where each is of its own kind.
        dtype: of the numbers.
        texts: the columns that are no numbers.
        own_arrays: behind its columns a row has one more value, an array of any shape, or None.
    """
    if own_arrays:
        file: RowFile = OwnArraysFile(path, columns)
    elif path.suffix in ARRAYS:
        file = ArrayFile(path, len(columns), vector, dtype)
    elif path.suffix == ".parquet":
        file = ParquetFile(path, columns, vector, dtype, texts)
    else:
        file = CsvFile(path, columns)
    try:
        yield file
        file.commit()
    except BaseException:
        file.discard()
        raise
