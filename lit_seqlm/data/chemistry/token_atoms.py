"""Which tokens of a SMILES are atoms, and which atom each is."""

# A = atoms, L = layers, N = molecules, H = heads, T = tokens

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from rdkit import Chem, rdBase

from lit_seqlm.data.bucketing import cut_by_budget
from lit_seqlm.errors import UserError

LETTERS = frozenset(("Br", "Cl", *"BCNOSPFIbcnosp*"))
TOKEN_BUDGET = 4096  # of a batch whose maps are held at once


def is_atom(token: str) -> bool:
    """A bracket, or an element without one; bonds, branches, ring closures and ``<bos>`` are none."""
    return token in LETTERS or token.startswith("[")


def atom_places(tokens: Sequence[str], smiles: str) -> np.ndarray:
    """The token of every atom of `parse(smiles)`, int64 (A,), in RDKit's order of atoms.

    RDKit numbers atoms as they are written and then drops hydrogens that are atoms of their own
    (``[H]O[H]`` keeps its oxygen alone), so their tokens stand for no atom.

    Args:
        tokens: of this string; special ones before and behind may be among them.

    Raises:
        UserError: for a string that is no molecule, or that these tokens do not spell.
    """
    options = Chem.SmilesParserParams()
    options.removeHs = False  # type: ignore[assignment]
    with rdBase.BlockLogs():
        written = Chem.MolFromSmiles(smiles, options)
    if written is None:
        raise UserError(f"{smiles!r} is no molecule: its tokens stand for no atoms.")
    places = [place for place, token in enumerate(tokens) if is_atom(token)]
    if len(places) != written.GetNumAtoms():
        raise UserError(
            f"{smiles!r} has {written.GetNumAtoms()} atoms and its tokens {len(places)}: they were "
            "cut from another string, or cut short."
        )
    for atom, place in zip(written.GetAtoms(), places, strict=True):
        atom.SetIntProp("place", place)
    with rdBase.BlockLogs():
        kept = Chem.RemoveHs(written)
    return np.array([atom.GetIntProp("place") for atom in kept.GetAtoms()], dtype=np.int64)


@torch.inference_mode()
def atom_attention(
    trunk: Any, tokenizer: Any, smiles: Sequence[str]
) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
    """Of every molecule, shortest first: its row, its attention maps (L, H, T, T), and its atoms' tokens (A,).

    Args:
        trunk: of an encoder on SMILES.
        tokenizer: the one that it was trained with.
        smiles: as the tokenizer wants them.

    Raises:
        UserError: for a string that is no molecule, or that the tokenizer refuses.
    """
    table = tokenizer.encode(smiles)
    order = np.argsort(table.lengths, kind="stable")
    for rows in cut_by_budget(order, table.lengths[order], TOKEN_BUDGET, 1):
        tokens_NT, valid_NT = table.pad(rows, tokenizer.pad_id)
        maps_LNHTT = trunk.attention_maps(tokens_NT, valid_NT).float().numpy()
        for place, row in enumerate(rows.tolist()):
            tokens = ["", *tokenizer.split(smiles[row]), ""]  # begin and end are no atoms
            maps_LHTT = maps_LNHTT[:, place, :, : len(tokens), : len(tokens)]
            yield row, maps_LHTT, atom_places(tokens, smiles[row])
