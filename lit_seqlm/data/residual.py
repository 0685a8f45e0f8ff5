"""What covariates explain of a label: least squares, so that a model learns what remains."""

# N = sequences, K = targets, C = covariates

import numpy as np

from lit_seqlm.errors import UserError


def least_squares(
    labels_NK: np.ndarray, covariates_NC: np.ndarray, residualised_K: np.ndarray
) -> np.ndarray:
    """Weights (C + 1, K), the intercept last, of y = covariates . w + intercept; float64.

    Each target is fitted to the rows that have its label. A total energy is nearly a sum over atoms:
    of QM9's u0, with a deviation of 40.5 Ha, counts of H, C, N, O and F leave 0.040 Ha. A covariate
    that is a combination of others shares its weight with them (least norm).

    Args:
        residualised_K: where false the weights are 0, so that all of the label remains.

    Raises:
        UserError: for a target without labels.
    """
    features_NC = with_intercept(covariates_NC)
    weights_CK = np.zeros((features_NC.shape[1], labels_NK.shape[1]))
    for column in np.flatnonzero(residualised_K):
        labels_N = np.asarray(labels_NK[:, column], np.float64)
        known_N = ~np.isnan(labels_N)
        if not known_N.any():
            raise UserError(f"target {column + 1} has no label in the training split.")
        weights_CK[:, column] = np.linalg.lstsq(
            features_NC[known_N], labels_N[known_N], rcond=None
        )[0]
    return weights_CK


def explained(covariates_NC: np.ndarray, weights_CK: np.ndarray) -> np.ndarray:
    """What `least_squares` weights say of each sequence, float64 (N, K)."""
    return with_intercept(covariates_NC) @ weights_CK


def with_intercept(covariates_NC: np.ndarray) -> np.ndarray:
    """A column of ones behind them, float64 (N, C + 1)."""
    return np.hstack([np.asarray(covariates_NC, np.float64), np.ones((len(covariates_NC), 1))])
