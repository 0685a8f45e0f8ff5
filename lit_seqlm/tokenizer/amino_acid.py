"""Amino acids, one token each."""

# L = tokens of all sequences

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from lit_seqlm.data.token_table import TokenTable
from lit_seqlm.errors import UserError

PAD, MASK, CLS, SEP, UNKNOWN = "<pad>", "<mask>", "<cls>", "<sep>", "<unk>"
SPECIALS = (PAD, MASK, CLS, SEP, UNKNOWN)
RESIDUES = "ABCDEFGHIKLMNOPQRSTUVWXYZ"  # all letters but J
STANDARD = "ACDEFGHIKLMNPQRSTVWY"
TERMINALS = ("<nterm>", "<cterm>")
VOCABULARY = [*SPECIALS, *RESIDUES, *TERMINALS]
FIRST_RESIDUE = len(SPECIALS)
ENDS = {"cls": (CLS,), "cls_sep": (CLS, SEP)}
AMBIGUOUS = ("keep", "to_x", "drop")

_ID_OF_BYTE = np.zeros(256, np.uint16)  # 0 where a byte is no residue
_ID_OF_BYTE[np.frombuffer(RESIDUES.encode(), np.uint8)] = np.arange(
    FIRST_RESIDUE, FIRST_RESIDUE + len(RESIDUES)
)


class AminoAcidTokenizer:
    """TAPE's 30 ids, then the two ends of a chain; tags of a conditional model follow from 32 on.

    ``<pad> <mask> <cls> <sep> <unk>`` are 0 to 4, the 25 letters without J are 5 to 29 (TAPE's ``iupac``
    vocabulary). ProteinLM's ids are these plus one for letters. A sequence is upper case and has letters only:
    whatever else a file holds is cleaned away or refused where it is read (`lit_seqlm.data.proteins.cleaning`).

    Args:
        ends: ``cls`` begins each sequence with ``<cls>``, as ProteinLM is pretrained; ``cls_sep`` also ends it
            with ``<sep>``, as TAPE.
        ambiguous: what becomes of B, Z, U and O: ``keep`` them as letters of their own, as the papers do; ``to_x``;
            or ``drop`` the sequences that have one, or X. Like `gapped`, it says how sequences have to be made.
        gapped: whether ``-`` and ``.`` may stand in a file, and are taken out.
    """

    unknown_id: int | None = None  # every residue is known
    num_unknown = 0
    learnt = ("ends",)  # what weights have seen
    policies = ("ambiguous", "gapped")  # which sequences are read, whatever reads them

    def __init__(self, ends: str, ambiguous: str, gapped: bool):
        if ends not in ENDS:
            raise UserError(f"tokenizer.ends={ends}: choose {' or '.join(ENDS)}.")
        if ambiguous not in AMBIGUOUS:
            raise UserError(f"tokenizer.ambiguous={ambiguous}: choose {', '.join(AMBIGUOUS)}.")
        self.ends, self.ambiguous, self.gapped = ends, ambiguous, gapped
        self.vocabulary = list(VOCABULARY)
        self.index = {token: i for i, token in enumerate(self.vocabulary)}

    def __len__(self) -> int:
        return len(self.vocabulary)

    @property
    def num_ends(self) -> int:
        """Tokens of a sequence that are no residues."""
        return len(ENDS[self.ends])

    @property
    def pad_id(self) -> int:
        return self.index[PAD]

    @property
    def mask_id(self) -> int:
        return self.index[MASK]

    @property
    def special_ids(self) -> list[int]:
        """All that is no residue."""
        return [i for i, token in enumerate(self.vocabulary) if token not in RESIDUES]

    @property
    def standard_ids(self) -> list[int]:
        """The 20 residues that the genetic code has everywhere."""
        return [self.index[letter] for letter in STANDARD]

    def fit(self, counts: Mapping[str, int], always: Iterable[str] = ()) -> None:
        """Nothing to build: the table is fixed."""

    def count(self, sequences: Iterable[str]) -> Counter[str]:
        """How often each residue occurs."""
        counts: Counter[str] = Counter()
        for sequence in sequences:
            counts.update(sequence)
        return counts

    def split(self, sequence: str) -> list[str]:
        """Its residues."""
        return list(sequence)

    def problems(self, sequences: Sequence[str]) -> list[str | None]:
        """Why `encode` would refuse each sequence: ``empty``, ``illegal: ...``, or None."""
        return [_problem(sequence) for sequence in sequences]

    def encode(self, sequences: Sequence[str]) -> TokenTable:
        """Ids of all sequences, with their ends.

        Raises:
            UserError: at the first that has a character which is no residue; named from 1.
        """
        if isinstance(sequences, str):
            sequences = [sequences]
        lengths_N = np.array([len(sequence) for sequence in sequences], np.int64)
        joined = "".join(sequences).encode("utf-8", "replace")
        ids = _ID_OF_BYTE[np.frombuffer(joined, np.uint8)]
        if len(ids) != lengths_N.sum() or not ids.all() or not lengths_N.all():
            place, why = next((i, p) for i, s in enumerate(sequences) if (p := _problem(s)))
            raise UserError(f"sequence {place + 1}, {sequences[place][:60]!r}: {why}.")
        offsets = np.concatenate([np.zeros(1, np.int64), lengths_N + self.num_ends]).cumsum()
        whole_L = np.full(offsets[-1], self.index[CLS], np.uint16)
        starts_N = np.repeat(offsets[:-1] + 1 - np.cumsum(lengths_N) + lengths_N, lengths_N)
        whole_L[starts_N + np.arange(len(ids))] = ids
        if self.ends == "cls_sep":
            whole_L[offsets[1:] - 1] = self.index[SEP]
        return TokenTable(whole_L, offsets)

    def decode(self, ids: Iterable[int]) -> str:
        """The sequence again, without its ends and padding; a mask is shown as ``?``."""
        letters = (self.vocabulary[int(i)] for i in ids)
        return "".join("?" if t == MASK else t for t in letters if t in RESIDUES or t == MASK)

    def state_dict(self) -> dict[str, Any]:
        return {
            "vocabulary": list(self.vocabulary),
            "ends": self.ends,
            "ambiguous": self.ambiguous,
            "gapped": self.gapped,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.vocabulary = list(state["vocabulary"])
        self.index = {token: i for i, token in enumerate(self.vocabulary)}
        self.ends, self.ambiguous = state["ends"], state["ambiguous"]
        self.gapped = bool(state["gapped"])


def _problem(sequence: str) -> str | None:
    if not sequence:
        return "empty"
    bad = next((i for i, letter in enumerate(sequence) if letter not in RESIDUES), None)
    return None if bad is None else f"illegal: {sequence[bad]!r} at position {bad + 1}"
