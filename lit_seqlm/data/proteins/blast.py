"""Protein databases of BLAST, version 4, without BLAST: an index, sequences and titles, read where they lie."""

# N = sequences

import mmap
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from lit_seqlm.errors import UserError

LETTERS = "-ABCDEFGHIKLMNPQRSTVWXYZU*OJ"  # NCBIstdaa: a byte's value is the place of its letter
UNREADABLE = "?"
LETTER_OF_BYTE = LETTERS.encode().ljust(256, UNREADABLE.encode())
VERSION, PROTEINS = 4, 1
TITLE = 0x1A  # BER's tag of a VisibleString
NESTING = {
    0x30,
    0x31,
    0x80,
    0xA0,
    0xA1,
    0xAA,
}  # what opens before a title: sequences, of indefinite length
INDEX, SEQUENCES, TITLES = ENDINGS = (".pin", ".psq", ".phr")
REMAKE = "Make it again with makeblastdb -dbtype prot -blastdb_version 4."


class BlastDatabase:
    """Sequences by their place in the database.

    Nothing but the index is read at first, 16 bytes a sequence. The titles, `.phr`, may be missing until one is asked
    for.

    Args:
        path: what the names of the files begin with, or one of the files.

    Raises:
        UserError: for files that are missing, of another version or kind, cut off, or do not fit each other.
    """

    def __init__(self, path: str | Path):
        name = Path(path)
        self.stem = name.with_suffix("") if name.suffix in ENDINGS else name
        index = _Index(self.file(INDEX))
        self.title, self.date = index.title, index.date
        self.num_residues, self.longest = index.num_residues, index.longest
        self._header_starts_N, self._starts_N = index.header_starts_N, index.starts_N
        path = self.file(SEQUENCES)
        expected = self.num_residues + len(self) + 1
        if path.stat().st_size != expected:
            raise UserError(
                f"{path} has {path.stat().st_size:,} bytes; {len(self):,} sequences of {self.num_residues:,} residues "
                f"take {expected:,}. It is cut off, or of another database than {index.path.name}."
            )
        if (
            self._starts_N[0] != 1
            or self._starts_N[-1] != expected
            or (np.diff(self._starts_N) < 1).any()
        ):
            raise UserError(f"{index.path} is damaged: places of sequences do not fit {path.name}.")
        self._bytes = _mapped(path)
        self._headers: mmap.mmap | None = None

    def __len__(self) -> int:
        return len(self._starts_N) - 1

    @property
    def lengths(self) -> np.ndarray:
        """Residues of each sequence, int64 (N,)."""
        return np.diff(self._starts_N) - 1

    def sequence(self, place: int) -> str:
        """Letters of the sequence at a place, from 0.

        Raises:
            UserError: for a byte that is no letter.
        """
        self._check_place(place)
        start, end = int(self._starts_N[place]), int(self._starts_N[place + 1])
        whole = self._bytes[start - 1 : end]  # with the zeros before and behind it
        found = whole[1:-1].translate(LETTER_OF_BYTE).decode("ascii")
        # Inside of a sequence a zero would be a gap, which none has.
        if whole[0] or whole[-1] or UNREADABLE in found or LETTERS[0] in found:
            raise UserError(
                f"{self.stem}, sequence {place + 1}: a byte that is no residue. The files are damaged, "
                "or of two databases."
            )
        return found

    def sequences(self) -> Iterator[str]:
        """All, in their order."""
        return map(self.sequence, range(len(self)))

    def title_of(self, place: int) -> str:
        """The title of the sequence at a place: its accession and what else the FASTA header had.

        Raises:
            UserError: if the titles are missing, or have none there.
        """
        self._check_place(place)
        if self._headers is None:
            path = self.file(TITLES)
            if path.stat().st_size != int(self._header_starts_N[-1]):
                raise UserError(f"{path} is cut off, or of another database than {SEQUENCES}.")
            self._headers = _mapped(path)
        start, end = (int(self._header_starts_N[one]) for one in (place, place + 1))
        title = first_title(self._headers[start:end])
        if title is None:
            raise UserError(f"{self.stem}{TITLES}, sequence {place + 1}: there is no title.")
        return title

    def file(self, ending: str) -> Path:
        """One of its files; UserError where it is missing."""
        path = self.stem.with_name(self.stem.name + ending)
        if path.is_file():
            return path
        if self.stem.with_name(self.stem.name + ".pal").is_file():
            raise UserError(f"{self.stem} is in several volumes: read {self.stem}.00 and so on.")
        raise UserError(
            f"there is no {path}. A database of BLAST is NAME.pin, NAME.psq and NAME.phr: give NAME. {REMAKE}"
        )

    def _check_place(self, place: int) -> None:
        if not 0 <= place < len(self):
            raise IndexError(f"{self.stem} has {len(self)} sequences, and none at {place}")


def first_title(header: bytes) -> str | None:
    """The title in the header of a sequence: text behind the first tag 0x1A; None where there is none.

    Its length is one byte below 0x80, or so many bytes as the lower bits of a first one say. It is not searched for by
    its looks: the byte of its length is often a letter that would stick to the accession.
    """
    place = header.find(TITLE)
    if place < 0 or set(header[:place]) - NESTING or place + 1 >= len(header):
        return None
    size, start = header[place + 1], place + 2
    if size >= 0x80:
        num_bytes = size - 0x80
        size = int.from_bytes(header[start : start + num_bytes], "big")
        start += num_bytes
    text = header[start : start + size]
    return text.decode("utf-8", "replace") if 0 < size == len(text) else None


def _mapped(path: Path) -> mmap.mmap:
    with path.open("rb") as file:
        return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)


class _Index:
    """The `.pin`: integers are big-endian, but for the number of residues."""

    def __init__(self, path: Path):
        self.path, self.place = path, 0
        self.bytes = path.read_bytes()
        version, kind = self._integer(), self._integer()
        if version != VERSION or kind != PROTEINS:
            what = "proteins" if kind == PROTEINS else "no proteins"
            raise UserError(f"{path} is of version {version}, of {what}. {REMAKE}")
        self.title, self.date = self._text(), self._text()
        num_sequences = self._integer()
        self.num_residues = int.from_bytes(self._take(8), "little", signed=True)
        self.longest = self._integer()
        self.header_starts_N = self._places(num_sequences)
        self.starts_N = self._places(num_sequences)
        if num_sequences < 1 or self.num_residues < 0 or self.place != len(self.bytes):
            raise UserError(f"{path} is damaged, or holds no sequence. {REMAKE}")

    def _take(self, size: int) -> bytes:
        found = self.bytes[self.place : self.place + size] if size >= 0 else b""
        if len(found) != size:
            raise UserError(f"{self.path} is cut off, or no index of BLAST. {REMAKE}")
        self.place += size
        return found

    def _integer(self) -> int:
        return int.from_bytes(self._take(4), "big", signed=True)

    def _text(self) -> str:
        """A length and so many bytes; the date is filled up with zeros."""
        return self._take(self._integer()).rstrip(b"\0").decode("utf-8", "replace")

    def _places(self, num_sequences: int) -> np.ndarray:
        return np.frombuffer(self._take(4 * (num_sequences + 1)), ">u4").astype(np.int64)
