"""One token per character."""

from collections.abc import Iterable

from lit_seqlm.tokenizer.word import EOS, WordTokenizer


class CharTokenizer(WordTokenizer):
    """Characters in the order (-count, character); ``<eos>`` stands for the end of a line."""

    def split(self, line: str) -> list[str]:
        return [*(line.lower() if self.lowercase else line).rstrip("\n"), EOS]

    def decode(self, ids: Iterable[int]) -> str:
        return "".join("\n" if (char := self.vocabulary[i]) == EOS else char for i in ids)
