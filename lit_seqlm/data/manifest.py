"""The manifest: which files a corpus has, where they come from and what a correct copy looks like."""

from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import yaml

from lit_seqlm.errors import UserError


@dataclass(frozen=True)
class Entry:
    """One corpus of `manifest.yaml`."""

    name: str
    title: str
    licence: str
    citation: str
    files: dict[str, str] = field(default_factory=dict)
    urls: dict[str, str] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)

    def where(self, split: str) -> str:
        return self.urls.get(split) or self.urls.get("archive") or self.citation


@cache
def _manifest() -> dict[str, dict]:
    return yaml.safe_load(Path(__file__).with_name("manifest.yaml").read_text())


def read_manifest(name: str) -> Entry:
    entries = _manifest()
    if name not in entries:
        raise UserError(f"no corpus {name!r} in the manifest. There is: {', '.join(entries)}.")
    return Entry(name=name, **entries[name])


def resolve(entry: Entry, data_dir: Path) -> dict[str, Path]:
    """Paths of all files of a corpus."""
    return {split: data_dir / file for split, file in entry.files.items()}
