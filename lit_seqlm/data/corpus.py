"""Where the lines of a text corpus come from, and how a wrong copy is refused."""

import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import pooch

from lit_seqlm.data.fetch import obtain
from lit_seqlm.data.lines import read_lines
from lit_seqlm.data.manifest import Entry, FileEntry, read_manifest
from lit_seqlm.errors import UserError
from lit_seqlm.tokenizer.word import EOS

SPLITS = ("train", "valid", "test")


class TextSource(Protocol):
    """Three splits of lines; a copy that is not the published one is refused when it is fetched.

    Each line ends in a newline. The documents of a split, one after the other, are its lines.
    """

    name: str

    def digest(self) -> str:
        """Empty where name and options alone say which text it is."""

    def fetch(self) -> None: ...

    def lines(self, split: str) -> Iterator[str]: ...

    def documents(self, split: str) -> Iterator[list[str]]: ...


class Corpus:
    """A published corpus with its entry in `manifest.yaml`: files, checksums, counts, licence.

    Args:
        name: the manifest's key.
        data_dir: looked into first; a download goes there.
    """

    def __init__(self, name: str, data_dir: str):
        self.name, self.data_dir = name, Path(data_dir)
        self.entry: Entry = read_manifest(name)
        self.paths: dict[str, Path] = {}

    def fetch(self) -> None:
        """Find the files, or download them, and check that they are the published ones.

        Raises:
            UserError: for a file that is missing, unreadable or not a correct copy.
        """
        if self.paths:
            return
        paths = obtain(self.entry, self.data_dir)
        for split, path in paths.items():
            self._verify(split, path)
        self.paths = paths

    def digest(self) -> str:
        return ""  # the manifest vouches for it

    def lines(self, split: str) -> Iterator[str]:
        self.fetch()
        return read_lines(self.paths[split], f"data={self.name}")

    def documents(self, split: str) -> Iterator[list[str]]:
        """Articles where the corpus marks them by a heading; else the whole split, as one."""
        lines = list(self.lines(split))
        heading = re.compile(self.entry.heading) if self.entry.heading else None
        starts = [0]
        for number in range(1, len(lines) - 1) if heading else ():
            blank_around = not lines[number - 1].strip() and not lines[number + 1].strip()
            if blank_around and heading.match(lines[number].rstrip("\n")):  # type: ignore[union-attr]
                starts.append(number - 1)
        for start, end in zip(starts, [*starts[1:], len(lines)], strict=True):
            if end > start:
                yield lines[start:end]

    def _verify(self, split: str, path: Path) -> None:
        """Refuse a file with other words than the published one; other white space is no matter."""
        file = self.entry.files[split]
        if path.is_file() and _same_file(path, file):
            return
        found = summarize(read_lines(path, f"data={self.name}"))
        if (found.tokens, found.lines) != (file.tokens, file.lines):
            how = (
                f"{found.tokens:,} tokens in {found.lines:,} lines, "
                f"not {file.tokens:,} in {file.lines:,}"
            )
        elif split == "train" and found.vocabulary != self.entry.vocabulary:
            how = f"a vocabulary of {found.vocabulary:,} words, not {self.entry.vocabulary:,}"
        elif file.words and found.words != file.words:
            how = "the right counts, but other words or another order"
        else:
            return
        raise UserError(
            f"data={self.name}: {path} is not the published {split} text: it has {how}.\n"
            f"Remove it to have it fetched again ({self.entry.home}), or use data=text_folder for "
            "a text of your own."
        )


@dataclass(frozen=True)
class Summary:
    """What a text holds, ``<eos>`` included, and its digest (see `FileEntry.words`)."""

    tokens: int
    lines: int
    vocabulary: int
    words: str


def summarize(lines: Iterator[str]) -> Summary:
    """Count a text and digest its words, as `manifest.yaml` has them."""
    num_tokens, num_lines, digest = 0, 0, hashlib.sha256()
    vocabulary = {EOS}
    for line in lines:
        words = line.split()
        num_tokens += len(words) + 1
        num_lines += 1
        vocabulary.update(words)
        digest.update((" ".join(words) + "\n").encode())
    return Summary(num_tokens, num_lines, len(vocabulary), digest.hexdigest())


def _same_file(path: Path, file: FileEntry) -> bool:
    if file.bytes and path.stat().st_size != file.bytes:
        return False
    algorithm, _, digest = file.hash.partition(":")
    return pooch.file_hash(str(path), alg=algorithm) == digest
