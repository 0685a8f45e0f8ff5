"""Words and punctuation of raw text, found by a regular expression."""

import re

from lit_seqlm.errors import UserError
from lit_seqlm.tokenizer.word import EOS, WordTokenizer


class RawWordTokenizer(WordTokenizer):
    """Raw text as words, numbers and single signs: ``He said, "No."`` is seven tokens.

    What is lost is white space, case where `lowercase` is set, and rare words; no sign is dropped,
    so punctuation counts in a perplexity as words do. Text that is tokenised already belongs to
    `WordTokenizer`: here ``<unk>`` would be three tokens.

    Args:
        pattern: everything that it matches is a token, what lies between is not.
        lowercase, max_size, min_count, vocabulary: as in `WordTokenizer`.
    """

    def __init__(
        self,
        pattern: str,
        lowercase: bool,
        max_size: int | None,
        min_count: int,
        vocabulary: list[str] | None = None,
    ):
        super().__init__(lowercase, max_size, min_count, vocabulary)
        try:
            self._find = re.compile(pattern).findall
        except re.error as error:
            raise UserError(
                f"data.tokenizer.pattern={pattern}: not a regular expression ({error})."
            ) from None
        if re.compile(pattern).groups:
            raise UserError(
                f"data.tokenizer.pattern={pattern}: write groups as (?:...), the whole match is "
                "the token."
            )

    def split(self, line: str) -> list[str]:
        return [*self._find(line.lower() if self.lowercase else line), EOS]
