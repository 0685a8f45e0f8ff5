"""Any folder of plain text as a corpus of documents, in order or held out at random."""

import hashlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pooch

from lit_seqlm.data.corpus import SPLITS
from lit_seqlm.data.lines import read_lines
from lit_seqlm.errors import UserError

ENDINGS = (".txt", ".txt.gz")


class TextFolder:
    """A stream of documents from .txt and .txt.gz files, a paragraph a line.

    Blank lines separate documents and are not part of the text; a document ends with its file, and
    files are read in the order of their names. Only the documents' lengths are held in memory.

    Args:
        folder: searched without its subfolders.
        files: which of them, as a pattern: ``reuters_*``.
        split_by: ``fraction`` cuts at documents; ``file_name`` takes files named train*, valid* and
            test*.
        valid_fraction, test_fraction: of the characters, each at least one document; unused with
            ``file_name``.
        order: ``kept`` holds out the last documents (drift over time), ``shuffled`` some drawn at
            random; inside a split the documents keep their order.
        seed: of the draw.
    """

    name = "text_folder"

    def __init__(
        self,
        folder: str,
        files: str,
        split_by: str,
        valid_fraction: float,
        test_fraction: float,
        order: str,
        seed: int,
    ):
        if split_by not in ("fraction", "file_name"):
            raise UserError(f"data.source.split_by={split_by}: choose fraction or file_name")
        if order not in ("kept", "shuffled"):
            raise UserError(f"data.source.order={order}: choose kept or shuffled")
        if min(valid_fraction, test_fraction) <= 0 or valid_fraction + test_fraction >= 1:
            raise UserError(
                f"data.source.valid_fraction={valid_fraction} and test_fraction={test_fraction} "
                "must be above 0 and leave something to train on"
            )
        self.folder, self.files, self.split_by = Path(folder), files, split_by
        self.valid_fraction, self.test_fraction = valid_fraction, test_fraction
        self.order, self.seed = order, seed
        self._paths: dict[str, list[Path]] = {}
        self._split_of: np.ndarray | None = None  # of each document, with split_by=fraction

    def fetch(self) -> None:
        """Find the files and decide which document belongs where.

        Raises:
            UserError: if there is no text, or too few documents to split.
        """
        if self._paths:
            return
        found = self._find()
        if self.split_by == "file_name":
            by_name = {split: [p for p in found if p.name.startswith(split)] for split in SPLITS}
            missing = next((split for split, paths in by_name.items() if not paths), None)
            if missing:
                raise UserError(
                    f"data=text_folder: no file in {self.folder} is named {missing}*.txt or "
                    f"{missing}*.txt.gz. Name one so, or let documents be held out: "
                    "data.source.split_by=fraction."
                )
            self._paths = by_name
            return
        self._split_of = self._assign([sum(map(len, lines)) for lines in self._read(found)])
        self._paths = dict.fromkeys(SPLITS, found)

    def digest(self) -> str:
        """SHA-256 over the files' names and contents: a run on a text that has changed is another run."""
        total = hashlib.sha256()
        for path in self._find():
            total.update(f"{path.name} {pooch.file_hash(str(path))}\n".encode())
        return total.hexdigest()

    def lines(self, split: str) -> Iterator[str]:
        for document in self.documents(split):
            yield from document

    def documents(self, split: str) -> Iterator[list[str]]:
        """The lines of each document."""
        self.fetch()
        for number, document in enumerate(self._read(self._paths[split])):
            if self._split_of is None or self._split_of[number] == SPLITS.index(split):
                yield document

    def _find(self) -> list[Path]:
        if not self.folder.is_dir():
            raise UserError(
                f"data=text_folder: {self.folder} is no folder. Say data.source.folder=PATH "
                "(data=domain_stream: data.source.source.folder=PATH)."
            )
        found = sorted(path for path in self.folder.glob(self.files) if path.name.endswith(ENDINGS))
        if not found:
            raise UserError(
                f"data=text_folder: no .txt or .txt.gz file in {self.folder} matches "
                f"{self.files!r}. It has {', '.join(sorted(p.name for p in self.folder.glob('*'))[:8])}. Give another "
                "files= pattern, such as 'brown*', or folder=."
            )
        return found

    @staticmethod
    def _read(paths: list[Path]) -> Iterator[list[str]]:
        for path in paths:
            document: list[str] = []
            for line in read_lines(path, "data=text_folder"):
                if line.strip():
                    document.append(line if line.endswith("\n") else line + "\n")
                elif document:
                    yield document
                    document = []
            if document:
                yield document

    def _assign(self, lengths: list[int]) -> np.ndarray:
        """The split of each document, as an index into SPLITS."""
        count = len(lengths)
        if count < len(SPLITS):
            raise UserError(
                f"data=text_folder: {self.folder} has {count} document(s), too few for three "
                "splits. Put a blank line between documents, or name files train*, valid*, test* "
                "and say data.source.split_by=file_name."
            )
        sizes = np.array(lengths, dtype=np.float64)
        rng = np.random.default_rng(self.seed)
        order = np.arange(count) if self.order == "kept" else rng.permutation(count)
        middles = np.cumsum(sizes[order]) - sizes[order] / 2
        share = middles / sizes.sum()  # of the text, before the middle of each document
        held_out = self.valid_fraction + self.test_fraction
        test_from = min(max(int(np.searchsorted(share, 1 - self.test_fraction)), 2), count - 1)
        valid_from = min(max(int(np.searchsorted(share, 1 - held_out)), 1), test_from - 1)
        split_of = np.zeros(count, dtype=np.int8)
        split_of[order[valid_from:test_from]] = SPLITS.index("valid")
        split_of[order[test_from:]] = SPLITS.index("test")
        return split_of
