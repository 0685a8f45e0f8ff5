"""What simple models make of the same split: the rows that stand beside every result."""

# N = sequences, M = sequences of the test split, K = targets

import logging
from collections.abc import Iterator
from functools import cached_property

import numpy as np
import sklearn
from scipy import sparse

from lit_seqlm.data.baseline_features import fingerprint_counts, token_counts
from lit_seqlm.data.baseline_models import (
    Fitting,
    extra_trees,
    extra_trees_classes,
    logistic,
    ridge,
)
from lit_seqlm.data.chemistry.canonical import version
from lit_seqlm.data.corpus import SPLITS
from lit_seqlm.data.kept import Kept
from lit_seqlm.data.properties import PropertyData
from lit_seqlm.data.residual import explained, least_squares
from lit_seqlm.errors import UserError, did_you_mean

log = logging.getLogger(__name__)

REGRESSION = (
    "mean",
    "median",
    "ols_covariates",
    "ridge_tokens",
    "ridge_fingerprint",
    "extra_trees_fingerprint",
)
CLASSIFICATION = (
    "prior",
    "logistic_tokens",
    "logistic_fingerprint",
    "extra_trees_fingerprint",
)
FOREST = "extra_trees_fingerprint"
REFERENCE_PENALTIES = {"ridge_tokens": 1.0, "ridge_fingerprint": 10.0}


class Baselines:
    """Predictions for the test split by models that take seconds to minutes, kept on disk.

    Labels of extensive targets are first residualised on the covariates, as the network's are, and
    predictions are in the labels' own units again. Features are token and neighbour counts, or the
    source's fingerprints, with the covariates behind them.

    Args:
        names: which ones; ``all`` for all that fit the kind of labels, ``quick`` for those but the forests.
        penalty: of ridge: ``validated``, the best of 9 on the validation split, or ``reference``: 1
            for tokens and 10 for fingerprints, as in this project's published numbers.
        num_trees: of a forest.
        extra_trees_rows: so many training rows for a forest, drawn by `seed`; null: all. QM9's
            106,000 take 8 minutes on two cores, 12,000 half a minute.
        seed: of forests and of their rows.
        cache_dir: where predictions are kept; null: nowhere.
    """

    def __init__(
        self,
        names: str | list[str],
        penalty: str,
        num_trees: int,
        extra_trees_rows: int | None,
        seed: int,
        cache_dir: str | None,
    ):
        if penalty not in ("validated", "reference"):
            raise UserError(f"baselines.penalty={penalty}: choose validated or reference.")
        self.names, self.penalty, self.num_trees = names, penalty, num_trees
        self.extra_trees_rows, self.seed, self.cache_dir = extra_trees_rows, seed, cache_dir

    def predictions(self, data: PropertyData) -> dict[str, np.ndarray]:
        """For each baseline, float64 (M, K) for the rows of ``data.tables["test"]``: raw units, or
        probabilities.

        Raises:
            UserError: for a baseline that there is not, and a target without training labels.
        """
        data.setup()
        empty = np.isnan(data.tables["train"].labels_NK).all(axis=0)
        if empty.any():
            name = data.targets[int(empty.argmax())].name
            raise UserError(f"data={data.source.name}: no training row has a label of {name}.")
        work = _Work(data, self.num_trees, self.extra_trees_rows, self.seed)
        found = {}
        for name in self._chosen(data.kind):
            penalty = REFERENCE_PENALTIES.get(name) if self.penalty == "reference" else None
            kept = Kept(self.cache_dir, f"baseline-{name}", self._follows_from(data, name))
            arrays = kept.read()
            if arrays is None:
                log.info("data=%s: fitting the baseline %s", data.source.name, name)
                arrays = {"test_MK": work.predict(name, penalty)}
                kept.write(arrays)
            found[name] = arrays["test_MK"]
        return found

    def _chosen(self, kind: str) -> list[str]:
        known = REGRESSION if kind == "regression" else CLASSIFICATION
        if self.names in ("all", "quick"):
            return [name for name in known if self.names == "all" or name != FOREST]
        asked = [self.names] if isinstance(self.names, str) else self.names
        for name in asked:
            if name not in known:
                raise UserError(f"baselines.names={name}: {did_you_mean(name, known)}")
        return asked

    def _follows_from(self, data: PropertyData, name: str) -> Iterator[str | bytes]:
        yield name
        if name.startswith("ridge"):
            yield self.penalty
        if name.startswith("extra_trees"):
            yield f"{self.num_trees} {self.extra_trees_rows} {self.seed}"
        yield f"{sklearn.__version__} {version()} {data.kind}"
        yield str([target.extensive for target in data.targets])
        for split in SPLITS:
            table = data.tables[split]
            yield from table.sequences
            if split != "test":  # so that nothing can be learnt from the test labels
                yield table.labels_NK.tobytes()
            if name.endswith("tokens"):
                yield table.tokens.ids.tobytes()


class _Work:
    """The features and labels of one run of baselines, made when first needed."""

    def __init__(self, data: PropertyData, num_trees: int, rows: int | None, seed: int):
        self.data, self.num_trees, self.rows, self.seed = data, num_trees, rows, seed
        self.tables = data.tables
        self.extensive_K = np.array([target.extensive for target in data.targets])

    @cached_property
    def tokens(self) -> dict[str, sparse.csr_matrix]:
        return token_counts(self.data, SPLITS)

    @cached_property
    def fingerprints(self) -> dict[str, sparse.csr_matrix]:
        return fingerprint_counts(self.data, SPLITS)

    def predict(self, name: str, penalty: float | None) -> np.ndarray:
        train, test = self.tables["train"], self.tables["test"]
        if name in ("mean", "prior", "median"):
            middle = np.nanmedian if name == "median" else np.nanmean
            return np.tile(middle(train.labels_NK, axis=0), (len(test), 1))
        if name == "ols_covariates":
            every_K = np.ones_like(self.extensive_K)
            weights_CK = least_squares(train.labels_NK, train.covariates_NC, every_K)
            return explained(test.covariates_NC, weights_CK)
        model, _, source = name.rpartition("_")
        features = self.tokens if source == "tokens" else self.fingerprints
        if self.data.kind == "classification":
            fitting = self._fitting(features, self._drawn(model), None)
            if model == "logistic":
                return logistic(fitting, features["test"])
            return extra_trees_classes(fitting, features["test"], self.num_trees, self.seed)
        weights_CK = least_squares(train.labels_NK, train.covariates_NC, self.extensive_K)
        fitting = self._fitting(features, self._drawn(model), weights_CK)
        if model == "ridge":
            found = ridge(fitting, features["test"], penalty)
        else:
            found = extra_trees(fitting, features["test"], self.num_trees, self.seed)
        return found + explained(test.covariates_NC, weights_CK)

    def _drawn(self, model: str) -> np.ndarray:
        """Training rows: all of them, or as many as a forest is given."""
        total = len(self.tables["train"])
        if not model.startswith("extra_trees") or self.rows is None or self.rows >= total:
            return np.arange(total)
        return np.sort(np.random.default_rng(self.seed).permutation(total)[: self.rows])

    def _fitting(
        self,
        features: dict[str, sparse.csr_matrix],
        rows: np.ndarray,
        weights_CK: np.ndarray | None,
    ) -> Fitting:
        labels = {}
        for split in ("train", "valid"):
            table = self.tables[split]
            gone = 0.0 if weights_CK is None else explained(table.covariates_NC, weights_CK)
            labels[split] = table.labels_NK - gone
        return Fitting(
            features["train"][rows], labels["train"][rows], features["valid"], labels["valid"]
        )
