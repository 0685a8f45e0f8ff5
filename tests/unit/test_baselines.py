"""Baselines against closed forms, scikit-learn, and the numbers that this project publishes."""

import itertools
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import sparse

from lit_seqlm.data.baseline_features import token_counts
from lit_seqlm.data.baseline_models import PENALTIES, Fitting, RidgePath, logistic, ridge
from lit_seqlm.data.baselines import CLASSIFICATION, REGRESSION, Baselines
from lit_seqlm.data.molecule_properties import MoleculeProperties
from lit_seqlm.data.molecule_table import MoleculeTable
from lit_seqlm.data.properties import PropertyData
from lit_seqlm.errors import UserError
from lit_seqlm.tokenizer.smiles import SmilesTokenizer

MOLECULES = [
    f"{'C' * chain}{end}"
    for chain in range(1, 16)
    for end in ("", "O", "N", "F", "C=O", "C#N", "c1ccccc1", "OC", "C(C)C", "CC(O)CO")
]


def data_of(source: Any) -> PropertyData:
    return PropertyData(
        source,
        SmilesTokenizer(None, "unk", False, 1),
        target="all",
        batching="random",
        batch_size=8,
        token_budget=64,
        window=32,
        multiple=8,
        eval_batch_size=8,
        max_len=None,
        over_long="skip",
        num_train=None,
        augment="none",
        seed=1,
    )


def table_of(tmp_path: Path, kind: str, second: str) -> PropertyData:
    """Two targets of the molecules: carbon atoms (or whether there is oxygen), and what is given."""
    rows = []
    for number, smiles in enumerate(MOLECULES):
        first = smiles.upper().count("C") if kind == "regression" else int("O" in smiles)
        value = second if second != "some" else ("" if number % 3 else str(number % 2))
        rows.append(f"{smiles},{first},{value}")
    path = tmp_path / f"{kind}.csv"
    path.write_text("smiles,y,z\n" + "\n".join(rows) + "\n")
    source = MoleculeTable(
        str(path), "smiles", ["y", "z"], kind, "", "random", "split", 0.2, 0.2, 0, "keep", None
    )
    return data_of(source)


def baselines(names: str | list[str], **changes: Any) -> Baselines:
    options = {"penalty": "validated", "num_trees": 10, "extra_trees_rows": None, "seed": 0}
    return Baselines(names, **{**options, "cache_dir": None, **changes})


def test_ridge_path_is_ridge() -> None:
    from sklearn.linear_model import Ridge

    rng = np.random.default_rng(0)
    features = rng.poisson(0.5, (80, 12)).astype(float)
    features[:, 3] = features[:, 5]  # of less than full rank
    labels_NK, test = rng.normal(size=(80, 3)) + 5, rng.poisson(0.5, (9, 12)).astype(float)
    path = RidgePath(sparse.csr_matrix(features), labels_NK)
    for penalty in (0.1, 10.0, 1e4):
        wanted = Ridge(alpha=penalty).fit(features, labels_NK).predict(test)
        np.testing.assert_allclose(
            path.predict(sparse.csr_matrix(test), penalty), wanted, atol=1e-9
        )


def test_the_penalty_is_the_best_on_validation() -> None:
    rng = np.random.default_rng(1)
    features, valid, test = (rng.normal(size=(rows, 30)) for rows in (40, 50, 7))
    weights = rng.normal(size=(30, 2))
    labels, wanted = (
        part @ weights + rng.normal(size=(len(part), 2)) * 8 for part in (features, valid)
    )
    sparse_parts = [sparse.csr_matrix(part) for part in (features, valid, test)]
    found = ridge(Fitting(sparse_parts[0], labels, sparse_parts[1], wanted), sparse_parts[2], None)
    path = RidgePath(sparse_parts[0], labels)
    errors = [
        (np.abs(path.predict(sparse_parts[1], one) - wanted).mean(0) / labels.std(0)).mean()
        for one in PENALTIES
    ]
    best = PENALTIES[int(np.argmin(errors))]
    assert PENALTIES[0] < best < PENALTIES[-1]
    np.testing.assert_allclose(found, path.predict(sparse_parts[2], best))


def test_missing_labels_are_left_out_of_ridge_one_target_at_a_time() -> None:
    from sklearn.linear_model import Ridge

    rng = np.random.default_rng(2)
    features, labels_NK = rng.normal(size=(60, 5)), rng.normal(size=(60, 2))
    labels_NK[::3, 1] = np.nan
    matrix = sparse.csr_matrix(features)
    found = ridge(Fitting(matrix, labels_NK, matrix, labels_NK), matrix, 10.0)
    known = ~np.isnan(labels_NK[:, 1])
    wanted = Ridge(alpha=10.0).fit(features[known], labels_NK[known, 1]).predict(features)
    np.testing.assert_allclose(found[:, 1], wanted, atol=1e-9)


def test_token_counts_by_hand(tmp_path: Path) -> None:
    data = table_of(tmp_path, "regression", "some")
    data.setup()
    found = token_counts(data, ("train", "test"))
    table, tokenizer = data.tables["train"], data.tokenizer
    singles, pairs = set(), set()
    for row in range(len(table)):
        ids = table.tokens[row].tolist()
        singles |= set(ids)
        pairs |= set(itertools.pairwise(ids))
    assert found["train"].shape == (len(table), len(singles) + len(pairs) + 5)
    assert found["test"].shape[1] == found["train"].shape[1]
    # Each token once, each pair of neighbours once, each atom once.
    lengths = table.tokens.lengths
    wanted = 2 * lengths - 1 + table.covariates_NC.sum(1)
    np.testing.assert_array_equal(np.asarray(found["train"].sum(1)).ravel(), wanted)
    assert tokenizer.bos_id in singles


def test_regression_baselines(tmp_path: Path) -> None:
    data = table_of(tmp_path, "regression", "some")
    found = baselines("all").predictions(data)
    assert tuple(found) == REGRESSION
    train, test = data.tables["train"].labels_NK, data.tables["test"].labels_NK
    assert all(values.shape == test.shape for values in found.values())
    np.testing.assert_allclose(found["mean"][0], np.nanmean(train, axis=0))
    np.testing.assert_allclose(found["median"][3], np.nanmedian(train, axis=0))
    # The first label is a count of atoms: least squares knows it exactly, the others nearly.
    np.testing.assert_allclose(found["ols_covariates"][:, 0], test[:, 0], atol=1e-9)
    for name in ("ridge_tokens", "ridge_fingerprint"):
        np.testing.assert_allclose(found[name][:, 0], test[:, 0], atol=0.1)
    error = np.abs(found["extra_trees_fingerprint"][:, 0] - test[:, 0]).mean()
    assert error < 0.5 * np.abs(found["mean"][:, 0] - test[:, 0]).mean()


def test_classification_baselines(tmp_path: Path) -> None:
    data = table_of(tmp_path, "classification", "some")
    found = baselines("all").predictions(data)
    assert tuple(found) == CLASSIFICATION
    train, test = data.tables["train"].labels_NK, data.tables["test"].labels_NK
    np.testing.assert_allclose(found["prior"][0], np.nanmean(train, axis=0))
    for name, values in found.items():
        assert values.shape == test.shape
        assert ((values >= 0) & (values <= 1)).all()
        if name != "prior":  # whether there is oxygen is no secret
            right = (values[:, 0] > 0.5) == (test[:, 0] == 1)
            assert right.mean() > 0.9, name


def test_a_target_of_one_class_gets_its_share(tmp_path: Path) -> None:
    data = table_of(tmp_path, "classification", "1")
    found = baselines(["logistic_tokens", "extra_trees_fingerprint"]).predictions(data)
    for values in found.values():
        assert (values[:, 1] == 1).all()


def test_a_target_may_lack_validation_labels_but_not_those_of_training(tmp_path: Path) -> None:
    data = table_of(tmp_path, "classification", "some")
    data.setup()
    data.tables["valid"].labels_NK[:, 1] = np.nan
    found = baselines("logistic_tokens").predictions(data)["logistic_tokens"]
    assert np.isfinite(found).all()
    data.tables["train"].labels_NK[:, 1] = np.nan
    with pytest.raises(UserError, match="no training row has a label of z"):
        baselines("logistic_tokens").predictions(data)


def test_logistic_is_scikit_learns_with_the_best_penalty() -> None:
    from sklearn.linear_model import LogisticRegression
    from sklearn.metrics import log_loss

    from lit_seqlm.data.baseline_models import INVERSE_PENALTIES

    rng = np.random.default_rng(3)
    features, valid, test = (rng.uniform(size=(rows, 6)) for rows in (90, 60, 11))
    classes = [
        (part[:, :1] + rng.normal(size=(len(part), 1)) * 0.5 > 0.5) * 1.0
        for part in (features, valid)
    ]
    found = logistic(
        Fitting(sparse.csr_matrix(features), classes[0], sparse.csr_matrix(valid), classes[1]),
        sparse.csr_matrix(test),
    )
    top = features.max(axis=0)
    models = [
        LogisticRegression(C=inverse, max_iter=1000).fit(features / top, classes[0][:, 0])
        for inverse in INVERSE_PENALTIES
    ]
    losses = [
        log_loss(classes[1][:, 0], model.predict_proba(valid / top)[:, 1]) for model in models
    ]
    wanted = models[int(np.argmin(losses))].predict_proba(test / top)[:, 1]
    np.testing.assert_allclose(found[:, 0], wanted, atol=1e-6)


def test_predictions_are_kept_and_follow_their_data(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from lit_seqlm.data import baselines as module

    cache = str(tmp_path / "cache")
    data = table_of(tmp_path, "regression", "some")
    first = baselines("ridge_tokens", cache_dir=cache).predictions(data)
    monkeypatch.setattr(module, "ridge", None)  # nothing is fitted again
    again = baselines("ridge_tokens", cache_dir=cache).predictions(data)
    np.testing.assert_array_equal(first["ridge_tokens"], again["ridge_tokens"])
    data.tables["test"].labels_NK += 1  # what is not known cannot matter
    baselines("ridge_tokens", cache_dir=cache).predictions(data)
    data.tables["train"].labels_NK[0, 0] += 1
    with pytest.raises(TypeError):
        baselines("ridge_tokens", cache_dir=cache).predictions(data)


@pytest.mark.parametrize(
    ("names", "changes", "words"),
    [
        ("ridge_token", {}, "Did you mean ridge_tokens"),
        ("all", {"penalty": "best"}, "validated or"),
    ],
)
def test_baselines_that_there_are_not(
    tmp_path: Path, names: str, changes: dict[str, Any], words: str
) -> None:
    with pytest.raises(UserError, match=words):
        baselines(names, **changes).predictions(table_of(tmp_path, "regression", "1"))


def published(name: str) -> PropertyData:
    data_dir = os.environ["LIT_SEQLM_DATA"]
    return data_of(MoleculeProperties(name, data_dir, None, None, "published", 0))


@pytest.mark.data
@pytest.mark.slow
@pytest.mark.skipif("LIT_SEQLM_DATA" not in os.environ, reason="LIT_SEQLM_DATA is unset")
def test_qm8s_published_numbers() -> None:
    data = published("qm8")
    wanted = {"mean": (0.03514, 0.707), "median": (0.03029, 0.624), "ols_covariates": (0.03071, 0.603),
              "ridge_tokens": (0.02262, 0.430), "ridge_fingerprint": (0.02213, 0.413)}  # fmt: skip
    found = baselines(list(wanted), penalty="reference").predictions(data)
    labels_NK = data.tables["test"].labels_NK
    for name, (error, standardised) in wanted.items():
        error_K = np.abs(found[name] - labels_NK).mean(axis=0)
        assert error_K.mean() == pytest.approx(error, rel=0.01), name
        assert (error_K / labels_NK.std(axis=0)).mean() == pytest.approx(standardised, rel=0.01)


@pytest.mark.data
@pytest.mark.slow
@pytest.mark.skipif("LIT_SEQLM_DATA" not in os.environ, reason="LIT_SEQLM_DATA is unset")
def test_qm8s_extra_trees() -> None:
    data = published("qm8")
    found = baselines(["extra_trees_fingerprint"], num_trees=60).predictions(data)
    error_K = np.abs(found["extra_trees_fingerprint"] - data.tables["test"].labels_NK).mean(axis=0)
    assert error_K.mean() == pytest.approx(0.01388, rel=0.03)
