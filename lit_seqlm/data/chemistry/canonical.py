"""One SMILES for one molecule, or the reason why there is none."""

import contextlib
import io
import re
import threading
from dataclasses import dataclass

from rdkit import Chem, rdBase

EMPTY, INVALID, TOO_LONG = "empty", "invalid_smiles", "too_long"
MAX_SIGNS = 5_000  # RDKit takes minutes for some longer strings, and ends the process for 20,000
_log_lock = threading.Lock()


@dataclass(frozen=True)
class Canonical:
    """A canonical SMILES, or why there is none.

    Attributes:
        smiles: None where the string is no molecule.
        reason: ``empty``, ``too_long: `` and its size, or ``invalid_smiles: `` and what RDKit says;
            empty where there is a SMILES.
    """

    smiles: str | None
    reason: str = ""


def canonicalize(smiles: str | None, isomeric: bool) -> Canonical:
    """RDKit's canonical SMILES, without explicit hydrogen atoms; it raises nothing and logs nothing.

    ``MolToSmiles(MolFromSmiles(smiles), isomericSmiles=isomeric)``, as MoLFormer's
    `finetune/utils.py` does. Canonical strings differ between RDKit's versions (`version`).

    Args:
        smiles: one molecule; white space around it is dropped, inside it is an error.
        isomeric: keep R/S, E/Z and isotopes. Without, molecules that differ in them become one.
    """
    found, reason = parse(smiles)
    if found is None:
        return Canonical(None, reason)
    try:
        canonical = Chem.MolToSmiles(found, canonical=True, isomericSmiles=isomeric)
    except (RuntimeError, ValueError) as error:
        return Canonical(None, f"{INVALID}: {_first_line(str(error))}")
    if canonical != smiles and not isomeric and "[H]" in canonical:
        # Kept for an isotope or a double bond's direction that is gone now: a second reading drops it.
        return canonicalize(canonical, isomeric)
    return Canonical(canonical)


def parse(smiles: str | None) -> tuple[Chem.Mol | None, str]:
    """A molecule and no reason, or None and the reason; it raises nothing and logs nothing."""
    smiles = smiles.strip() if smiles else ""
    if not smiles:
        return None, EMPTY
    if len(smiles) > MAX_SIGNS:
        return None, f"{TOO_LONG}: {len(smiles):,} signs, of at most {MAX_SIGNS:,}"
    if len(smiles.split(None, 1)) > 1:  # RDKit takes what follows for the molecule's name
        return None, f"{INVALID}: white space inside"
    if not (
        smiles.isascii() and smiles.isprintable()
    ):  # RDKit stops there, and takes what came before
        sign = next(sign for sign in smiles if not (sign.isascii() and sign.isprintable()))
        return None, f"{INVALID}: {sign!a} is no sign of a SMILES"
    with rdBase.BlockLogs():
        molecule = _read(smiles, sanitize=True)
    if molecule is None:
        return None, f"{INVALID}: {_complaint(smiles)}"
    if not molecule.GetNumAtoms():
        return None, EMPTY
    return molecule, ""


def version() -> str:
    """RDKit's version, to be written beside every canonical SMILES."""
    return rdBase.rdkitVersion


def _read(smiles: str, sanitize: bool) -> Chem.Mol | None:
    try:
        return Chem.MolFromSmiles(smiles, sanitize=sanitize)
    except (RuntimeError, ValueError):  # signs outside Unicode's text, a violated invariant
        return None


def _complaint(smiles: str) -> str:
    """The first thing that RDKit says about a string that it refuses."""
    with rdBase.BlockLogs():
        molecule = _read(smiles, sanitize=False)
        problems = [] if molecule is None else Chem.DetectChemistryProblems(molecule)
    if problems:
        return _first_line(problems[0].Message())
    # A fault of syntax is only ever logged.
    text = io.StringIO()
    with _log_lock, contextlib.redirect_stderr(text):
        rdBase.LogToPythonStderr()
        try:
            _read(smiles, sanitize=True)
        finally:
            rdBase.LogToCppStreams()
    return _first_line(text.getvalue()) or "RDKit cannot read it"


def _first_line(message: str) -> str:
    """Without the time, without the input, in one line."""
    line = (message.strip().splitlines() or [""])[0]
    line = re.sub(r"^\[\d\d:\d\d:\d\d\] ", "", line).removeprefix("SMILES Parse Error: ")
    return re.sub(r" (for input|while parsing): .*", "", line)
