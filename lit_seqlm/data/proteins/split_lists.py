"""Lists of what is held out of a corpus, so that everybody holds out the same.

A list is text. Lines that begin with ``#`` say how it was made, one ``key: value`` each; every other line names a
held-out protein: ``valid HASH`` or ``test HASH``, with the first 12 hex digits of the SHA-256 of its accession.
Whatever is not named is trained on.
"""

import hashlib
import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from lit_seqlm.errors import UserError, did_you_mean

log = logging.getLogger(__name__)

FOLDER = Path(__file__).with_name("splits")
HELD_OUT = ("valid", "test")
DIGITS = 12


def accession_hash(accession: str) -> str:
    """What stands for an accession in a list."""
    return hashlib.sha256(accession.encode()).hexdigest()[:DIGITS]


@dataclass
class SplitList:
    """What is held out.

    Attributes:
        made: how the list was made, as its heading says.
        split_of_hash: ``valid`` or ``test``.
    """

    made: Mapping[str, str]
    split_of_hash: Mapping[str, str]
    _found: set[str] = field(default_factory=set)

    def split_of(self, accession: str) -> str:
        """``train``, ``valid`` or ``test``."""
        key = accession_hash(accession)
        split = self.split_of_hash.get(key, "train")
        if split != "train":
            self._found.add(key)
        return split

    def digest(self) -> str:
        """Of what is held out."""
        lines = sorted(f"{split} {key}" for key, split in self.split_of_hash.items())
        return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:16]

    def check_source(self, corpus: str, sha256: str) -> None:
        """Refuse a list that says it was made for another file, which may have relatives of what is held out.

        Args:
            sha256: of the corpus' file.

        Raises:
            UserError: the list names another one. A list that names none is not refused.
        """
        said = self.made.get("sha256", sha256)
        if said != sha256:
            raise UserError(
                f"{corpus} is not the file that its split was made for ({self.made.get('corpus', 'another')}, SHA-256 "
                f"{said[:12]}; this one has {sha256[:12]}): what the list holds out may have relatives in it that are "
                "trained on. Make a list with python experiments/split_proteins.py."
            )

    def check_lengths(
        self, min_len: int, max_len: int | None, option: str = "data.source.{key}="
    ) -> None:
        """Refuse other lengths than the list was made for: relatives of what is held out may be among them.

        Args:
            option: how a person says `key`, a length, up to its value.

        Raises:
            UserError: the list says other ones. A list that says none is not refused.
        """
        for key, given in (("min_len", min_len), ("max_len", max_len)):
            said = self.made.get(key, str(given))
            if said != str(given):
                shown, said = ("null" if one == "None" else one for one in (str(given), said))
                words = option.format(key=key, flag=key.replace("_", "-"))
                raise UserError(
                    f"{words}{shown}: the list of what is held out was made for {key}={said}, so "
                    f"relatives of a test protein may have another length. Say {words}{said}."
                )

    def check_used(self, corpus: str) -> None:
        """After all accessions were asked for: refuse a list that was made for another corpus.

        Raises:
            UserError: the corpus lacks proteins that the list holds out.
        """
        missing = len(self.split_of_hash) - len(self._found)
        if missing:
            raise UserError(
                f"{corpus} lacks {missing:,} of the {len(self.split_of_hash):,} proteins that its split holds out: the "
                "list was made for another corpus. Make one with python experiments/split_proteins.py."
            )


def write_split_list(path: Path, made: Mapping[str, str], held_out: Mapping[str, str]) -> None:
    """Write a list; `held_out` says the split of each accession that is not trained on."""
    heading = [f"# {key}: {value}" for key, value in made.items()]
    lines = sorted(f"{split} {accession_hash(name)}" for name, split in held_out.items())
    hashes = {line.split()[1] for line in lines}
    if len(hashes) < len(lines):
        raise UserError(
            f"{path}: of the {len(lines):,} accessions held out {len(lines) - len(hashes):,} have the hash of another. "
            "Draw with another --seed."
        )
    path.write_text("\n".join([*heading, *lines]) + "\n", encoding="utf-8")


def read_split_list(name: str) -> SplitList:
    """A list that the program brings along, by its name, or any file.

    Raises:
        UserError: there is no such list, or it is not one: a wrong line, a protein in two splits.
    """
    known = sorted(path.stem for path in FOLDER.glob("*.txt"))
    path = FOLDER / f"{name}.txt" if name in known else Path(name)
    if not path.is_file():
        raise UserError(
            f"data.source.split={name}: there is no such list or file. {did_you_mean(name, known)}"
        )
    made, split_of_hash = _parsed(path, path.stat().st_mtime_ns)
    return SplitList(made, split_of_hash)


@cache
def _parsed(path: Path, changed: int) -> tuple[dict[str, str], dict[str, str]]:
    made: dict[str, str] = {}
    split_of_hash: dict[str, str] = {}
    for number, line in enumerate(_lines(path), start=1):
        if line.startswith("#"):
            key, _, value = line[1:].partition(":")
            made[key.strip()] = value.strip()
            continue
        words = line.split()
        if len(words) != 2 or words[0] not in HELD_OUT or len(words[1]) != DIGITS:
            raise UserError(
                f"{path}, line {number}: {line[:60]!r} is neither '# key: value' nor '{' or '.join(HELD_OUT)} HASH'."
            )
        if split_of_hash.setdefault(words[1], words[0]) != words[0]:
            raise UserError(f"{path}, line {number}: {words[1]} is in two splits.")
    if set(split_of_hash.values()) != set(HELD_OUT):
        raise UserError(f"{path}: it holds out nothing for {' or '.join(HELD_OUT)}.")
    return made, split_of_hash


def _lines(path: Path) -> Iterable[str]:
    try:
        return [line for line in path.read_text("utf-8").splitlines() if line.strip()]
    except UnicodeDecodeError:
        raise UserError(f"{path} is no text, so it is no list of a split.") from None
