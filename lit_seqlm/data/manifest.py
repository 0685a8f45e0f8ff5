"""The manifest: the files of a corpus, where they come from and what a correct copy looks like."""

from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from lit_seqlm.errors import UserError


@dataclass(frozen=True)
class FileEntry:
    """One file: a split of a corpus.

    Attributes:
        path: below the data root; null for a split that lives in a package.
        tokens: words, and one ``<eos>`` a line.
        lines: blank ones included.
        bytes: its size; 0 where it is not known.
        hash: algorithm and digest of the published file, as pooch writes them: ``sha256:...``.
        words: SHA-256 of the words of each line joined by one space; empty where it is not known.
        urls: places that serve this very file, tried in turn.
        member: its name in the corpus's archive.
    """

    tokens: int
    lines: int
    path: str = ""
    bytes: int = 0
    hash: str = ""
    words: str = ""
    urls: list[str] = field(default_factory=list)
    member: str = ""


@dataclass(frozen=True)
class Archive:
    """One zip file with all splits: its checksum, and places that serve it, tried in turn."""

    hash: str
    urls: list[str]


@dataclass(frozen=True)
class Entry:
    """One corpus of `manifest.yaml`.

    Attributes:
        home: where a person would get it.
        vocabulary: distinct words of the training split, ``<eos>`` included.
        heading: a line that opens a document, where it stands between blank lines; empty if none is
            marked.
        package: what to install, for a corpus that a dependency ships.
    """

    name: str
    title: str
    licence: str
    citation: str
    home: str
    files: dict[str, FileEntry]
    vocabulary: int
    heading: str = ""
    archive: Archive | None = None
    package: str = ""

    def paths(self, data_dir: Path) -> dict[str, Path]:
        """Where each split is, or belongs, under a data root."""
        return {split: data_dir / file.path for split, file in self.files.items()}


@cache
def _manifest() -> dict[str, dict[str, Any]]:
    return yaml.safe_load(Path(__file__).with_name("manifest.yaml").read_text(encoding="utf-8"))


def read_manifest(name: str) -> Entry:
    """The entry of a corpus.

    Raises:
        UserError: for a name that the manifest lacks.
    """
    entries = _manifest()
    if name not in entries:
        raise UserError(f"no corpus {name!r} in the manifest. There is: {', '.join(entries)}.")
    values = dict(entries[name])
    values["files"] = {split: FileEntry(**file) for split, file in values["files"].items()}
    if "archive" in values:
        values["archive"] = Archive(**values["archive"])
    return Entry(name=name, **values)
