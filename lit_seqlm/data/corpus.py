"""Where the lines of a text corpus come from, and how a wrong copy is refused."""

import gzip
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

from lit_seqlm.data.manifest import Entry, read_manifest, resolve
from lit_seqlm.errors import UserError


class TextSource(Protocol):
    """Three splits of lines; a copy that is not the published one is refused while it is read."""

    name: str

    def fetch(self) -> None: ...

    def lines(self, split: str) -> Iterator[str]: ...


class Corpus:
    """A published corpus with its manifest entry: files, checksums, counts, licence (`manifest.yaml`).

    Args:
        name: the manifest's key.
        data_dir: looked into first.
    """

    def __init__(self, name: str, data_dir: str):
        self.name, self.data_dir = name, Path(data_dir)
        self.entry: Entry = read_manifest(name)
        self.paths: dict[str, Path] = {}

    def fetch(self) -> None:
        self.paths = resolve(self.entry, self.data_dir)

    def lines(self, split: str) -> Iterator[str]:
        if not self.paths:
            self.fetch()
        num_tokens = 0
        for line in read_lines(self.paths[split], f"data={self.name}"):
            num_tokens += len(line.split()) + 1  # one <eos> a line
            yield line
        expected = self.entry.counts.get(split, num_tokens)
        if num_tokens != expected:
            raise UserError(
                f"data={self.name}: {self.paths[split]} has {num_tokens:,} tokens where a correct copy has "
                f"{expected:,}. Replace it with the original: {self.entry.where(split)}"
            )


def read_lines(path: Path, what: str) -> Iterator[str]:
    """Lines of a UTF-8 text file, plain or .gz.

    Raises:
        UserError: if the file is empty or is not UTF-8, with the line number.
    """
    number = 0
    opener = gzip.open if path.suffix == ".gz" else open
    try:
        with opener(path, "rt", encoding="utf-8", newline="\n") as file:
            for number, line in enumerate(file, start=1):
                yield line
    except UnicodeDecodeError as error:
        raise UserError(
            f"{what}: {path} is not UTF-8 near line {number + 1} (byte {error.object[error.start]:#x}). "
            "Convert it, for example with iconv -t UTF-8."
        ) from None
    if number == 0:
        raise UserError(f"{what}: {path} is empty. Put the text there, or remove it to have it fetched again.")
