"""What becomes of a labelled protein that is not written in residues alone."""

from dataclasses import dataclass, replace

from lit_seqlm.data.proteins.cleaning import SPACE, Cleaned, clean
from lit_seqlm.errors import UserError

STOPS = ("error", "truncate", "x", "drop")
ILLEGAL = ("error", "drop")


@dataclass(frozen=True)
class Reading:
    """How rows are read that `clean` refuses.

    Attributes:
        stop: of a ``*`` before the last place, a mutation that ends the chain: ``truncate`` reads the chain
            up to it; ``x`` reads it as X, so that all variants have one length; ``drop`` leaves the row out,
            and reports it; ``error``.
        illegal: of another sign that is no residue, and of an empty sequence: ``error``, or ``drop`` and report.

    Raises:
        UserError: for another word.
    """

    stop: str
    illegal: str

    def __post_init__(self) -> None:
        for key, value, words in (("stop", self.stop, STOPS), ("illegal", self.illegal, ILLEGAL)):
            if value not in words:
                raise UserError(f"data.source.{key}={value}: choose {', '.join(words)}.")

    def read(self, written: str, ambiguous: str, gapped: bool) -> Cleaned:
        """A sequence, or why there is none; a reason's status says whether it is an error.

        Args:
            ambiguous, gapped: as `clean` has them.
        """
        letters = written.translate(SPACE)
        place = letters.find("*", 0, len(letters) - 1)
        if place < 0 or self.stop == "error":
            found = clean(letters, ambiguous, gapped)
            hint = ". For a stop codon say data.source.stop=truncate (x, drop)" * (place >= 0)
            return replace(found, reason=found.reason + hint) if found.sequence is None else found
        if self.stop == "x":
            return clean(letters.removesuffix("*").replace("*", "X"), ambiguous, gapped)
        if self.stop == "drop" or not place:
            return Cleaned(None, "stop", f"a stop at position {place + 1}")
        return clean(letters[:place], ambiguous, gapped)

    def is_error(self, found: Cleaned) -> bool:
        """Whether a sequence that cannot be read stops the program."""
        return found.status in ("illegal", "empty") and self.illegal == "error"
