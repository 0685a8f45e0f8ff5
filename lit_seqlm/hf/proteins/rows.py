"""Rows of an embedding mean tokens by their order alone: theirs in the order of ours."""

# V = rows of an embedding, D = hidden size

from collections.abc import Mapping

import torch
from torch import Tensor

from lit_seqlm.errors import UserError
from lit_seqlm.hf.proteins.keys import MEGATRON
from lit_seqlm.model.encoder import INIT_STD
from lit_seqlm.tokenizer.amino_acid import FIRST_RESIDUE, RESIDUES, VOCABULARY

TAPE_ROWS = FIRST_RESIDUE + len(RESIDUES)  # its 30 ids are ours
UNUSED = FIRST_RESIDUE  # ProteinLM's [unused1], before the letters
PLM_TOKENS = TAPE_ROWS + 1
DIVISIBLE_BY = 128  # Megatron's padding of a vocabulary, if it was not told otherwise
NEVER = -10_000.0  # as a bias: a probability of exactly 0; less than that is infinite in float16
BY_TOKEN = ("trunk.embedding.weight", "output_embedding.bias")


def order_of(layout: str, num_rows: int) -> list[int]:
    """The row of theirs that each of ours is.

    ProteinLM's letters are one after ours; [unused1] goes where <nterm> is, a token that no protein has, and
    whatever follows stays where it is.
    """
    if layout != MEGATRON:
        return list(range(num_rows))
    letters = range(UNUSED + 1, PLM_TOKENS)
    return [*range(UNUSED), *letters, UNUSED, *range(PLM_TOKENS, num_rows)]


def check_rows(layout: str, num_rows: int, divisible_by: int, num_ranks: int, where: str) -> None:
    """Raise UserError for an embedding of another vocabulary."""
    if layout != MEGATRON:
        if num_rows != TAPE_ROWS:
            raise UserError(
                f"{where}: its embedding has {num_rows:,} rows; TAPE's iupac vocabulary has {TAPE_ROWS}. Weights "
                "for other tokens cannot be imported."
            )
        return
    # Megatron pads for all ranks, and again when its tools merge them
    padded = {-(-PLM_TOKENS // m) * m for m in (divisible_by, divisible_by * num_ranks)}
    if num_rows not in padded:
        raise UserError(
            f"{where}: its embedding has {num_rows:,} rows; ProteinLM's {PLM_TOKENS} tokens are padded to "
            f"{' or '.join(map(str, sorted(padded)))}. Weights for other tokens cannot be imported."
        )


def rows_of_ours(weights: Mapping[str, Tensor], layout: str, seed: int) -> dict[str, Tensor]:
    """All weights, embedding and output bias in our order; rows that theirs lacks are drawn, and never predicted."""
    order = order_of(layout, len(weights["trunk.embedding.weight"]))
    num_more = max(0, len(VOCABULARY) - len(order))
    drawn = torch.Generator().manual_seed(seed)
    size = weights["trunk.embedding.weight"].shape[1:]
    more = {
        "trunk.embedding.weight": INIT_STD * torch.randn(num_more, *size, generator=drawn),
        "output_embedding.bias": torch.full((num_more,), NEVER),
    }
    ours = dict(weights)
    for name in BY_TOKEN:
        if name in weights:
            ours[name] = torch.cat([weights[name][order], more[name]])
    return ours


def rows_of_theirs(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The rows that TAPE has: without the ends of a chain, and without padding."""
    return {
        name: tensor[:TAPE_ROWS] if name in BY_TOKEN else tensor for name, tensor in weights.items()
    }
