"""Targets, what remains of them after least squares, and their units."""

import numpy as np
import pytest

from lit_seqlm.data.property_manifest import read_property_set
from lit_seqlm.data.residual import explained, least_squares
from lit_seqlm.data.targets import average, avg_mae_paper, choose
from lit_seqlm.errors import UserError

# MoLFormer-XL's test MAE, from the QM9 table of Ross et al. 2022.
MOLFORMER_XL = {
    "alpha": 0.3327, "cv": 0.1447, "g298": 0.3362, "gap": 0.0038, "h298": 0.2522, "homo": 0.0029,
    "lumo": 0.0027, "mu": 0.3616, "r2": 17.0620, "u0": 0.3211, "u298": 0.2522, "zpve": 0.0003,
}  # fmt: skip
# Deviations over the 13,389 published test rows.
TEST_STD = {
    "alpha": 8.235, "cv": 4.0857, "g298": 40.644, "gap": 0.04745, "h298": 40.643, "homo": 0.02201,
    "lumo": 0.0467, "mu": 1.534, "r2": 277.37, "u0": 40.643, "u298": 40.643, "zpve": 0.03334,
}  # fmt: skip


def test_qm9_measures_and_their_units() -> None:
    targets = {target.name: target for target in read_property_set("qm9").targets}
    assert list(targets) == [
        "mu", "alpha", "homo", "lumo", "gap", "r2", "zpve", "u0", "u298", "h298", "g298", "cv",
    ]  # fmt: skip
    extensive = {name for name, target in targets.items() if target.extensive}
    assert extensive == {"alpha", "zpve", "u0", "u298", "h298", "g298", "cv"}
    assert targets["u0"].chemists_unit == "kcal/mol"
    # 1 Ha = 27.2114 eV = 627.509 kcal/mol; MoLFormer-XL's gap and u0 in a chemist's units.
    assert 0.0038 * targets["gap"].chemists_factor == pytest.approx(103, abs=0.5)
    assert 0.3211 * targets["u0"].chemists_factor == pytest.approx(201, abs=0.6)
    assert targets["mu"].chemists_unit == targets["mu"].unit == "D"


def test_qm8_has_twelve_targets_and_four_that_repeat() -> None:
    entry = read_property_set("qm8")
    assert (len(entry.targets), len(entry.usual_targets)) == (16, 12)
    assert {target.repeats for target in entry.targets} == {
        "", "E1-PBE0", "E2-PBE0", "f1-PBE0", "f2-PBE0",
    }  # fmt: skip


def test_choose() -> None:
    targets = read_property_set("qm9").targets
    assert choose(targets, "all", "data=qm9") == list(range(12))
    assert choose(targets, "gap", "data=qm9") == [4]
    assert choose(targets, ["u0", "mu"], "data=qm9") == [7, 0]


@pytest.mark.parametrize(
    ("wanted", "words"),
    [
        ("gapp", "data=qm9 has no target 'gapp'. Targets: mu, alpha, .* Try data.target=gap."),
        (["gap", "gap"], "twice"),
        ([], "empty"),
    ],
)
def test_what_is_no_target(wanted: str | list[str], words: str) -> None:
    with pytest.raises(UserError, match=words):
        choose(read_property_set("qm9").targets, wanted, "data=qm9")


def test_units_that_differ_are_not_averaged() -> None:
    targets = read_property_set("qm9").targets
    assert average({"homo": 1.0, "lumo": 3.0}, targets) == 2.0
    with pytest.raises(UserError, match="different units means nothing"):
        average({"gap": 1.0, "mu": 3.0}, targets)


def test_the_papers_mean_is_the_papers() -> None:
    assert avg_mae_paper(MOLFORMER_XL) == pytest.approx(1.5894, abs=5e-4)
    shares = [MOLFORMER_XL[name] / TEST_STD[name] for name in TEST_STD]
    assert np.mean(shares) == pytest.approx(0.0567, abs=5e-4)
    assert MOLFORMER_XL["r2"] / sum(MOLFORMER_XL.values()) == pytest.approx(0.89, abs=0.01)


def test_least_squares_finds_the_weights_that_made_the_labels() -> None:
    rng = np.random.default_rng(0)
    covariates_NC = rng.integers(0, 10, (200, 3)).astype(float)
    wanted_CK = np.array([[1.0, 0.0], [-38.0, 0.0], [5.5, 0.0], [0.25, 0.0]])
    labels_NK = covariates_NC @ wanted_CK[:3] + wanted_CK[3]
    labels_NK[:, 1] = rng.normal(size=200)
    labels_NK[::7, 0] = np.nan
    found_CK = least_squares(labels_NK, covariates_NC, np.array([True, False]))
    np.testing.assert_allclose(found_CK, wanted_CK, atol=1e-10)
    np.testing.assert_allclose(
        explained(covariates_NC, found_CK)[:, 0], covariates_NC @ wanted_CK[:3, 0] + 0.25
    )


def test_least_squares_is_the_normal_equations() -> None:
    rng = np.random.default_rng(1)
    covariates_NC, labels_NK = rng.normal(size=(50, 4)), rng.normal(size=(50, 2))
    features = np.column_stack([covariates_NC, np.ones(50)])
    wanted = np.linalg.inv(features.T @ features) @ features.T @ labels_NK
    found = least_squares(labels_NK, covariates_NC, np.array([True, True]))
    np.testing.assert_allclose(found, wanted, atol=1e-10)


def test_least_squares_with_a_covariate_that_is_always_the_same() -> None:
    covariates_NC = np.column_stack([np.arange(5.0), np.zeros(5)])
    found = least_squares(2 * covariates_NC[:, :1] + 1, covariates_NC, np.array([True]))
    np.testing.assert_allclose(found[:, 0], [2, 0, 1], atol=1e-12)


def test_least_squares_needs_labels() -> None:
    with pytest.raises(UserError, match="target 2 has no label"):
        least_squares(
            np.column_stack([np.ones(3), np.full(3, np.nan)]),
            np.ones((3, 1)),
            np.array([True, True]),
        )
