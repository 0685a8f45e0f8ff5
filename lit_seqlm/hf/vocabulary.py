"""Rows of an embedding mean tokens by their order alone, so the list of tokens must be the weights' own."""

from collections.abc import Mapping
from typing import Any

from lit_seqlm.errors import UserError
from lit_seqlm.hf.settings import own_part
from lit_seqlm.tokenizer.smiles_vocabulary import (
    OFFICIAL_HEAD,
    OFFICIAL_SHA256,
    digest,
    is_official,
)

PUBLISHED_SIZE = 2_362
SPECIAL_IDS = {"<bos>": 0, "<eos>": 1, "<pad>": 2, "<mask>": 3}


def check_tokens(
    tokens: list[str], vocab_size: int, settings: Mapping[str, Any], where: str
) -> list[str]:
    """What the user should know about the list that he gave; nothing if its digest is the weights' own.

    Args:
        vocab_size: rows of the embedding.
        settings: of config.json, where this program keeps the digest of the list it exported.
        where: names the list in messages.

    Raises:
        UserError: for a list of another length, order or digest than the weights'.
    """
    if len(tokens) != vocab_size:
        raise UserError(
            f"--vocabulary {where}: {len(tokens):,} tokens, the weights have {vocab_size:,} rows. "
            "Give the list that these weights were trained with."
        )
    moved = [token for token, number in SPECIAL_IDS.items() if tokens[number] != token]
    if moved:
        raise UserError(
            f"--vocabulary {where}: {moved[0]} should be token {SPECIAL_IDS[moved[0]]}, there stands "
            f"{tokens[SPECIAL_IDS[moved[0]]]!r}. The order of the lines is the order of the weights' rows."
        )
    recorded = own_part(settings).get("vocabulary_sha256")
    if recorded == digest(tokens) or (recorded is None and is_official(tokens)):
        return []
    if recorded is None and vocab_size != PUBLISHED_SIZE:
        return [
            f"The list of tokens cannot be checked: no digest is known for {vocab_size:,} rows. With another "
            "order of its lines every embedding would be wrong."
        ]
    if recorded is None:
        for number, (token, wanted) in enumerate(zip(tokens, OFFICIAL_HEAD, strict=False)):
            if token != wanted:
                raise UserError(
                    f"--vocabulary {where}: token {number} is {token!r}, in MoLFormer's list {wanted!r}. Rows are "
                    "bound to the order of the tokens: give MoLFormer's bert_vocab.txt."
                )
    raise UserError(
        f"--vocabulary {where}: its sha256 is {digest(tokens)[:12]}..., that of the weights' list "
        f"{(recorded or OFFICIAL_SHA256)[:12]}.... Rows are bound to the order of the tokens, so no other list will "
        "do. Give MoLFormer's bert_vocab.txt (2,362 lines), or the vocabulary file beside the weights."
    )
