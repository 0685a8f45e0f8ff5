"""SMILES as atoms, bonds, branches and ring closures."""

# L = tokens of all strings

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from itertools import islice
from typing import Any

import numpy as np

from lit_seqlm.data.token_table import TokenTable
from lit_seqlm.errors import UserError
from lit_seqlm.tokenizer import smiles_vocabulary
from lit_seqlm.tokenizer.smiles_cut import CHUNK, Cut, find
from lit_seqlm.tokenizer.smiles_vocabulary import BOS, EOS, MASK, PAD, SPECIALS, UNKNOWN


class SmilesTokenizer:
    """The regular expression of MoLFormer, with a check that nothing was lost.

    ``C[C@@H](Br)O`` is ``C [C@@H] ( Br ) O``: a bracket is one token, and so are ``Br``, ``Cl`` and
    ``%12`` (Schwaller et al., ACS Central Science 2019; `training/pubchem_encoder.py` of the
    MoLFormer repository). `findall` skips what it does not know, such as white space or ``%(100)``.
    A string whose tokens do not join to it again is *lossy* and is never encoded.

    Each molecule becomes ``<bos>``, its tokens, ``<eos>``. A length in tokens counts both, except
    where a limit says otherwise.

    Args:
        vocabulary: a file with one token a line, whose order is the ids (MoLFormer's
            ``bert_vocab.txt``); null builds one from the data (`fit`).
        unknown: what becomes of a token outside the vocabulary: ``error``, ``unk``, or ``pad`` (as
            the published fine-tuning does).
        isomeric: whether the strings keep stereo marks. The tokenizer changes no string; this says
            how they have to be made, and is part of its state.
        min_count: rarer tokens do not enter a vocabulary that is built.
    """

    num_ends = 2  # tokens of a molecule that are none of its own

    def __init__(self, vocabulary: str | None, unknown: str, isomeric: bool, min_count: int):
        if unknown not in ("error", "unk", "pad"):
            raise UserError(f"tokenizer.unknown={unknown}: choose error, unk or pad")
        self.unknown, self.isomeric, self.min_count = unknown, isomeric, min_count
        self.path = vocabulary
        self.num_unknown = 0  # tokens of the last strings encoded that are not in the vocabulary
        self._vocabulary: list[str] = []
        self._index: dict[str, int] = {}

    def __len__(self) -> int:
        return len(self.vocabulary)

    @property
    def vocabulary(self) -> list[str]:
        """Tokens in the order of their ids; a file is read when first asked for.

        A checkpoint brings its own, so the file of a run need not be there to use it.
        """
        if not self._vocabulary and self.path is not None:
            self._set(smiles_vocabulary.read_vocabulary(self.path))
        return self._vocabulary

    @property
    def index(self) -> dict[str, int]:
        return self._index if self.vocabulary else {}

    @property
    def bos_id(self) -> int:
        return self.index[BOS]

    @property
    def eos_id(self) -> int:
        return self.index[EOS]

    @property
    def pad_id(self) -> int:
        return self.index[PAD]

    @property
    def mask_id(self) -> int:
        return self.index[MASK]

    @property
    def unknown_id(self) -> int:
        """What a token outside the vocabulary becomes; ``<unk>`` itself under ``unknown=error``."""
        return self.index[PAD] if self.unknown == "pad" else self.index.get(UNKNOWN, -1)

    @property
    def special_ids(self) -> list[int]:
        return sorted(self.index[token] for token in SPECIALS if token in self.index)

    @property
    def official(self) -> bool:
        """Whether the vocabulary is MoLFormer's own, in its order."""
        return smiles_vocabulary.is_official(self.vocabulary)

    def fit(self, counts: Mapping[str, int], always: Iterable[str] = ()) -> None:
        """Build the vocabulary from token counts, as `count` gives them.

        Args:
            always: tokens to keep however rare they are.
        """
        self._set(smiles_vocabulary.build_vocabulary(counts, self.min_count, always))

    def count(self, smiles: Iterable[str]) -> Counter[str]:
        """How often each token occurs."""
        counts: Counter[str] = Counter()
        rows = iter(smiles)
        while chunk := list(islice(rows, CHUNK)):
            counts.update(Cut(chunk, {}).counts())
        return counts

    def split(self, smiles: str) -> list[str]:
        """The tokens of one string, without ``<bos>`` and ``<eos>``."""
        return find(smiles)

    def problems(self, smiles: Sequence[str]) -> list[str | None]:
        """Why `encode` would refuse each string: ``lossy: ...``, ``unknown_tokens: ...``, or None.

        Unknown tokens are a problem under ``unknown=error`` only.
        """
        found: list[str | None] = []
        for start in range(0, len(smiles), CHUNK):
            found += Cut(smiles[start : start + CHUNK], self.index).problems(self.unknown)
        return found

    def encode(self, smiles: Sequence[str]) -> TokenTable:
        """Ids of all strings, ``<bos>`` and ``<eos>`` around each.

        Raises:
            UserError: at the first string that is lossy or, under ``unknown=error``, has a token
            outside the vocabulary.
        """
        if not self.vocabulary:
            raise UserError(
                "the SMILES tokenizer has no vocabulary yet. Give tokenizer.vocabulary=FILE, or "
                "let the data build one."
            )
        if isinstance(smiles, str):
            smiles = [smiles]
        self._check_unknown()
        self.num_unknown = 0
        parts, lengths = [], []
        for start in range(0, len(smiles), CHUNK):
            cut = Cut(smiles[start : start + CHUNK], self.index)
            if (bad := cut.first_bad(self.unknown)) is not None:
                raise self._refusal(smiles[start + bad], start + bad)
            self.num_unknown += cut.num_unknown
            parts.append(cut.ids(self.bos_id, self.eos_id, self.unknown_id))
            lengths.append(cut.num_tokens_N + 2)
        ids_L = np.concatenate(parts) if parts else np.empty(0, np.uint16)
        offsets = np.concatenate([np.zeros(1, np.int64), *lengths]).cumsum()
        return TokenTable(ids_L, offsets)

    def decode(self, ids: Iterable[int]) -> str:
        """The string again; of the special tokens, ``<mask>`` and ``<unk>`` are shown."""
        silent = {self.bos_id, self.eos_id, self.pad_id}
        return "".join(self.vocabulary[i] for i in ids if int(i) not in silent)

    def state_dict(self) -> dict[str, Any]:
        return {"vocabulary": list(self.vocabulary), "isomeric": self.isomeric}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self._set(state["vocabulary"])
        self.isomeric = bool(state["isomeric"])

    def _set(self, vocabulary: list[str]) -> None:
        self._vocabulary = list(vocabulary)
        self._index = {token: i for i, token in enumerate(self._vocabulary)}

    def _check_unknown(self) -> None:
        if self.unknown == "unk" and UNKNOWN not in self.index:
            raise UserError(
                f"tokenizer.unknown=unk: the vocabulary has no {UNKNOWN}. Choose error or pad."
            )

    def _refusal(self, smiles: str, row: int) -> UserError:
        reason = self.problems([smiles])[0]
        shown = smiles if len(smiles) <= 80 else smiles[:77] + "..."
        hint = (
            " Choose tokenizer.unknown=unk to encode it all the same."
            if reason and reason.startswith("unknown")
            else ""
        )
        return UserError(f"molecule {row + 1}, {shown!r}: {reason}.{hint}")
