"""Contacts from features of pairs by an L1 logistic regression on few proteins (Rao et al. 2020)."""

# L = residues, F = features of a pair, N = pairs of all proteins

import inspect
import logging
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.special import expit

from lit_seqlm.errors import DivergedError, UserError

log = logging.getLogger(__name__)

MAX_ITERATIONS = 1000


@dataclass(frozen=True)
class ContactRegression:
    """p_ij = sigmoid(w x_ij + b), the same for both orders of a pair.

    Attributes:
        weight_F: most are zero.
        num_pairs, num_contacts: that it was fitted to.
    """

    weight_F: np.ndarray
    bias: float
    num_pairs: int
    num_contacts: int

    @classmethod
    def fit(
        cls,
        proteins: Iterable[tuple[np.ndarray, np.ndarray]],
        penalty: float,
        least_apart: int,
        seed: int,
    ) -> "ContactRegression":
        """The minimum of |w|_1 + |b| + (sum of losses) / penalty, by liblinear; features are as they are given.

        Args:
            proteins: of each, features (L, L, F) and labels (L, L): 1, 0, or -1 where there is none. Rao et al. take
                20 proteins.
            penalty: 0.15 is that of Rao et al. on attention; other features may need another one.
            least_apart: only pairs so many residues apart are fitted.
            seed: of the order in which liblinear visits the features.

        Raises:
            UserError: for pairs that are all of one class, and a penalty that is none.
            DivergedError: for features that are not finite.
        """
        if not penalty > 0:
            raise UserError(f"penalty={penalty}: give a number above 0, such as 0.15.")
        parts = [_pairs(*protein, least_apart) for protein in proteins]
        labels_N = np.concatenate([labels for _, labels in parts]) if parts else np.empty(0)
        num_contacts = int(labels_N.sum())
        if num_contacts in (0, len(labels_N)):
            raise UserError(
                f"{num_contacts} of {len(labels_N)} pairs of {len(parts)} proteins are contacts: a regression needs "
                "pairs of both kinds. Give it more proteins, or longer ones."
            )
        features_NF = np.concatenate([features for features, _ in parts])
        if not np.isfinite(features_NF).all():
            raise DivergedError(
                f"features of {int((~np.isfinite(features_NF)).any(1).sum())} pairs are not finite: the model that "
                "they are of has diverged."
            )
        model = _lasso(1 / penalty, seed).fit(features_NF, labels_N)
        weight_F, bias = model.coef_[0].astype(np.float64), float(model.intercept_[0])
        log.info(
            "contacts by logistic regression: %d of %d features are used, %d pairs of %d proteins",
            np.count_nonzero(weight_F), len(weight_F), len(labels_N), len(parts),
        )  # fmt: skip
        return cls(weight_F, bias, len(labels_N), num_contacts)

    def predict(self, features_LLF: np.ndarray) -> np.ndarray:
        """Probabilities (L, L) of contacts, float64."""
        score_LL = np.asarray(features_LLF, np.float64) @ self.weight_F + self.bias
        return expit((score_LL + score_LL.T) / 2)


def _pairs(
    features_LLF: np.ndarray, label_LL: np.ndarray, least_apart: int
) -> tuple[np.ndarray, np.ndarray]:
    """Features (N, F) and labels (N,) of the labelled pairs far enough apart, each once."""
    assert features_LLF.shape[:2] == label_LL.shape, f"{features_LLF.shape} for {label_LL.shape}"
    rows, columns = np.triu_indices(len(label_LL), least_apart)
    known = label_LL[rows, columns] != -1
    rows, columns = rows[known], columns[known]
    return (features_LLF[rows, columns] + features_LLF[columns, rows]) / 2, label_LL[rows, columns]


def _lasso(strength: float, seed: int) -> Any:
    """An L1 logistic regression of scikit-learn, which from 1.8 on says L1 in another way."""
    from sklearn.linear_model import LogisticRegression

    default = inspect.signature(LogisticRegression).parameters["l1_ratio"].default
    kind: dict[str, Any] = {"penalty": "l1"} if default is None else {"l1_ratio": 1.0}
    return LogisticRegression(
        C=strength, solver="liblinear", max_iter=MAX_ITERATIONS, random_state=seed, **kind
    )
