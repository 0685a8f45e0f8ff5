"""Labelled proteins of any file as a table: sequences clean, labels of their lengths, what is tested left out."""

# L = residues of a protein

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from lit_seqlm.data.annotated_table import AnnotatedTable
from lit_seqlm.data.property_source import Dropped
from lit_seqlm.data.proteins.cleaning import clean
from lit_seqlm.errors import UserError

NO_CLASS = -128


@dataclass
class Labelled:
    """One protein.

    Attributes:
        number: its place in the file, from 1.
        sequence: as the file has it.
        label: an array with an entry for each residue (a class, or where it is in space), or the class of the chain.
        scopes: named parts of the residues, bool (L,).
    """

    number: int
    name: str
    sequence: str
    label: Any
    scopes: dict[str, np.ndarray] = field(default_factory=dict)


def labelled_table(
    proteins: Iterable[Labelled], tokenizer: Any, where: str, tested: Mapping[str, str]
) -> AnnotatedTable:
    """A split; its labels are as they were given.

    Args:
        tested: sequences that may not be among these, each as `comparable` has it, and what has it.

    Raises:
        UserError: for a sequence that is none, and for labels or scopes of another length.
    """
    table = AnnotatedTable([], [], labels := [])
    for protein in proteins:
        found = clean(protein.sequence, tokenizer.ambiguous, tokenizer.gapped)
        if found.sequence is None and found.status != "ambiguous":
            raise UserError(f"{where}, {protein.name}: {found.reason}.")
        form = comparable(protein.sequence)
        if found.sequence is None or form in tested:
            why = found.reason or f"has the sequence of one in {tested[form]}"
            table.dropped.append(Dropped(protein.number, f"{protein.name} {why}"))
            continue
        _check_lengths(protein, len(found.sequence), where)
        table.names.append(protein.name)
        table.numbers.append(protein.number)
        table.sequences.append(found.sequence)
        labels.append(protein.label)
        for name, part in protein.scopes.items():
            table.scopes.setdefault(name, []).append(part)
        assert all(len(parts) == len(labels) for parts in table.scopes.values())
    return table


def comparable(written: str) -> str:
    """The form that two sequences share if some tokenizer reads them alike: clean, no gaps, ambiguous residues as X."""
    return clean(written, "to_x", gapped=True).sequence or written


def classes_of(letters: str, number_of: Mapping[str, int], where: str) -> np.ndarray:
    """Classes of residues by their letters, int8 (L,).

    Args:
        number_of: the class of each letter, which is one byte.

    Raises:
        UserError: a letter has no class.
    """
    numbers = np.full(256, NO_CLASS, np.int8)
    numbers[[ord(letter) for letter in number_of]] = list(number_of.values())
    found_L = numbers[np.frombuffer(letters.encode("latin-1", "replace"), np.uint8)]
    if (found_L == NO_CLASS).any():
        place = int(np.argmax(found_L == NO_CLASS))
        raise UserError(
            f"{where}: {letters[place]!r} at position {place + 1} of the labels is no class. There are: "
            f"{' '.join(letter for letter in number_of if letter.isalpha())}."
        )
    return found_L


def _check_lengths(protein: Labelled, length: int, where: str) -> None:
    parts = {"labels": protein.label} if np.ndim(protein.label) else {}
    parts |= {f"entries of the scope {name}": part for name, part in protein.scopes.items()}
    for what, values in parts.items():
        if len(values) != length:
            raise UserError(
                f"{where}, {protein.name}: {len(values)} {what}, and {length} residues in the sequence."
            )
