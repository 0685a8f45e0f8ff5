"""What the first page says of proteins is in the kept results."""

import json
import re
import statistics
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
SECTION = README.split("<!-- proteins -->")[1].split("<!-- /proteins -->")[0]
RESULTS = ROOT / "experiments/xiao2021_proteinlm/results"


def metrics(table: str, row: str) -> list[dict[str, float]]:
    paths = sorted((RESULTS / table).glob(f"{row}-seed_*.json"))
    return [json.loads(path.read_text())["metrics"] for path in paths]


def line(begin: str) -> str:
    """The first such line of a table."""
    return next(line for line in SECTION.splitlines() if line.startswith(f"| {begin}"))


SIZES = {
    "0.14 M parameters, 1.2 M tokens": ["cluster_nano_scored", "random_nano_scored"],
    "0.9 M parameters, 1.2 M tokens": ["cluster_tiny_scored", "random_tiny_scored"],
    "5.0 M parameters, 1.2 M tokens": ["cluster_small_scored"],
    "0.9 M parameters, 12 M tokens": ["cluster_tiny_long_scored"],
}


@pytest.mark.parametrize("label", SIZES)
def test_perplexities_are_the_kept_ones(label: str) -> None:
    shown = ""
    for row in SIZES[label]:
        (found,) = metrics("pretraining_cpu", row)
        shown += f"| {found['test/ppl_hidden']:.2f} | {found['test/ppl']:.2f} "
    assert shown in line(label)


@pytest.mark.parametrize("split", ["cluster", "random"])
def test_larger_models_and_longer_training_learn_more(split: str) -> None:
    rows = [name for names in SIZES.values() for name in names if name.startswith(split)]
    found = [metrics("pretraining_cpu", row)[0]["test/ppl_hidden"] for row in rows]
    assert found == sorted(found, reverse=True)


def test_the_floor_is_that_of_the_ngrams() -> None:
    record = json.loads((ROOT / "experiments/xiao2021_proteinlm/ngrams.json").read_text())
    names = ("unigram", "trigram", "two-sided, 2 on each side")
    for split in ("swissprot_sample_cascaded", "swissprot_sample_random"):
        models = record["splits"][split]["models"]
        shown = " / ".join(f"{models[name]['ppl']:.2f}" for name in names)
        assert shown in line("letter frequencies")


@pytest.mark.parametrize(
    ("label", "rows"),
    [
        ("fine-tuned", ["fine_tuned"]),
        ("frozen", ["frozen"]),
        ("from scratch", ["scratch"]),
        ("one-hot, 1,500 chains /", ["one_hot", "one_hot_whole"]),
        ("one-hot, all chains", ["one_hot_wide"]),
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
    told = re.search(r"Pretraining takes (\S+) ± (\S+) %", SECTION)
    assert told.groups() == (f"{statistics.mean(gains):+.2f}", f"{statistics.stdev(gains):.2f}")


def interval(found: dict[str, float], key: str, low: str, high: str) -> str:
    return f"{found[key]:.3f} ({found[low]:.3f} to {found[high]:.3f})"


CONTACTS = {"fine-tuned": "fine_tuned", "from scratch": "scratch", "attention of": "attention"}


def last_table(words: str) -> dict[str, str]:
    """Cells of the table whose head has these words, by the label of their line."""
    lines = SECTION.split(words)[1].split("\n\n")[0].splitlines()[2:]
    return {
        one.split(" | ")[0].removeprefix("| "): one.split(" | ")[1].strip(" |") for one in lines
    }


def test_contacts_are_the_kept_ones() -> None:
    key, told = "test/p_at_l5_esm_long", last_table("contacts, long range")
    for label, row in CONTACTS.items():
        (found,) = metrics("contacts_cpu", row)
        (cell,) = (cell for name, cell in told.items() if name.startswith(label))
        assert cell == interval(found, key, f"{key}_low", f"{key}_high")
    (found,) = metrics("contacts_cpu", "fine_tuned")
    key = f"baseline/separation/{key}"
    shown = interval(found, key, f"{key}_low", f"{key}_high")
    assert told["how often pairs as far apart touch"] == shown


def test_fluorescence_is_the_kept_one() -> None:
    told = last_table("fluorescence, Spearman")
    for label, row, begin in (
        ("fine-tuned", "fine_tuned", "test"),
        ("frozen", "frozen", "test"),
        ("ridge", "one_hot", "baseline/ridge_fingerprint"),
        ("least squares", "one_hot", "baseline/ols_covariates"),
    ):
        (found,) = metrics("fluorescence_cpu", row)
        (cell,) = (cell for name, cell in told.items() if name.startswith(label))
        keys = [f"{begin}/spearman{end}/log_fluorescence" for end in ("", "_low", "_high")]
        assert cell == interval(found, *keys)


def test_folds_are_the_kept_ones() -> None:
    rows = {
        row: metrics("remote_homology_cpu", row) for row in ("fine_tuned", "scratch", "one_hot")
    }
    family = [statistics.mean(one["family/top1"] for one in found) for found in rows.values()]
    assert (
        "pretrained {} on the family split (3 seeds), from scratch {}, one-hot {}".format(
            *(f"{value:.3f}"[1:] for value in family)
        )
        in SECTION
    )
    for one in [one for found in rows.values() for one in found]:
        assert one["fold/top1"] <= one["baseline/majority/fold/top1"]
        assert f"({one['baseline/majority/fold/top1']:.3f})".replace("0.", ".") in SECTION
        half = (one["family/top1_high"] - one["family/top1_low"]) / 2
        assert f"± {half:.2f}".replace("0.", ".") in SECTION


PEERS = (
    "transformers BERT",
    "transformers ESM",
    "transformers BERT, by length",
    "ours, padded by length",
)


def test_speed_is_what_the_benchmark_measured() -> None:
    record = json.loads((ROOT / "experiments/benchmarks/proteins.json").read_text())
    assert not record["dirty"]
    assert not record["quick"]
    section = README.split("## Speed of the proteins' encoder")[1].split("\n## ")[0]
    by_what: dict[str, dict[str, dict[str, float]]] = {}
    for row in record["comparisons"]:
        by_what.setdefault(row["what"], {})[row["against"]] = row
    assert len(by_what) == 10
    speeds = {
        row["what"]: row["tokens_per_second"]
        for row in record["speeds"]
        if row["system"] == "ours, packed"
    }
    for what, against in by_what.items():
        cells = [
            f"{found['ratio']:.2f} ({found['low']:.2f}-{found['high']:.2f})"
            if (found := against.get(name))
            else ""
            for name in PEERS
        ]
        first = against["transformers BERT"]
        verdict = "met" if first["ratio"] <= first["target"] else "missed"
        shown = [what.removesuffix(", training step"), *cells, f"{speeds[what]:,.0f}"]
        shown.append(f"{first['target']:.2f}: {verdict}")
        assert re.sub(" +", " ", f"| {' | '.join(shown)} |") in section
    equal = [of for what, of in by_what.items() if "Swiss-Prot" not in what]
    slower = [of["transformers BERT"]["ratio"] > 1 for of in equal]
    assert (sum(slower), len(slower)) == (5, 8), "five of eight rows"
    assert max(of["transformers ESM"]["ratio"] for of in by_what.values()) < 1, "no row over ESM"


def test_shards_are_what_the_benchmark_measured() -> None:
    record = json.loads((ROOT / "experiments/benchmarks/proteins.json").read_text())["shards"]
    section = README.split("## Speed of the proteins' encoder")[1].split("\n## ")[0]
    for row in record["speed"]:
        assert (
            f"{row['sequences_per_second']:,.0f} ({row['low']:,.0f}-{row['high']:,.0f})" in section
        )
    memory = record["memory"]
    for step in ("prepare", "stream"):
        few, many = (memory[f"{step}_megabytes_{size}"] for size in ("few", "many"))
        assert f"{few:,.0f} and {many:,.0f} MB" in section
        assert memory[f"{step}_growth_megabytes"] <= memory["target"]
