"""Which rows of a labelled split are used: what all labelled data decide alike."""

from collections.abc import Callable, Sequence

import numpy as np

from lit_seqlm.errors import UserError


def one_of(key: str, value: str, words: tuple[str, ...]) -> None:
    """Raise UserError where the value of an option of the data is none of its words."""
    if value not in words:
        raise UserError(f"data.{key}={value}: choose {', '.join(words[:-1])} or {words[-1]}.")


def drawn(num_rows: int, num_train: int, seed: int) -> np.ndarray:
    """Places of so many rows, rising; a smaller draw is within a larger one.

    Raises:
        UserError: there are not so many.
    """
    if num_train > num_rows:
        raise UserError(f"data.num_train={num_train}: the training split has {num_rows} rows.")
    return np.sort(np.random.default_rng([seed, 1]).permutation(num_rows)[:num_train])


def too_long(
    lengths: Sequence[int],
    max_len: int,
    over_long: str,
    unit: str,
    named: Callable[[int], str],
) -> dict[int, str]:
    """By place, why rows longer than `max_len` are left out; for ``truncate`` and the like none is.

    Args:
        unit: of a length: ``tokens``.
        named: begins the message about a place.

    Raises:
        UserError: ``over_long=error``, and there is one.
    """
    reasons = {
        place: f"too_long: {length} {unit}"
        for place, length in enumerate(lengths)
        if length > max_len
    }
    if reasons and over_long == "error":
        place, reason = next(iter(reasons.items()))
        raise UserError(
            f"{named(place)}: {reason}, of at most data.max_len={max_len}. Raise it, or say "
            "data.over_long=skip or truncate."
        )
    return reasons if over_long == "skip" else {}
