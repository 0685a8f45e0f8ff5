"""Canonical SMILES and atom counts of many molecules, made once and kept on disk."""

# N = molecules, C = covariates

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.progress import track

from lit_seqlm.data.chemistry.canonical import canonicalize, version
from lit_seqlm.data.chemistry.composition import ELEMENTS, composition
from lit_seqlm.errors import UserError

KEPT_FROM = 2_000  # molecules from which a file is worth while: some seconds of work
SEPARATOR = "\n"  # no SMILES and no reason has one


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

    The file's name is a digest of the strings, of `isomeric` and of RDKit's version, so nothing
    stale is read; it appears whole or not at all.

    Args:
        cache_dir: where to keep the result; null: nowhere.
        what: the label of the progress bar.
    """
    if cache_dir is None or len(written) < KEPT_FROM:
        return _make(written, isomeric, what)
    place = Path(cache_dir) / f"molecules-{_key(written, isomeric)}.npz"
    if place.exists():
        return _read(place)
    forms = _make(written, isomeric, what)
    _write(place, forms)
    return forms


def _make(written: Sequence[str], isomeric: bool, what: str) -> MoleculeForms:
    smiles, reasons = [], []
    counts_NC = np.zeros((len(written), len(ELEMENTS)))
    console = Console(stderr=True)
    rows = track(
        enumerate(written),
        f"{what}: canonical SMILES",
        total=len(written),
        console=console,
        transient=True,
        disable=not console.is_terminal,
    )
    for row, one in rows:
        found = canonicalize(one, isomeric)
        smiles.append(found.smiles or "")
        reasons.append(found.reason)
        if found.smiles is not None:
            counts_NC[row] = composition(found.smiles)
    return MoleculeForms(smiles, reasons, counts_NC)


def _key(written: Sequence[str], isomeric: bool) -> str:
    digest = hashlib.sha256(f"{version()} {isomeric}\n".encode())
    for one in written:
        digest.update(one.encode() + b"\n")
    return digest.hexdigest()[:16]


def _read(place: Path) -> MoleculeForms:
    with np.load(place) as kept:
        smiles, reasons = (
            kept[name].tobytes().decode().split(SEPARATOR) for name in ("smiles", "reasons")
        )
        return MoleculeForms(smiles, reasons, kept["counts_NC"].astype(np.float64))


def _write(place: Path, forms: MoleculeForms) -> None:
    partial = place.with_name(f".{place.stem}.{os.getpid()}.npz")
    smiles, reasons = (
        np.frombuffer(SEPARATOR.join(texts).encode(), np.uint8)
        for texts in (forms.smiles, forms.reasons)
    )
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        counts_NC = forms.counts_NC.astype(np.int32)
        np.savez_compressed(partial, counts_NC=counts_NC, smiles=smiles, reasons=reasons)
        partial.replace(place)
    except OSError as error:
        raise UserError(
            f"{place.parent} cannot be written ({error.strerror}). Choose another paths.cache_dir."
        ) from None
    finally:
        partial.unlink(missing_ok=True)
