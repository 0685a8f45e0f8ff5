"""Canonical SMILES, atom counts and scaffolds of many molecules, made once and kept on disk."""

# N = molecules, C = covariates

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from rich.console import Console
from rich.progress import track

from lit_seqlm.data.chemistry.canonical import canonicalize, version
from lit_seqlm.data.chemistry.composition import ELEMENTS, composition
from lit_seqlm.data.chemistry.scaffold import stereo_free
from lit_seqlm.data.kept import Kept, packed, unpacked

KEPT_FROM = 2_000  # molecules from which a file is worth while: some seconds of work
STEREO_OR_ISOTOPE = re.compile(r"[@/\\]|\[\d")

Thing = TypeVar("Thing")


@dataclass
class MoleculeForms:
    """One form for each string that was written.

    Attributes:
        smiles: canonical; empty where the string is no molecule.
        reasons: why it is none; empty where it is one.
        counts_NC: atoms of each of `ELEMENTS`, float64; 0 where it is no molecule.
    """

    smiles: list[str]
    reasons: list[str]
    counts_NC: np.ndarray


def molecule_forms(
    written: Sequence[str], isomeric: bool, cache_dir: str | None, what: str
) -> MoleculeForms:
    """Canonicalise all strings, or read what an earlier call made of the very same ones.

    Args:
        cache_dir: where to keep the result, with RDKit's version in its name; null: nowhere.
        what: the label of the progress bar.
    """
    kept = _kept(cache_dir, "molecules", written, str(isomeric))
    found = kept.read()
    if found is not None:
        smiles, reasons = unpacked(found["smiles"]), unpacked(found["reasons"])
        return MoleculeForms(smiles, reasons, found["counts_NC"].astype(np.float64))
    forms = _make(written, isomeric, what)
    kept.write(
        {
            "smiles": packed(forms.smiles),
            "reasons": packed(forms.reasons),
            "counts_NC": forms.counts_NC.astype(np.int32),
        }
    )
    return forms


def each(
    smiles: Sequence[str], function: Callable[[str], str], cache_dir: str | None, what: str
) -> list[str]:
    """A string for each molecule, such as its scaffold; kept like `molecule_forms`."""
    kept = _kept(cache_dir, function.__name__, smiles, "")
    found = kept.read()
    if found is not None:
        return unpacked(found["strings"])
    strings = list(map(function, watched(smiles, f"{what}: {function.__name__}", len(smiles))))
    kept.write({"strings": packed(strings)})
    return strings


def without_stereo(smiles: str) -> str:
    """`stereo_free` of a canonical SMILES, which is the same one where there is nothing to lose."""
    return stereo_free(smiles) if STEREO_OR_ISOTOPE.search(smiles) else smiles


def watched(things: Iterable[Thing], label: str, total: int) -> Iterator[Thing]:
    """The same things, under a progress bar where there is a terminal."""
    console = Console(stderr=True)
    yield from track(
        things, label, total, console=console, transient=True, disable=not console.is_terminal
    )


def _make(written: Sequence[str], isomeric: bool, what: str) -> MoleculeForms:
    smiles, reasons = [], []
    counts_NC = np.zeros((len(written), len(ELEMENTS)))
    for row, one in enumerate(watched(written, f"{what}: canonical SMILES", len(written))):
        found = canonicalize(one, isomeric)
        smiles.append(found.smiles or "")
        reasons.append(found.reason)
        if found.smiles is not None:
            counts_NC[row] = composition(found.smiles)
    return MoleculeForms(smiles, reasons, counts_NC)


def _kept(cache_dir: str | None, kind: str, strings: Sequence[str], option: str) -> Kept:
    worth = cache_dir if len(strings) >= KEPT_FROM else None
    return Kept(worth, kind, [version(), option, *strings])
