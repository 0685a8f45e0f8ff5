"""Published sets with labels: `property_sets.yaml` as it is used."""

from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import pooch
import yaml

from lit_seqlm.data.fetch import obtain
from lit_seqlm.data.manifest import Entry, FileEntry
from lit_seqlm.data.targets import Target
from lit_seqlm.errors import UserError, did_you_mean

WHOLE = "all"  # the file of a set that is one file


@dataclass(frozen=True)
class PropertySet(Entry):
    """One entry: a corpus's, with what is labelled.

    Attributes:
        kind: ``regression`` or ``classification``.
        split_column: of a set that is one file and says the split of each row.
        targets: in the file's order.
        packed: for each target, its column in `package`.
    """

    kind: str = ""
    sequence_column: str = ""
    split_column: str = ""
    targets: list[Target] = field(default_factory=list)
    packed: dict[str, str] = field(default_factory=dict)

    @property
    def usual_targets(self) -> list[Target]:
        """Without those that repeat another's numbers."""
        return [target for target in self.targets if not target.repeats]


@cache
def _sets() -> dict[str, dict[str, Any]]:
    return yaml.safe_load(
        Path(__file__).with_name("property_sets.yaml").read_text(encoding="utf-8")
    )


def read_property_set(name: str) -> PropertySet:
    """The entry of a set.

    Raises:
        UserError: for a name that there is not.
    """
    entries = _sets()
    if name not in entries:
        raise UserError(f"no labelled set {name!r}. {did_you_mean(name, entries)}")
    values = dict(entries[name])
    mirror = values.pop("mirror", "")
    values["files"] = {split: _file(split, file, mirror) for split, file in values["files"].items()}
    targets = values["targets"]
    values["packed"] = {target["name"]: target.get("packed", "") for target in targets}
    values["targets"] = [_target(target) for target in targets]
    return PropertySet(name=name, vocabulary=0, **values)


def obtain_set(entry: PropertySet, data_dir: Path) -> dict[str, Path]:
    """Paths of all files of a set, downloaded where that is possible, each the published one.

    Raises:
        UserError: for a file that is missing or another one.
    """
    paths = obtain(entry, data_dir)
    for split, path in paths.items():
        file = entry.files[split]
        if not path.is_file() or pooch.file_hash(str(path)) != file.hash.removeprefix("sha256:"):
            raise UserError(
                f"data={entry.name}: {path} is not the published file (its SHA-256 should begin "
                f"{file.hash[7:15]}).\nRemove it to have it fetched again ({entry.home}), or use "
                "data=molecule_table for a table of your own."
            )
    return paths


def _file(split: str, file: dict[str, Any], mirror: str) -> FileEntry:
    return FileEntry(
        tokens=0,
        lines=file["rows"] + 1,
        path=file["path"],
        bytes=file["bytes"],
        hash=f"sha256:{file['sha256']}",
        urls=[f"{mirror}/{split}.csv"] if mirror else [],
    )


def _target(values: dict[str, Any]) -> Target:
    unit = values.get("unit", "")
    return Target(
        name=values["name"],
        column=values.get("column", values["name"]),
        unit=unit,
        chemists_unit=values.get("chemists_unit", unit),
        chemists_factor=values.get("factor", 1.0),
        extensive=values.get("extensive", False),
        repeats=values.get("repeats", ""),
    )
