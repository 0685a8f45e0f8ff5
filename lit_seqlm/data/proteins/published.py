"""Files of published sets, each refused where it is missing or another one."""

import hashlib
import json
from functools import cache
from pathlib import Path
from typing import Any

import pooch
import yaml

from lit_seqlm.errors import UserError


class PublishedFiles:
    """The files of one entry of `published.yaml`.

    Args:
        entry: its name there.
        name: as the user says it, for messages.
        data_dir: below it is the entry's folder.
    """

    def __init__(self, entry: str, name: str, data_dir: str):
        said = _entries()[entry]
        self.name, self.home = name, said["home"]
        self.folder = Path(data_dir) / said["folder"]
        self.hashes: dict[str, str] = said["files"]
        self._checked = False

    def __getitem__(self, file: str) -> Path:
        """Where a file is."""
        return self.folder / file

    def digest(self) -> str:
        """Of what the files hold, by what they should hold."""
        return hashlib.sha256(json.dumps(self.hashes).encode()).hexdigest()[:16]

    def fetch(self) -> None:
        """Raise UserError where a file is missing, or not the published one."""
        if self._checked:
            return
        missing = [file for file in self.hashes if not self[file].is_file()]
        if missing:
            raise UserError(
                f"data={self.name}: there is no {', '.join(missing)} in {self.folder}. Get it from {self.home}, "
                "and let paths.data_dir (or LIT_SEQLM_DATA) name the folder that it lies under."
            )
        for file, digest in self.hashes.items():
            if pooch.file_hash(str(self[file])) != digest:
                raise UserError(
                    f"data={self.name}: {self[file]} is not the published file (its SHA-256 begins {digest[:8]}). "
                    f"Get it again from {self.home}."
                )
        self._checked = True


@cache
def _entries() -> dict[str, dict[str, Any]]:
    return yaml.safe_load(Path(__file__).with_name("published.yaml").read_text("utf-8"))
