"""How well letters are predicted from their neighbours alone: the floor that a sequence model has to pass."""

# N = scored letters, L = letters of the alphabet, S = L letters and the end, C = contexts

from collections.abc import Sequence

import numpy as np

from lit_seqlm.errors import UserError
from lit_seqlm.metrics.bootstrap import interval
from lit_seqlm.metrics.letters import Alphabet, chunks
from lit_seqlm.metrics.perplexity import exp

MAX_ORDER = 5  # a table holds every context: (L + 2)^4 of them already
CHUNK = 2**17  # letters scored at once
COUNTED = 2**22  # letters counted at once
SAMPLES = 1000  # of the bootstrap

DEFINITIONS = {
    "ppl": "exp of the mean nll of letters, renormalised over all letters of the alphabet; ends are not counted",
    "ppl_beside_end": "of letters, not renormalised: at each place the end has its share, as in a causal model",
    "ppl_with_end": "of letters and ends, each end predicted once, among all letters and the end",
    "ppl_standard": "renormalised over the standard letters; other targets are skipped",
    "accuracy": "share of letters that are the likeliest one; of k equally likely ones each counts 1/k",
    "expected_accuracy": "mean probability of the true letter",
}


class WittenBell:
    """Interpolated n-grams of orders 0 to `order` (Witten and Bell 1991).

    With c(h, a) how often a followed the context h, c(h) its sum over a, and T(h) how many different a did:
    p(a | h) = (c(h, a) + T(h) p(a | h')) / (c(h) + T(h)), where h' lacks the oldest letter of h, down to the
    uniform distribution over letters and end. What stands before a sequence is a symbol of its own.

    Attributes:
        tables: by order the probabilities (C, S). A context is a number in base L + 2, its last digit the
            nearest letter, so h' is the remainder of a division.
    """

    def __init__(self, alphabet: Alphabet, order: int, sequences: Sequence[str]):
        if not 1 <= order <= MAX_ORDER:
            raise UserError(f"order {order} of an n-gram: 1 to {MAX_ORDER}.")
        if not len(sequences):
            raise UserError("n-grams of no sequences: give at least one.")
        self.alphabet, self.order = alphabet, order
        num_symbols = alphabet.base - 1
        counts = self._counted(sequences)
        levels = [counts]  # from the longest context to none
        for _ in range(order - 1):
            counts = counts.reshape(alphabet.base, -1, num_symbols).sum(0)
            levels.append(counts)
        self.tables = [np.full((1, num_symbols), 1 / num_symbols)]
        while levels:
            self.tables.append(_interpolated(levels.pop(), self.tables[-1]))

    def _counted(self, sequences: Sequence[str]) -> np.ndarray:
        """How often each symbol followed each context of order - 1 symbols, (C, S)."""
        num_symbols = self.alphabet.base - 1
        num_cells = self.alphabet.base ** (self.order - 1) * num_symbols
        counts = np.zeros(num_cells, np.int64)
        for part in chunks(sequences, COUNTED):
            contexts, symbols = self.contexts(part, self.order)
            counts += np.bincount(contexts * num_symbols + symbols, minlength=num_cells)
        return counts.reshape(-1, num_symbols)

    def contexts(self, sequences: Sequence[str], order: int) -> tuple[np.ndarray, np.ndarray]:
        """The context number and the symbol of each letter and each end, in their order."""
        whole, places = self.alphabet.framed(sequences, max(order - 1, 0))
        contexts = np.zeros(len(places), np.int64)
        for back in range(1, order):
            contexts += whole[places - back] * self.alphabet.base ** (back - 1)
        return contexts, whole[places]

    def rows(self, sequences: Sequence[str], order: int) -> tuple[np.ndarray, np.ndarray]:
        """Probabilities (N, S) of what follows, and what did."""
        contexts, symbols = self.contexts(sequences, order)
        return self.tables[order][contexts], symbols


class TwoSided:
    """A letter from `reach` neighbours on each side, as a masked model sees them (our choice, no paper's).

    If left and right were independent given the letter, p(a | left, right) would be proportional to
    p(a | left) p(a | right) / p(a). The factors are n-grams of both directions; normalised over the letters.
    """

    def __init__(self, forward: WittenBell, backward: WittenBell):
        assert (forward.order, forward.alphabet) == (backward.order, backward.alphabet)
        self.forward, self.backward = forward, backward
        self.alphabet = forward.alphabet

    @classmethod
    def of(cls, alphabet: Alphabet, reach: int, sequences: Sequence[str]) -> "TwoSided":
        """Both directions counted on the same sequences."""
        turned = [sequence[::-1] for sequence in sequences]
        order = reach + 1
        return cls(WittenBell(alphabet, order, sequences), WittenBell(alphabet, order, turned))

    def rows(self, sequences: Sequence[str], order: int) -> tuple[np.ndarray, np.ndarray]:
        """Probabilities (N, L) of each letter given ``order - 1`` neighbours on each side, and the letters."""
        num_letters = len(self.alphabet.letters)
        left_NS, symbols = self.forward.rows(sequences, order)
        inner = symbols < num_letters
        # Reversed as a whole, the list of turned sequences has its letters where they began.
        turned = [sequence[::-1] for sequence in sequences[::-1]]
        right_NS, turned_symbols = self.backward.rows(turned, order)
        right_NL = right_NS[turned_symbols < num_letters, :num_letters][::-1]
        alone_L = self.forward.tables[1][0, :num_letters]
        joint_NL = left_NS[inner, :num_letters] * right_NL / alone_L
        return joint_NL / joint_NL.sum(1, keepdims=True), symbols[inner]


def score(
    model: WittenBell | TwoSided, order: int, sequences: Sequence[str], seed: int
) -> dict[str, float]:
    """Numbers of `DEFINITIONS` on sequences; a 95 % interval of ``ppl`` by a bootstrap over sequences.

    Args:
        order: up to that of the model; 0 is the uniform distribution.
    """
    if not any(sequences):
        raise UserError("n-grams scored on no letter: give at least one sequence that has some.")
    parts = [_scored(model, order, part) for part in chunks(sequences, CHUNK)]
    nll_N, standard_N, hits_N, beside_N, end_nll = map(np.concatenate, zip(*parts, strict=True))
    lengths = np.array([len(sequence) for sequence in sequences])
    found = interval(nll_N, np.repeat(np.arange(len(lengths)), lengths), SAMPLES, seed)
    numbers = {"ppl": found.mean, "ppl_low": found.low, "ppl_high": found.high}
    if len(end_nll):
        numbers["ppl_beside_end"] = exp(float(beside_N.mean()))
        numbers["ppl_with_end"] = exp(float(np.concatenate([beside_N, end_nll]).mean()))
    kept = ~np.isnan(standard_N)
    if kept.any():
        numbers["ppl_standard"] = exp(float(standard_N[kept].mean()))
    return numbers | {
        "accuracy": float(hits_N.mean()),
        "expected_accuracy": float(np.exp(-nll_N).mean()),
    }


def _scored(
    model: WittenBell | TwoSided, order: int, sequences: Sequence[str]
) -> tuple[np.ndarray, ...]:
    """Of letters: nll, nll among the standard ones (NaN elsewhere), hits, nll beside the end; nll of ends, if any."""
    letters = model.alphabet.letters
    rows, symbols = model.rows(sequences, order)
    all_nll, inner = -np.log(_picked(rows, symbols)), symbols < len(letters)
    rows_NL, targets_N = rows[inner, : len(letters)], symbols[inner]
    true_N = _picked(rows_NL, targets_N)
    best_N = rows_NL.max(1)
    hits_N = (true_N == best_N) / (rows_NL == best_N[:, None]).sum(1)
    is_standard_L = np.array([letter in model.alphabet.standard for letter in letters])
    standard_N = np.log(rows_NL[:, is_standard_L].sum(1)) - np.log(true_N)
    standard_N[~is_standard_L[targets_N]] = np.nan
    nll_N = np.log(rows_NL.sum(1)) - np.log(true_N)
    return nll_N, standard_N, hits_N, all_nll[inner], all_nll[~inner]


def _interpolated(counts_CS: np.ndarray, lower: np.ndarray) -> np.ndarray:
    """Probabilities of one order from those of the order below, which stand again for each oldest letter."""
    counts = counts_CS.reshape(-1, *lower.shape)
    kinds = (counts > 0).sum(-1, keepdims=True)
    seen = counts.sum(-1, keepdims=True)
    table = kinds * lower
    table += counts
    table /= np.maximum(seen + kinds, 1)
    np.copyto(table, lower, where=seen == 0)
    return table.reshape(counts_CS.shape)


def _picked(rows: np.ndarray, symbols: np.ndarray) -> np.ndarray:
    return np.take_along_axis(rows, symbols[:, None], 1)[:, 0]
