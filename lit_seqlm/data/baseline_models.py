"""Ridge, logistic regression and trees on fixed features: what a language model has to beat."""

# N = sequences, M = sequences predicted, K = targets, F = features

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import sparse

PENALTIES = np.logspace(-3, 5, 9)  # of ridge
INVERSE_PENALTIES = np.logspace(-4, 1, 6)  # of logistic regression, as scikit-learn counts them


@dataclass(frozen=True)
class Fitting:
    """What a model is fitted to and judged by: features and labels of training and validation."""

    features_NF: sparse.csr_matrix
    labels_NK: np.ndarray
    valid_NF: sparse.csr_matrix
    valid_NK: np.ndarray


class RidgePath:
    """Least squares with a penalty on the squared weights, the intercept free; all penalties at once.

    With centred X = U S V^T the weights are V (S^2 + penalty)^-1 V^T X^T y (Hoerl and Kennard 1970):
    one eigendecomposition of X^T X (F, F) serves every penalty and every target. Features are as
    they are, not standardised.
    """

    def __init__(self, features_NF: sparse.csr_matrix, labels_NK: np.ndarray):
        self.feature_mean_F = np.asarray(features_NF.mean(axis=0)).ravel()
        self.label_mean_K = labels_NK.mean(axis=0)
        gram_FF = (features_NF.T @ features_NF).toarray()
        gram_FF -= len(labels_NK) * np.outer(self.feature_mean_F, self.feature_mean_F)
        moment_FK = features_NF.T @ (labels_NK - self.label_mean_K)
        values_F, self._vectors_FF = np.linalg.eigh(gram_FF)
        self._values_F = values_F.clip(min=0)
        self._rotated_FK = self._vectors_FF.T @ moment_FK

    def predict(self, features_MF: sparse.csr_matrix, penalty: float) -> np.ndarray:
        """Float64 (M, K)."""
        weights_FK = self._vectors_FF @ (self._rotated_FK / (self._values_F + penalty)[:, None])
        return features_MF @ weights_FK + self.label_mean_K - self.feature_mean_F @ weights_FK


def ridge(fitting: Fitting, test_MF: sparse.csr_matrix, penalty: float | None) -> np.ndarray:
    """Predictions (M, K); a penalty of null is the one with the least mean standardised error.

    Targets with missing labels are fitted one by one, each to its own rows.
    """
    return _by_complete_targets(fitting, test_MF, lambda part: _ridge(part, test_MF, penalty))


def extra_trees(
    fitting: Fitting, test_MF: sparse.csr_matrix, num_trees: int, seed: int
) -> np.ndarray:
    """Extremely randomised trees (Geurts et al. 2006), one forest for all targets, z-scored."""

    def fitted(part: Fitting) -> np.ndarray:
        from sklearn.ensemble import ExtraTreesRegressor

        mean_K, std_K = part.labels_NK.mean(axis=0), _deviation(part.labels_NK)
        forest = ExtraTreesRegressor(
            num_trees, min_samples_leaf=2, max_features=0.15, n_jobs=-1, random_state=seed
        )
        wanted_NK = (part.labels_NK - mean_K) / std_K
        forest.fit(
            part.features_NF.toarray().astype(np.float32),
            wanted_NK if wanted_NK.shape[1] > 1 else wanted_NK.ravel(),
        )
        found = forest.predict(test_MF.toarray().astype(np.float32))
        return found.reshape(test_MF.shape[0], -1) * std_K + mean_K

    return _by_complete_targets(fitting, test_MF, fitted)


def logistic(fitting: Fitting, test_MF: sparse.csr_matrix) -> np.ndarray:
    """Probabilities (M, K) of logistic regression, each target with the penalty best on validation.

    A target without validation labels gets scikit-learn's own penalty, 1.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.preprocessing import MaxAbsScaler

    scaler = MaxAbsScaler().fit(fitting.features_NF)

    def fitted(part: Fitting) -> np.ndarray:
        train, test = map(scaler.transform, (part.features_NF, test_MF))
        inverses = INVERSE_PENALTIES if len(part.valid_NK) else (1.0,)
        models = [
            LogisticRegression(C=inverse, max_iter=1000).fit(train, part.labels_NK[:, 0])
            for inverse in inverses
        ]
        if len(models) == 1:
            return models[0].predict_proba(test)[:, 1:]
        valid = scaler.transform(part.valid_NF)
        losses = [_log_loss(model.predict_proba(valid)[:, 1], part.valid_NK) for model in models]
        return models[int(np.argmin(losses))].predict_proba(test)[:, 1:]

    return _by_class(fitting, test_MF, fitted)


def extra_trees_classes(
    fitting: Fitting, test_MF: sparse.csr_matrix, num_trees: int, seed: int
) -> np.ndarray:
    """Probabilities (M, K) of extremely randomised trees, a forest for each target."""

    def fitted(part: Fitting) -> np.ndarray:
        from sklearn.ensemble import ExtraTreesClassifier

        forest = ExtraTreesClassifier(
            num_trees, min_samples_leaf=2, max_features=0.15, n_jobs=-1, random_state=seed
        )
        forest.fit(part.features_NF.toarray().astype(np.float32), part.labels_NK[:, 0])
        return forest.predict_proba(test_MF.toarray().astype(np.float32))[:, 1:]

    return _by_class(fitting, test_MF, fitted)


def _ridge(part: Fitting, test_MF: sparse.csr_matrix, penalty: float | None) -> np.ndarray:
    path = RidgePath(part.features_NF, part.labels_NK)
    if penalty is None:
        errors = [
            np.nanmean(np.abs(path.predict(part.valid_NF, one) - part.valid_NK), axis=0)
            / _deviation(part.labels_NK)
            for one in PENALTIES
        ]
        penalty = float(PENALTIES[int(np.argmin(np.nanmean(errors, axis=1)))])
    return path.predict(test_MF, penalty)


def _deviation(labels_NK: np.ndarray) -> np.ndarray:
    """Of each target; 1 where it is constant."""
    std_K = labels_NK.std(axis=0)
    return np.where(std_K > 0, std_K, 1.0)


def _by_complete_targets(fitting: Fitting, test_MF: sparse.csr_matrix, fitted: Any) -> np.ndarray:
    """All targets at once where no label is missing, else one by one."""
    if not np.isnan(fitting.labels_NK).any():
        return fitted(fitting)
    columns = range(fitting.labels_NK.shape[1])
    return np.hstack([fitted(_part(fitting, [column])) for column in columns])


def _by_class(fitting: Fitting, test_MF: sparse.csr_matrix, fitted: Any) -> np.ndarray:
    """One target at a time; its share of ones where training has a single class."""
    found = []
    for column in range(fitting.labels_NK.shape[1]):
        part = _part(fitting, [column])
        share = part.labels_NK.mean()
        one_class = share in (0.0, 1.0)
        found.append(np.full((test_MF.shape[0], 1), share) if one_class else fitted(part))
    return np.hstack(found)


def _part(fitting: Fitting, columns: Sequence[int]) -> Fitting:
    """Some targets, and the rows of training and validation that have their labels."""
    known_N = ~np.isnan(fitting.labels_NK[:, columns]).any(axis=1)
    valid_N = ~np.isnan(fitting.valid_NK[:, columns]).any(axis=1)
    return Fitting(
        fitting.features_NF[known_N],
        fitting.labels_NK[known_N][:, columns],
        fitting.valid_NF[valid_N],
        fitting.valid_NK[valid_N][:, columns],
    )


def _log_loss(probability_N: np.ndarray, labels_NK: np.ndarray) -> float:
    ones_N = labels_NK[:, 0] == 1
    right_N = np.where(ones_N, probability_N, 1 - probability_N)
    return float(-np.log(right_N.clip(min=1e-12)).mean())
