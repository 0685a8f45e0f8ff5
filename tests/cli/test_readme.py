"""What the READMEs tell a newcomer to type composes, and what they claim is in the result files."""

import json
import re
import shlex
import statistics
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir

from lit_seqlm.config import register

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
COMMANDS = re.findall(r"^python run\.py(.*?)(?:#.*)?$", README, re.MULTILINE)


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_composes(command: str) -> None:
    overrides = [word for word in shlex.split(command) if word != "-m"]
    single = [
        re.sub(r",.*", "", word) if "," in word and "[" not in word else word for word in overrides
    ]
    register()
    with initialize_config_dir(version_base="1.3", config_dir=str(ROOT / "conf")):
        assert compose("config", overrides=single).name


def test_there_are_commands() -> None:
    assert len(COMMANDS) >= 7


def test_every_make_target_exists() -> None:
    makefile = (ROOT / "Makefile").read_text()
    for target in re.findall(r"make (\w+)", README):
        assert f"\n{target}:" in makefile, target


@pytest.mark.parametrize("page", [*sorted(ROOT.glob("*/README.md")), ROOT / "README.md"], ids=str)
def test_links_lead_somewhere(page: Path) -> None:
    for link in re.findall(r"\]\((?!http)([^)#]+)\)", page.read_text()):
        assert (page.parent / link).exists(), link


def test_speed_is_what_the_benchmark_measured() -> None:
    record = json.loads((ROOT / "experiments/benchmarks/text.json").read_text())
    assert not record["dirty"]
    assert not record["quick"]
    section = README.split("## Speed")[1].split("\n## ")[0]
    rows = [line for line in section.splitlines() if re.search(r"\d\.\d\d \(", line)]
    aimed = [row for row in record["comparisons"] if row["target"]]
    assert len(rows) == len(aimed)
    for row in aimed:
        against = row["against"].replace("plain", "the same without")
        verdict = "met" if row["ratio"] <= row["target"] else "missed"
        spread = f"{row['ratio']:.2f} ({row['low']:.2f}-{row['high']:.2f})"
        line = f" | {against} | {spread} | {row['target']} | {verdict} | {row['repetitions']} |"
        assert any(shown.endswith(line) for shown in rows), line
    peaks = {round(entry["megabytes"]) for entry in record["peak_memory"]}
    for number in re.findall(r"([\d,]+)(?: MB| and\n)", section):
        assert int(number.replace(",", "")) in peaks, number


def test_the_demos_output_is_that_of_its_kept_results() -> None:
    """The block on the first screen, against the result files of the run that it shows."""
    block = README.split("```")[3]
    paths = sorted((ROOT / "experiments/demo/results/shown").glob("*.json"))
    assert len(paths) == 2
    for path in paths:
        record, row = json.loads(path.read_text()), path.stem.partition("-")[0]
        metrics = ", ".join(
            f"{key} {record['metrics'][key]:.2f}" for key in ("test/ppl", "val/ppl")
        )
        line = (
            f"{row}, seed 1: done, {metrics}, {record['wall_seconds']:.0f} s, outputs/demo/seed_1"
        )
        assert line in block
        assert re.search(
            rf"^ {row} +{record['metrics']['test/ppl']:.2f} \(1\) ", block, re.MULTILINE
        )


RENDERED = (ROOT / "experiments/wang2019_adversarial/README.md").read_text()


def rendered(label: str) -> list[str]:
    """The cells of a row of the rendered page."""
    (line,) = [line for line in RENDERED.splitlines() if line.startswith(f"| {label} |")]
    return [cell.strip() for cell in line.strip("|").split("|")]


@pytest.mark.parametrize(
    ("line", "label"),
    [
        ("LSTM of Zaremba et al. 2014, small", "small, 2 x 200"),
        ("tied LSTM 2 x 200, 6 epochs (pytorch/examples)", "base, dropout 0.2, 6 epochs"),
    ],
)
def test_perplexities_are_the_rendered_ones(line: str, label: str) -> None:
    published, here = re.search(
        rf"^\| {re.escape(line)} \| (\S+) \| (\S+) \(1 seed\)", README, re.M
    ).groups()
    paper, *measured = [re.findall(r"\d+\.\d+", cell) for cell in rendered(label)[1:4]]
    assert published == paper[-1]
    assert [here] in [numbers[-1:] for numbers in measured]


@pytest.mark.parametrize("radius", ["0.005", "0.03", "0.1"])
def test_effects_are_the_rendered_ones(radius: str) -> None:
    (line,) = [line for line in README.splitlines() if re.match(rf"\| radius {radius}[ ,]", line)]
    effects = [
        rendered(f"{dropout}, + half an epoch, radius {radius}")[3].removesuffix(" (3)")
        for dropout in ("dropout 0.2", "no dropout")
    ]
    assert line.endswith(f"| {effects[0]} / {effects[1]} |")


RESULTS = ROOT / "experiments"
STREAMS = {
    "Penn Treebank, its own domain": "penn_treebank",
    "WikiText-2, documents in order": "wikitext2_documents",
    "WikiText-2, sentences shuffled": "wikitext2_sentences",
    "Reuters 1987, by date": "reuters_documents",
    "Reuters 1987, sentences shuffled": "reuters_sentences",
    "Brown 1961, documents in order": "brown_documents",
}


def metrics_of(path: str) -> dict[str, float]:
    return json.loads((RESULTS / f"{path}-seed_1.json").read_text())["metrics"]


def interval(found: dict[str, float], name: str) -> str:
    low, high = (f"{found[f'test/change_{name}_{end}']:+.1f}" for end in ("low", "high"))
    return f"{found[f'test/change_{name}']:+.1f} % ({low} to {high})"


@pytest.mark.parametrize("label", STREAMS)
def test_streams_are_the_kept_results(label: str) -> None:
    found = metrics_of(f"grave2017_unbounded_cache/results/streams/{STREAMS[label]}")
    ways = ("static", "unigram", "local", "unbounded", "all")
    numbers = [f"{found[f'test/ppl_{way}']:.1f}" for way in ways]
    cells = [label, *numbers, interval(found, "unbounded_over_local")]
    assert f"| {' | '.join(cells)} |" in README.splitlines()


@pytest.mark.parametrize(("label", "row"), [("Penn Treebank", "ptb"), ("WikiText-2", "wikitext2")])
def test_the_local_caches_gain_is_the_kept_one(label: str, row: str) -> None:
    found = metrics_of(f"grave2016_continuous_cache/results/cpu/{row}_local")
    values = [f"{found[f'test/ppl_{way}']:.2f}" for way in ("static", "local")]
    line = f"| {label} | {' | '.join(values)} | {interval(found, 'local')} |"
    assert any(shown.startswith(line) for shown in README.splitlines())


def test_speed_of_the_memories_is_what_the_benchmark_measured() -> None:
    record = json.loads((ROOT / "experiments/benchmarks/cache.json").read_text())
    assert not record["dirty"]
    assert not record["quick"]
    section = README.split("## Speed of the memories")[1].split("\n## ")[0]
    for row in record["comparisons"]:
        verdict = "met" if row["target"] and row["ratio"] <= row["target"] else "missed"
        spread = f"{row['ratio']:.3g} ({row['low']:.3g}-{row['high']:.3g})"
        aim = f"{row['target']} | {verdict}" if row["target"] else " | "
        assert f"| {spread} | {aim} | {row['repetitions']} |" in section, row["what"]
    rates = [record["local"][f"tokens_per_second_{name}"] for name in ("static", "local")]
    rates += [record[f"unbounded_{n}"]["codes alone"]["tokens_per_second"] for n in (10**5, 10**6)]
    for rate in rates:
        assert f"{rate:,.0f}" in section
    plain = record["local"]["tokens_per_second_plain"]
    assert f"{plain:.1f} with the plain pointer" in section
    assert f"{rates[1] / plain:,.0f} times as fast" in section
    assert f"{record['codes']['bytes_resident'] / 2**30:.2f} GiB" in section


def test_what_the_streams_table_says_without_unk_is_in_its_result_file() -> None:
    found = metrics_of("grave2017_unbounded_cache/results/streams/wikitext2_documents")
    numbers = [
        f"{found[f'test/ppl_{w}_without_unk']:,.0f}" for w in ("static", "local", "unbounded")
    ]
    page = (RESULTS / "grave2017_unbounded_cache/README.md").read_text()
    assert f"static / local / unbounded are {' / '.join(numbers)} in" in page


def spread(rows: list[dict[str, float]], name: str) -> str:
    values = [row[name] for row in rows]
    mean = f"{statistics.mean(values):.5f}"
    return f"{mean} ± {statistics.stdev(values):.5f}" if len(values) > 1 else mean


def molecules(table: str, row: str) -> list[dict[str, float]]:
    files = sorted((RESULTS / f"ross2022_molformer/results/{table}").glob(f"{row}-seed_*.json"))
    return [json.loads(file.read_text())["metrics"] for file in files]


@pytest.mark.parametrize(
    ("label", "row"), [("fine-tuned, 3 seeds", "finetuned"), ("from scratch, 3 seeds", "scratch")]
)
def test_errors_on_qm8_are_the_kept_ones(label: str, row: str) -> None:
    found = molecules("qm8_cpu", row)
    assert len(found) == 3
    assert f"| {label} | {spread(found, 'test/avg_mae_paper')} |" in README


def test_the_gain_of_pretraining_is_the_kept_one() -> None:
    pairs = zip(molecules("qm8_cpu", "finetuned"), molecules("qm8_cpu", "scratch"), strict=True)
    name = "test/avg_mae_paper"
    gains = [100 * (1 - tuned[name] / scratch[name]) for tuned, scratch in pairs]
    said = f"takes {statistics.mean(gains):.1f} ± {statistics.stdev(gains):.1f} % off"
    assert said in README


def test_the_control_without_their_strings_is_the_kept_one() -> None:
    (control,), scratch = (
        molecules("qm8_cpu", "finetuned_moses"),
        molecules("qm8_cpu", "scratch")[0],
    )
    name = "test/avg_mae_paper"
    assert f"the gain is {100 * (1 - control[name] / scratch[name]):.1f} % (1 seed)" in README


def test_frozen_and_simple_rows_of_qm8_are_the_kept_ones() -> None:
    name = "test/avg_mae_paper"
    head = spread(molecules("qm8_cpu", "frozen_head"), name)
    (ridge,), (trees,) = molecules("qm8_cpu", "frozen"), molecules("qm8_cpu", "extra_trees")
    assert f"| {head} / {ridge[name]:.5f} |" in README
    tuned = molecules("qm8_cpu", "finetuned")[0]
    forest = trees["baseline/extra_trees_fingerprint/avg_mae_paper"]
    assert f"| {forest:.5f} / {tuned['baseline/ridge_fingerprint/avg_mae_paper']:.5f} |" in README


def test_errors_on_qm9_are_the_kept_ones() -> None:
    (found,) = molecules("qm9_cpu", "finetuned")
    names = [key.split("/")[-1] for key in found if key.startswith("test/mae/")]
    assert len(names) == 12
    for name in names:
        (line,) = re.findall(rf"^\| {name}, \S+ \| (.*) \|$", README, re.M)
        own, ridge, atoms, _ = line.split(" | ")
        digits = len(own.partition(".")[2])
        for shown, key in (
            (own, "test"),
            (ridge, "baseline/ridge_fingerprint"),
            (atoms, "baseline/ols_covariates"),
        ):
            assert shown == f"{found[f'{key}/mae/{name}']:.{digits}f}"
        assert float(own) < float(ridge), "better than ridge on every measure"


def test_speed_of_the_molecules_encoder_is_what_the_benchmark_measured() -> None:
    record = json.loads((ROOT / "experiments/benchmarks/molecules.json").read_text())
    assert not record["dirty"]
    assert not record["quick"]
    section = README.split("## Speed of the molecules' encoder")[1].split("\n## ")[0]
    by_what: dict[str, dict[str, dict[str, float]]] = {}
    for row in record["comparisons"]:
        by_what.setdefault(row["what"], {})[row["against"]] = row
    assert section.count("(") - section.count("](") >= 2 * len(by_what)
    for what, against in by_what.items():
        label = re.sub(r"^linear_encoder(_cpu)?, ", lambda m: "" if m[1] else "model, ", what)
        spreads = [
            f"{row['ratio']:.2f} ({row['low']:.2f}-{row['high']:.2f})" for row in against.values()
        ]
        (line,) = [line for line in section.splitlines() if line.startswith(f"| {label} |")]
        names = ("fast-transformers", "transformers BERT", "its matrix products alone")
        for name in names:
            if name in against:
                assert spreads[list(against).index(name)] in line, (what, name)
        first = against["fast-transformers"]
        verdict = "met" if first["ratio"] <= first["target"] else "missed"
        assert line.endswith(f"| {first['target']:.2f}: {verdict} |")
    floors = [of["its matrix products alone"]["ratio"] for of in by_what.values() if len(of) > 3]
    assert f"takes {min(floors):.2f} to {max(floors):.2f} times as long" in section
    for numbers in (record["batches"][f"{name}, training step"] for name in ("QM9", "MOSES")):
        for share in (numbers["padding_ours"], numbers["padding_peers"]):
            assert f"{100 * share:.1f} %" in section
    assert (
        f"{record['tokens']['molecules_per_minute'] / 1e6:.1f} million molecules a minute"
        in section
    )
    embed = json.loads((ROOT / "experiments/benchmarks/molecules_embed.json").read_text())
    assert not embed["dirty"]
    for size in ("few", "many"):
        peak = f"{embed['embed'][f'megabytes_{size}']:,.0f} MB for {embed['embed'][size]:,}"
        assert peak in section
    before = [f"{record['embed'][f'megabytes_{size}']:,.0f}" for size in ("few", "many")]
    assert f"it was {' and '.join(before)} MB" in section


def test_the_ablations_differences_are_the_kept_ones() -> None:
    name, said = "test/avg_mae_paper", []
    for kind in ("full", "linear"):
        pairs = [
            molecules("ablations_cpu", f"{kind}_{p}_finetuned") for p in ("rotary", "absolute")
        ]
        worse = [100 * (b[name] / a[name] - 1) for a, b in zip(*pairs, strict=True)]
        said.append(f"{statistics.mean(worse):.1f} ± {statistics.stdev(worse):.1f} %")
    assert f"loses {said[0]} without rotary positions, linear attention {said[1]}" in README
    (full,), (linear,) = (
        molecules("ablations_cpu", f"{kind}_rotary") for kind in ("full", "linear")
    )
    assert f"perplexity {full['test/ppl']:.2f} against {linear['test/ppl']:.2f}" in README
