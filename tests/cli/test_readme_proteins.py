"""What the first page says of proteins is in the kept results."""

import json
import re
import statistics
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SECTION = (
    (ROOT / "README.md").read_text().split("<!-- proteins -->")[1].split("<!-- /proteins -->")[0]
)
RESULTS = ROOT / "experiments/xiao2021_proteinlm/results"


def metrics(table: str, row: str) -> list[dict[str, float]]:
    paths = sorted((RESULTS / table).glob(f"{row}-seed_*.json"))
    return [json.loads(path.read_text())["metrics"] for path in paths]


def line(begin: str) -> str:
    (found,) = [line for line in SECTION.splitlines() if line.startswith(f"| {begin}")]
    return found


@pytest.mark.parametrize(
    ("label", "row"),
    [
        ("0.14 M parameters, 1.2 M tokens", "cluster_nano_scored"),
        ("0.9 M parameters, 1.2 M tokens", "cluster_tiny_scored"),
        ("0.9 M parameters, 12 M tokens", "cluster_tiny_long_scored"),
    ],
)
def test_perplexities_are_the_kept_ones(label: str, row: str) -> None:
    (found,) = metrics("pretraining_cpu", row)
    shown = f"| {found['test/ppl_hidden']:.2f} | {found['test/ppl']:.2f} |"
    assert line(label).endswith(shown)


def test_the_floor_is_that_of_the_ngrams() -> None:
    record = json.loads((ROOT / "experiments/xiao2021_proteinlm/ngrams.json").read_text())
    models = record["splits"]["swissprot_sample_cascaded"]["models"]
    names = ("unigram", "5-gram", "two-sided, 2 on each side")
    assert " / ".join(f"{models[name]['ppl']:.2f}" for name in names) in line("letter frequencies")


@pytest.mark.parametrize(
    ("label", "rows"),
    [
        ("fine-tuned", ["fine_tuned"]),
        ("from scratch", ["scratch"]),
        ("one-hot", ["one_hot", "one_hot_whole"]),
    ],
)
def test_secondary_structure_is_the_kept_one(label: str, rows: list[str]) -> None:
    shown = []
    for row in rows:
        values = [found["cb513/q3"] for found in metrics("secondary_structure_cpu", row)]
        assert len(values) == 3
        shown.append(f"{statistics.mean(values):.3f} ± {statistics.stdev(values):.3f}")
    assert f"| {' / '.join(shown)} |" in line(label)


def test_the_gain_of_pretraining_is_the_kept_one() -> None:
    pairs = zip(
        *(metrics("secondary_structure_cpu", row) for row in ("fine_tuned", "scratch")), strict=True
    )
    gains = [100 * (one["cb513/q3"] / other["cb513/q3"] - 1) for one, other in pairs]
    told = re.search(r"Pretraining takes \+(\S+) ± (\S+) %", SECTION)
    assert told.groups() == (f"{statistics.mean(gains):.2f}", f"{statistics.stdev(gains):.2f}")


def test_folds_are_the_kept_ones() -> None:
    rows = ("fine_tuned", "scratch", "one_hot")
    family = [f"{metrics('remote_homology_cpu', row)[0]['family/top1']:.3f}"[1:] for row in rows]
    assert (
        "pretrained {} on the family split, from scratch {}, one-hot {}".format(*family) in SECTION
    )
    for row in rows:
        found = metrics("remote_homology_cpu", row)[0]
        assert found["fold/top1"] <= found["baseline/majority/fold/top1"]
