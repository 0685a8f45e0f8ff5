"""The weights under which a record is most likely.

The mean of log sum_c w_c p_c is concave in w, so there is one maximum, and a bound says how near it
is: with g_c = mean(p_c / sum_k w_k p_k), the best value is at most max_c g_c - 1 above the present
one (log x <= x - 1, and Jensen). Expectation-maximisation, w_c <- w_c g_c, finds the same maximum,
but slowly where memories resemble each other, and never sets a useless one to 0.
"""

# C = components (the static model first), N = tokens

import logging

import numpy as np

from lit_seqlm.cache.mixing.components import ratios

logger = logging.getLogger(__name__)

SMALLEST = 1e-300  # below, a probability ratio is taken for 0
NEWTON_STEPS, NEWTON_TOLERANCE = 100, 1e-15


def best_step(base_N: np.ndarray, slope_N: np.ndarray, high: float) -> float:
    """The t in [0, high] with the largest mean of log(base + t slope): Newton, kept in a bracket."""

    def derivatives(step: float) -> tuple[float, float]:
        ratio_N = slope_N / np.maximum(base_N + step * slope_N, SMALLEST)
        with np.errstate(over="ignore"):
            return float(ratio_N.mean()), -float(np.square(ratio_N).mean())

    low, width = 0.0, high
    if derivatives(low)[0] <= 0:
        return low
    if derivatives(high)[0] >= 0:
        return high
    step = high / 2
    for _ in range(NEWTON_STEPS):
        first, second = derivatives(step)
        low, high = (step, high) if first > 0 else (low, step)
        newton = step - first / second
        following = newton if low < newton < high else (low + high) / 2
        if abs(following - step) <= NEWTON_TOLERANCE * width:
            break
        step = following
    return step


def best_weight(static_N: np.ndarray, memory_N: np.ndarray) -> float:
    """Weight of one memory beside the static model; both are log-probabilities without NaN."""
    ratio_CN, peak_N = ratios(np.stack([static_N, memory_N]))
    ratio_CN = ratio_CN[:, peak_N > -np.inf]
    if not ratio_CN.shape[1]:
        return 0.0
    return best_step(ratio_CN[0], ratio_CN[1] - ratio_CN[0], 1.0)


def best_weights(log_p_CN: np.ndarray, tolerance: float, max_exchanges: int) -> np.ndarray:
    """(C,): weight is moved, by the best amount, from the least to the most useful component.

    Ends `tolerance` nats per token from the maximum at most. Tokens that no component can explain
    say nothing about the weights and are left out. A memory that does not help has exactly 0.
    """
    ratio_CN, peak_N = ratios(log_p_CN)
    ratio_CN = ratio_CN[:, peak_N > -np.inf]
    num_components, num_tokens = ratio_CN.shape
    weight_C = np.zeros(num_components)
    weight_C[0] = 1
    if not num_tokens:
        return weight_C
    if ratio_CN[0].min() <= SMALLEST:
        weight_C[:] = 1 / num_components
    for _ in range(max_exchanges):
        mixture_N = weight_C @ ratio_CN
        gain_C = np.array([(ratio_N / mixture_N).mean() for ratio_N in ratio_CN])
        if gain_C.max() - 1 <= tolerance:
            return weight_C
        best = int(gain_C.argmax())
        worst = int(np.where(weight_C > 0, gain_C, np.inf).argmin())
        moved = best_step(mixture_N, ratio_CN[best] - ratio_CN[worst], weight_C[worst])
        weight_C[best] += moved
        weight_C[worst] -= moved
    logger.warning(
        "tuned weights: after %d exchanges up to %.1e nats per token could still be gained",
        max_exchanges,
        gain_C.max() - 1,
    )
    return weight_C
