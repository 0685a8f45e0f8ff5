"""How likely a spelling is: a character model of words, for words that no vocabulary holds."""

import math
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable

START, END = " ", ""  # before a word's first character, and in place of a character after its last
# Characters that UTF-8 writes in one byte, two, three, four; the end counts as one of one byte.
NUM_BY_BYTES = (0x80 + 1, 0x780, 0xF800, 0x100000)
TOTAL = sum(count / 256**num_bytes for num_bytes, count in enumerate(NUM_BY_BYTES, start=1))


class SpellingModel:
    """Character n-grams with interpolated Witten-Bell smoothing, over all non-empty strings.

    After a context c that was followed n_c times, by t_c different characters,

        p(x | c) = (count(c x) + t_c p(x | c without its first character)) / (n_c + t_c),

    and below the empty context stands a distribution over all characters and the end, given from
    outside. A context never seen says nothing. A spelling ends with an end symbol, so the strings
    of all lengths together have mass one; the empty string has none. (Witten and Bell 1991, method
    C; interpolated as in Chen and Goodman 1998, section 2.5.)

    Args:
        words: to learn from, each counted once.
        order: characters that one probability looks at, the predicted one among them.
        unseen: probability of a character, or of the end (an empty string), before any was seen.
    """

    def __init__(self, words: Iterable[str], order: int, unseen: Callable[[str], float]):
        self.order, self.unseen = order, unseen
        self._followers: dict[str, Counter[str]] = defaultdict(Counter)
        for word in words:
            for context, char in self._steps(word):
                for begin in range(len(context) + 1):
                    self._followers[context[begin:]][char] += 1
        self._followers = dict(self._followers)
        self._totals = {c: counts.total() for c, counts in self._followers.items()}
        self._log_nonempty = math.log1p(-self._prob(START[: order - 1], END))

    def log_prob(self, word: str) -> float:
        """Log probability of a non-empty spelling."""
        assert word, "a word has characters"
        logs = [math.log(self._prob(context, char)) for context, char in self._steps(word)]
        return math.fsum(logs) - self._log_nonempty

    def _steps(self, word: str) -> list[tuple[str, str]]:
        """(context, next character) from the first character to the end."""
        padded, reach = START + word, self.order - 1
        ends = range(1, len(padded) + 1)
        return [(padded[max(0, end - reach) : end], padded[end : end + 1]) for end in ends]

    def _prob(self, context: str, char: str) -> float:
        prob = self.unseen(char)
        for begin in range(len(context), -1, -1):
            followers = self._followers.get(context[begin:])
            if followers is None:
                break  # then no longer context was seen either
            distinct = len(followers)
            total = self._totals[context[begin:]]
            prob = (followers.get(char, 0) + distinct * prob) / (total + distinct)
        return prob


def by_bytes(char: str) -> float:
    """Probability of a character that nothing is known of: 1/256 per byte of UTF-8, normalised.

    So an unseen sign or digit costs less than a letter of another script.
    """
    num_bytes = len(char.encode("utf-8", "surrogatepass")) or 1
    return 256.0**-num_bytes / TOTAL
