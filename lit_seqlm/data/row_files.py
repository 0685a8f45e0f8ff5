"""Answers to rows in a file of the kind that its ending says; arrays have a table beside them."""

# N = rows, K = numbers of a row

import shutil
import zipfile
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from lit_seqlm.data.input_rows import InputRow
from lit_seqlm.data.row_places import ARRAYS, beside
from lit_seqlm.data.row_tables import CsvFile, ParquetFile, RowFile


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
