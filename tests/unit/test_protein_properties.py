"""Labelled proteins: variants of one protein, TAPE's files, a package's sets, a user's table."""

import csv
import json
import logging
import os
import pickle
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hydra import compose, initialize_config_dir
from scipy import stats

from lit_seqlm.config import CONF, build, register
from lit_seqlm.data.audit import audit
from lit_seqlm.data.baselines import Baselines
from lit_seqlm.data.corpus import SPLITS
from lit_seqlm.data.label_rows import LabelRows
from lit_seqlm.data.properties import PropertyData
from lit_seqlm.data.proteins import aaanalysis_sets
from lit_seqlm.data.proteins.aaanalysis_sets import (
    RESIDUE_SETS,
    SEQUENCE_SETS,
    AaanalysisResidues,
    AaanalysisSet,
    residue_labels,
)
from lit_seqlm.data.proteins.features import Positions, composition
from lit_seqlm.data.proteins.gfp import BRIGHTNESS, WILD_TYPE, Gfp, mutated
from lit_seqlm.data.proteins.protein_table import ProteinTable
from lit_seqlm.data.proteins.reading import Reading
from lit_seqlm.data.proteins.tape_properties import TapeProperty
from lit_seqlm.data.splits import Fractions, distinct_split
from lit_seqlm.errors import UserError
from lit_seqlm.metrics.regression import RegressionMetrics, error_intervals
from lit_seqlm.tokenizer.amino_acid import STANDARD, AminoAcidTokenizer

TOKENIZER = AminoAcidTokenizer("cls", "keep", False)
HEADER = "sequence,heat,charge\n"
PROTEINS = ["".join(STANDARD[(3 * n + i * i) % 20] for i in range(5 + n % 7)) for n in range(60)]
Write = Callable[[str], Path]


def data_of(source: Any, **changes: Any) -> PropertyData:
    options: dict[str, Any] = {
        "target": "all", "batching": "exact_length", "batch_size": 4, "token_budget": 64, "window": 32, "multiple": 8,
        "eval_batch_size": 5, "max_len": 510, "over_long": "truncate", "num_train": None, "augment": "none", "seed": 1,
    }  # fmt: skip
    return PropertyData(source, changes.pop("tokenizer", TOKENIZER), **{**options, **changes})


def table_of(path: Path, **changes: Any) -> ProteinTable:
    options: dict[str, Any] = {
        "sequence_column": "sequence", "target_columns": ["heat", "charge"], "kind": "regression", "unit": "C",
        "cut": None, "split": "random", "split_column": "split", "valid_fraction": 0.2, "test_fraction": 0.2,
        "split_seed": 0, "repeats": "error", "stop": "error", "illegal": "error", "features": "composition",
    }  # fmt: skip
    return ProteinTable(str(path), **{**options, **changes})


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def written(text: str) -> Path:
        path = tmp_path / "proteins.csv"
        path.write_text(text)
        return path

    return written


@pytest.fixture
def proteins(write: Write) -> Path:
    rows = [f"{one},{row},{-row}" for row, one in enumerate(PROTEINS, start=1)]
    return write(HEADER + "\n".join(rows) + "\n")


# The source of all


def test_a_table_keeps_its_labels_and_no_sequence_is_in_two_splits(write: Write) -> None:
    rows = [f"{one},{row},{-row}" for row, one in enumerate([*PROTEINS, *PROTEINS], start=1)]
    data = data_of(table_of(write(HEADER + "\n".join(rows))))
    data.setup()
    whole = [*PROTEINS, *PROTEINS]
    seen: dict[str, set[str]] = {}
    for split in SPLITS:
        table = data.tables[split]
        for place, row in enumerate(table.rows_N):
            assert table.written[place] == table.sequences[place] == whole[row - 1]
            assert table.labels_NK[place].tolist() == [row, -row]
            assert table.covariates_NC[place].tolist() == [len(whole[row - 1])]
            assert data.tokenizer.decode(table.tokens[place]) == whole[row - 1]
        seen[split] = set(table.sequences)
    assert sum(len(data.tables[split]) for split in SPLITS) == 120
    assert not seen["train"] & seen["test"] | seen["valid"] & (seen["train"] | seen["test"])
    assert len(data.tables["test"]) >= 24


@pytest.mark.parametrize("seed", [0, 1])
def test_a_split_of_distinct_sequences_is_a_partition(seed: int) -> None:
    words = [str(number) for number in np.random.default_rng(seed).integers(0, 50, 200)]
    parts = distinct_split(words, Fractions(0.1, 0.2), seed)
    assert sorted(np.concatenate(list(parts.values())).tolist()) == list(range(200))
    of = {split: {words[place] for place in places} for split, places in parts.items()}
    assert not of["train"] & of["valid"] | of["train"] & of["test"] | of["valid"] & of["test"]
    biggest = max(Counter(words).values())
    assert 40 <= len(parts["test"]) < 40 + biggest
    assert 20 - biggest < len(parts["valid"]) < 20 + biggest
    again = distinct_split(words, Fractions(0.1, 0.2), seed)
    assert all((parts[split] == again[split]).all() for split in SPLITS)


def test_sequences_of_one_length_are_never_padded(write: Write) -> None:
    rows = [f"{one[:5]},{row},1" for row, one in enumerate(PROTEINS)]
    data = data_of(table_of(write(HEADER + "\n".join(rows)), repeats="keep"))
    data.setup()
    batches = list(data.train_dataloader())
    assert all(batch.valid_BT is None for batch in batches)
    assert sum(len(batch.tokens_BT) for batch in batches) == len(data.tables["train"])


@pytest.mark.parametrize(
    ("body", "changes", "message"),
    [
        ("MKV1,1,2\n", {}, r"row 1: '1' at position 4 is no residue"),
        ("MKV,1,2\nM-V,1,2\n", {}, "row 2: '-' at position 2.* say data.tokenizer.gapped=true"),
        ("MKV,1,2\n,1,2\n", {}, "row 2: the sequence is empty.*illegal=drop"),
        ("MKV,1,2\nM*V,1,2\n", {}, "row 2: .*data.source.stop=truncate"),
        ("MKV,1,2\nMKV,hot,2\n", {}, "row 2, column 'heat': 'hot' is no number"),
        ("MKV,1,2\nMKV,inf,2\n", {}, "row 2, column 'heat': inf"),
        ("MKV,1,2\nmkv,1,2\n", {}, r"row 2 repeats row 1: the same protein \(MKV\).*repeats=drop"),
        ("", {}, "no rows"),
        ("MKV,1,2\n", {"kind": "classification"}, "a class is 0 or 1"),
        ("MKV,1,2\n", {"split": "scaffold_strict"}, "data.source.split=scaffold_strict"),
        ("MKV,1,2\n", {"split": "column"}, "no column 'split'"),
        ("MKV,1,2\n", {"features": "ecfp"}, "choose composition or positions"),
        ("MKV,1,2\n", {"stop": "go"}, "choose error, truncate, x, drop"),
        ("MKV,1,2\n", {"illegal": "x"}, "choose error, drop"),
        ("MKV,1,2\n", {"target_columns": []}, "Name one column"),
        ("MKV,1,2\n", {"target_columns": ["heat", "sequence"]}, "sequence_column, split_column"),
        ("MKV,1,2\nMKL,1,2\n", {"split_seed": 1}, "no row is left"),
    ],
)
def test_a_mistake_names_its_row(
    write: Write, body: str, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        data_of(table_of(write(HEADER + body), **changes)).setup()


def test_a_file_that_is_no_table_is_refused(tmp_path: Path) -> None:
    with pytest.raises(
        UserError, match=r"no such file. Give a CSV file with a column of sequences"
    ):
        table_of(tmp_path / "none.csv").digest()
    (tmp_path / "a.fasta").write_text(">a\nMKV\n")
    with pytest.raises(UserError, match=r"labels are read from .csv, .tsv, .parquet"):
        data_of(table_of(tmp_path / "a.fasta")).prepare_data()


def test_nothing_is_left_out_in_silence(write: Write, caplog: pytest.LogCaptureFixture) -> None:
    good = "".join(f"{one},{row},1\n" for row, one in enumerate(PROTEINS, start=5))
    bad = "MK!V,1,2\nM*V,1,2\nMKV,,\nMBV,3,3\n"
    path = write(HEADER + bad + good)
    tokenizer = AminoAcidTokenizer("cls", "drop", False)
    data = data_of(table_of(path, illegal="drop", stop="drop"), tokenizer=tokenizer)
    with caplog.at_level(logging.WARNING):
        data.setup()
    gone = {row: reason for split in SPLITS for row, reason in data.dropped[split]}
    assert gone == {
        1: "'!' at position 3 is no residue", 2: "a stop at position 2", 3: "no label",
        4: "'B' at position 2 is ambiguous",
    }  # fmt: skip
    assert sum(len(data.tables[split]) for split in SPLITS) + len(gone) == 64
    assert "row 1: '!' at position 3 is no residue" in caplog.text


def test_a_long_protein_is_cut_and_told(proteins: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        data = data_of(table_of(proteins), max_len=6)
        data.setup()
    assert "sequences are cut after 6 tokens" in caplog.text
    assert max(table.tokens.lengths.max() for table in data.tables.values()) == 7


def test_a_protein_has_one_way_to_be_written(proteins: Path) -> None:
    with pytest.raises(UserError, match=r"data=protein_table data.augment=enumerate: .* one way"):
        data_of(table_of(proteins), augment="enumerate")


def test_rows_say_their_own_split_and_targets_their_own_cut(write: Write) -> None:
    rows = [f"{one},{row},0,{SPLITS[row % 3]}" for row, one in enumerate(PROTEINS)]
    path = write("sequence,heat,charge,split\n" + "\n".join(rows))
    data = data_of(table_of(path, split="column", target_columns="heat", cut=30.0))
    data.setup()
    for place, split in enumerate(SPLITS):
        assert data.tables[split].labels_NK[:, 0].tolist() == list(range(place, 60, 3))
    metric = RegressionMetrics(data.targets)
    said = torch.arange(60, dtype=torch.float64)[:, None]
    metric.update(said, said.flip(0), torch.arange(60))
    assert metric.compute()["spearman_above/heat"] == -1


def test_the_audit_has_no_scaffolds_of_proteins(write: Write) -> None:
    sequences = [*PROTEINS[:3], "MBV", "MXV", PROTEINS[0]]
    marks = ["train", "train", "valid", "train", "test", "test"]
    rows = [
        f"{one},1,{n},{mark}" for n, (one, mark) in enumerate(zip(sequences, marks, strict=True))
    ]
    path = write("sequence,heat,charge,split\n" + "\n".join(rows))
    found = audit(data_of(table_of(path, split="column")))
    assert (found.exact_duplicates, found.merged_duplicates) == (1, 2)
    told = "\n".join(found.lines())
    assert "scaffold" not in told
    assert "stereo" not in told
    assert "B Z U O and X overlooked" in told
    assert "words" not in found.as_dict()


# What is not written in residues alone


@pytest.mark.parametrize(
    ("stop", "written", "expected"),
    [
        ("truncate", "MK*VA", "MK"),
        ("truncate", "MK*V*A*", "MK"),
        ("truncate", "MKV*", "MKV"),  # the end of a chain is no mutation
        ("truncate", "*MK", None),
        ("x", "MK*V*", "MKXV"),
        ("x", "m k\n*v", "MKXV"),
        ("drop", "MK*V", None),
        ("drop", "MKV*", "MKV"),
        ("error", "MK*V", None),
        ("error", "MKV*", "MKV"),
        ("truncate", "M1*V", None),
        ("truncate", "", None),
    ],
)
def test_stops(stop: str, written: str, expected: str | None) -> None:
    reading = Reading(stop, "error")
    found = reading.read(written, "keep", False)
    assert found.sequence == expected
    is_stop = written in ("*MK", "MK*V") and stop != "error"
    assert reading.is_error(found) == (expected is None and not is_stop)
    assert not Reading(stop, "drop").is_error(found)


# Features


def test_composition_counts_residues_and_neighbours() -> None:
    sequences = ["MKVM", "AAXA", "B", "MMMM"]
    found = composition(sequences).toarray()
    names = [*STANDARD, *(one + two for one in STANDARD for two in STANDARD)]
    for row, sequence in enumerate(sequences):
        wanted = Counter(sequence) + Counter(map("".join, pairwise(sequence)))
        assert found[row].tolist() == [wanted[name] for name in names]


def test_positions_tell_variants_apart() -> None:
    whole = ["MKVA", "MKVC", "MAVA", "MK"]
    positions = Positions(whole)
    pairs = sorted({(place, one) for sequence in whole for place, one in enumerate(sequence)})
    asked = ["MKVA", "MK", "QKVCC"]
    wanted = [[int(place < len(s) and s[place] == one) for place, one in pairs] for s in asked]
    assert positions(asked).toarray().tolist() == wanted
    rng = np.random.default_rng(0)
    different = ["".join(rng.choice(list(STANDARD), 400)) for _ in range(300)]
    with pytest.raises(UserError, match=r"features=positions: 8,000 .*features=composition"):
        Positions(different)


def test_simple_models_learn_what_variants_differ_in(write: Write) -> None:
    """An additive landscape is ridge's to the last digit."""
    rng = np.random.default_rng(0)
    effects = rng.normal(size=(6, 20))
    rows = []
    for _ in range(300):
        numbers = rng.integers(0, 4, 6)
        rows.append(f"{''.join(STANDARD[n] for n in numbers)},{effects[range(6), numbers].sum()},0")
    source = table_of(write(HEADER + "\n".join(rows)), features="positions", repeats="keep",
                      target_columns="heat")  # fmt: skip
    data = data_of(source)
    found = Baselines(
        ["ridge_fingerprint", "ols_covariates"], "validated", 5, None, 0, None
    ).predictions(data)
    labels_N = data.tables["test"].labels_NK[:, 0]
    assert stats.spearmanr(found["ridge_fingerprint"][:, 0], labels_N).statistic > 0.999
    assert np.ptp(found["ols_covariates"]) < 1e-9, "all are of one length"


# The numbers


def test_both_sides_of_a_cut_are_scored_as_scipy_does() -> None:
    rng = np.random.default_rng(0)
    labels_N = rng.choice([1.3, 2.0, 2.5, 3.7], 200) + rng.normal(size=200).round(1) / 10
    said_N = labels_N + rng.normal(size=200)
    metric = RegressionMetrics([BRIGHTNESS])
    for rows in np.array_split(rng.permutation(200), 7):
        values = [torch.from_numpy(of[rows])[:, None] for of in (said_N, labels_N)]
        metric.update(*values, torch.from_numpy(rows))
    found = metric.compute()
    for side, part in (("", labels_N > 0), ("_above", labels_N > 2), ("_below", labels_N <= 2)):
        rho = stats.spearmanr(said_N[part], labels_N[part]).statistic
        error = said_N[part] - labels_N[part]
        assert found[f"spearman{side}/log_fluorescence"] == pytest.approx(rho, abs=1e-12)
        assert found[f"mse{side}/log_fluorescence"] == pytest.approx((error**2).mean(), abs=1e-12)
        assert found[f"mae{side}/log_fluorescence"] == pytest.approx(abs(error).mean(), abs=1e-12)


@pytest.mark.parametrize("digits", [1, 9])
def test_intervals_are_of_rows_drawn_by_hand(digits: int) -> None:
    """Ties and none; of each sample what SciPy says of the very rows that were drawn."""
    rng = np.random.default_rng(0)
    labels_N = (2 + rng.normal(size=150)).round(digits)
    said_N = (labels_N + rng.normal(size=150)).round(digits)
    metric = RegressionMetrics([BRIGHTNESS])
    metric.update(*(torch.from_numpy(of)[:, None] for of in (said_N, labels_N)), torch.arange(150))
    found = metric.compute()
    for side, part in (("", labels_N > -9), ("_above", labels_N > 2), ("_below", labels_N <= 2)):
        said, labels, generator = said_N[part], labels_N[part], np.random.default_rng(7)
        samples = []
        for _ in range(60):
            rows = generator.integers(len(labels), size=len(labels))
            error = said[rows] - labels[rows]
            rho = stats.spearmanr(said[rows], labels[rows]).statistic
            samples.append([rho, abs(error).mean(), (error**2).mean()])
        drawn, usual = error_intervals(said, labels, 60, 7), error_intervals(said, labels)
        for name, ends in zip(
            ("spearman", "mae", "mse"), np.percentile(samples, (2.5, 97.5), axis=0).T, strict=True
        ):
            assert (drawn[name].low, drawn[name].high) == pytest.approx(ends, abs=1e-12)
            ours = [found[f"{name}{side}_{end}/log_fluorescence"] for end in ("low", "high")]
            assert ours == [usual[name].low, usual[name].high]
            assert usual[name].mean == pytest.approx(found[f"{name}{side}/log_fluorescence"])
            assert ours[0] < found[f"{name}{side}/log_fluorescence"] < ours[1]
    plain = RegressionMetrics([replace(BRIGHTNESS, measures=("mae",), cut=None)])
    plain.update(*(torch.from_numpy(of)[:, None] for of in (said_N, labels_N)), torch.arange(150))
    assert not [name for name in plain.compute() if "_low" in name or "_high" in name]


def test_intervals_where_little_is_known() -> None:
    assert error_intervals(np.ones(1), np.ones(1)) == {}
    constant = error_intervals(np.zeros(9), np.arange(9.0))
    assert set(constant) == {"mae", "mse"}
    two = error_intervals(np.arange(2.0), np.arange(2.0))["spearman"]
    assert (two.low, two.high, two.mean) == (1, 1, 1)
    right = error_intervals(np.arange(50.0), np.arange(50.0))
    assert (right["spearman"].low, right["mae"].high) == (pytest.approx(1), 0)


def test_intervals_of_tapes_whole_test_take_seconds() -> None:
    rng = np.random.default_rng(0)
    labels_N = rng.normal(size=27_217)
    start = time.process_time()
    found = error_intervals(labels_N + rng.normal(size=27_217), labels_N)["spearman"]
    assert time.process_time() - start < 20
    assert 0 < found.high - found.low < 0.03


def test_a_side_without_labels_has_no_numbers() -> None:
    metric = RegressionMetrics([BRIGHTNESS])
    metric.update(
        torch.tensor([[3.0], [3.5]]), torch.tensor([[2.5], [float("nan")]]), torch.arange(2)
    )
    found = metric.compute()
    assert found["mae_above/log_fluorescence"] == 0.5
    assert not [name for name in found if "_below" in name or name.startswith("spearman")]


# GFP

OTHER_FILE = "avGFP_aminoacid_genotypes_to_brightness.csv"


def test_mutations_are_put_where_they_say() -> None:
    assert mutated("wt", "here") == WILD_TYPE
    assert len(WILD_TYPE) == 237
    found = mutated("SA108D:SN144D:SL234*", "here")
    assert [(i, a, b) for i, (a, b) in enumerate(zip(WILD_TYPE, found, strict=True)) if a != b] == [
        (108, "A", "D"), (144, "N", "D"), (234, "L", "*"),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("genotype", "message"),
    [
        ("SC108D", "'SC108D', but A stands at 108"),
        ("SA999D", "nothing stands at 999"),
        ("A108D", "no substitution"),
        ("IA108DD", "no substitution"),
        ("", "no substitution"),
        ("SA108D;SN144D", "no substitution"),
    ],
)
def test_a_mutation_of_another_protein_is_refused(genotype: str, message: str) -> None:
    with pytest.raises(UserError, match=f"row 7: .*{message}"):
        mutated(genotype, "row 7")


def test_a_stop_counts_as_one_mutation() -> None:
    source = Gfp("nowhere", 0.2, 0, "x", "error", "positions")
    sequences = [WILD_TYPE, WILD_TYPE[:100], "A" + WILD_TYPE[1:100]]
    sequences.append("A" + WILD_TYPE[1:100] + "X" + WILD_TYPE[101:])
    assert source.covariates_of(sequences).tolist() == [[0], [1], [2], [2]]
    with pytest.raises(UserError, match="between 0 and 1"):
        Gfp("nowhere", 1.0, 0, "truncate", "error", "positions")
    with pytest.raises(UserError, match=r"data=gfp: there is no .*tsv"):
        source.fetch()


@pytest.mark.data
def test_no_other_file_of_gfp_is_asked_for(tmp_path: Path) -> None:
    place = Path("proteins/fluorescence/amino_acid_genotypes_to_brightness.tsv")
    (tmp_path / place.parent).mkdir(parents=True)
    (tmp_path / place).symlink_to(Path(os.environ["LIT_SEQLM_DATA"]).resolve() / place)
    alone = Gfp(str(tmp_path), 0.2, 0, "x", "error", "positions")
    alone.fetch()
    beside = Gfp(os.environ["LIT_SEQLM_DATA"], 0.2, 0, "x", "error", "positions")
    assert alone.digest() == beside.digest(), "the other file has no part in what is read"


@pytest.mark.data
def test_variants_of_gfp_are_those_of_the_other_file() -> None:
    """Every mutation replaces the residue that stands there; the CSV counts from 1 and says the same."""
    other_file = Path(os.environ["LIT_SEQLM_DATA"]) / "proteins/fluorescence" / OTHER_FILE
    if not other_file.is_file():
        pytest.skip(f"{OTHER_FILE}, which the program does not read, is not at hand")
    source = Gfp(os.environ["LIT_SEQLM_DATA"], 0.2, 0, "x", "error", "positions")
    tables = {split: source.table(split, TOKENIZER) for split in SPLITS}
    assert [len(tables[split]) for split in SPLITS] == [21_446, 5_362, 27_217]
    assert len(tables["train"]) + len(tables["valid"]) == 26_808
    with other_file.open(newline="") as file:
        others = list(csv.DictReader(file))
    assert len(others) == 54_025
    proved = set()
    for split, table in tables.items():
        assert not table.dropped
        for row, sequence, label in zip(
            table.rows_N, table.sequences, table.labels_NK[:, 0], strict=True
        ):
            other = others[row - 1]
            said = (
                []
                if other["aa_genotype_native"] == "wt"
                else other["aa_genotype_native"].split(":")
            )
            assert (len(said) > 3) == (split == "test")
            assert len(sequence) == 237
            found = {
                (i + 1, a, b)
                for i, (a, b) in enumerate(zip(WILD_TYPE, sequence, strict=True))
                if a != b
            }
            wanted = {(int(one[1:-1]), one[0], one[-1].replace("*", "X")) for one in said}
            assert found == wanted
            proved |= {place for place, _, _ in wanted}
            assert label == pytest.approx(float(other["log_brightness"]), abs=1e-6)
    assert set(range(1, 238)) - proved == {1, 118, 119, 237}
    num_stops = sum("*" in one for table in tables.values() for one in table.written)
    assert (
        num_stops
        == 2_310
        == sum("X" in one for table in tables.values() for one in table.sequences)
    )
    counts = tables["test"].covariates_NC[:, 0]
    assert (counts.min(), counts.max()) == (4, 15)


def source_of(name: str) -> Any:
    register()
    with initialize_config_dir(version_base="1.3", config_dir=str(CONF)):
        found = compose("config", overrides=[f"data={name}", "paths.run_dir=."])
    return build(found.data.source)


@pytest.mark.data
def test_no_variant_of_gfp_is_in_two_splits() -> None:
    """As `conf/data/gfp.yaml` has it; a covariate is the number of mutations that the file names."""
    source = source_of("gfp")
    tables = {split: source.table(split, TOKENIZER) for split in SPLITS}
    seen = {split: set(table.sequences) for split, table in tables.items()}
    assert [len(seen[split]) for split in SPLITS] == [21_446, 5_362, 27_217]
    assert not seen["train"] & seen["test"] | seen["valid"] & (seen["train"] | seen["test"])
    folder = Path(os.environ["LIT_SEQLM_DATA"]) / "proteins/fluorescence"
    with open(folder / "amino_acid_genotypes_to_brightness.tsv", newline="") as file:
        genotypes = [row["aaMutations"] for row in csv.DictReader(file, delimiter="\t")]
    for table in tables.values():
        said = [
            0 if g == "wt" else g.count(":") + 1 for g in (genotypes[n - 1] for n in table.rows_N)
        ]
        assert table.covariates_NC[:, 0].tolist() == said


@pytest.mark.parametrize("name", ["gfp", "tape_fluorescence"])
def test_variants_with_a_stop_stay_distinct(name: str) -> None:
    reading = source_of(name).reading
    written = [mutated(one, "here") for one in ("SK1*", "SK1*:SA108D")]
    assert len({reading.read(one, "keep", False).sequence for one in written}) == 2


# TAPE's files


def tape_proteins(task: str, split: str, count: int = 5) -> list[dict[str, Any]]:
    key = {"fluorescence": "log_fluorescence", "stability": "stability_score"}[task]
    rng = np.random.default_rng(list(f"{task} {split}".encode()))
    return [
        {
            "primary": "".join(rng.choice(list(STANDARD), 12)),
            "protein_length": 12,
            key: [float(rng.normal())],
            "num_mutations": 2,
            "id": str(number),
        }
        for number in range(count)
    ]


@pytest.fixture(params=["json", "lmdb"])
def tape_folder(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    for task in ("fluorescence", "stability"):
        for split in SPLITS:
            path, rows = tmp_path / f"{task}_{split}.{request.param}", tape_proteins(task, split)
            if request.param == "json":
                path.write_text(json.dumps(rows))
                continue
            lmdb = pytest.importorskip("lmdb")
            with (
                lmdb.open(str(path), subdir=False, map_size=2**20) as file,
                file.begin(write=True) as writing,
            ):
                for number, row in enumerate(rows):
                    arrays = {
                        k: np.array(v, np.float32) if isinstance(v, list) else v
                        for k, v in row.items()
                    }
                    writing.put(str(number).encode(), pickle.dumps(arrays))
                writing.put(b"num_examples", pickle.dumps(len(rows)))
    return tmp_path


def tape_of(folder: Path, task: str, **changes: Any) -> TapeProperty:
    options = {"stop": "truncate", "illegal": "error", "features": "composition"} | changes
    return TapeProperty(str(folder), ".", task, **options)


@pytest.mark.parametrize("task", ["fluorescence", "stability"])
def test_tapes_own_files(tape_folder: Path, task: str) -> None:
    data = data_of(tape_of(tape_folder, task))
    data.prepare_data()
    data.setup()
    key = data.targets[0].name
    for split in SPLITS:
        table, rows = data.tables[split], tape_proteins(task, split)
        assert table.sequences == [row["primary"] for row in rows]
        assert table.labels_NK[:, 0] == pytest.approx([row[key][0] for row in rows], rel=1e-6)
        assert table.rows_N.tolist() == [1, 2, 3, 4, 5]
    assert data.targets[0].cut == (2.0 if task == "fluorescence" else None)
    assert len(data.fingerprint()) == 16


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"stability_score": [1.0, 2.0]}, "valid, 3: 'stability_score' is not one finite number"),
        (
            {"stability_score": [float("inf")]},
            "valid, 3: 'stability_score' is not one finite number",
        ),
        ({"stability_score": "high"}, "no array of numbers"),
        ({"stability_score": None}, "valid, 3: 'stability_score' is not one finite number"),
        ({"stability_score": [None]}, "valid, 3: 'stability_score' is not one finite number"),
        ({"stability_score": float("nan")}, "valid, 3: 'stability_score' is not one finite"),
        ({"stability_score": [True]}, "valid, 3: 'stability_score' is not one finite number"),
        ({"primary": None}, "valid, row 4: the sequence is empty"),
        ({"primary": True}, "valid, 3: 'primary' is True; a sequence is a text"),
        ({"primary": "MK2"}, "valid, row 4: '2' at position 3"),
        ({"primary": ""}, "valid, row 4: the sequence is empty"),
    ],
)
def test_a_bad_protein_of_tape_is_named(
    tmp_path: Path, change: dict[str, Any], message: str
) -> None:
    for split in SPLITS:
        rows = tape_proteins("stability", split)
        rows[3] |= change if split == "valid" else {}
        (tmp_path / f"stability_{split}.json").write_text(json.dumps(rows))
    with pytest.raises(UserError, match=message):
        data_of(tape_of(tmp_path, "stability")).setup()


def test_what_is_missing_of_tape_is_told(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"data=tape_stability: there is no stability_train.lmdb"):
        tape_of(tmp_path, "stability").fetch()
    with pytest.raises(UserError, match=r"data.source.task=stabilty: .*stability"):
        tape_of(tmp_path, "stabilty")
    rows = tape_proteins("stability", "train")
    del rows[0]["stability_score"]
    (tmp_path / "stability_train.json").write_text(json.dumps(rows))
    with pytest.raises(UserError, match=r"train, 0: it has no 'stability_score'. It has: id, num"):
        tape_of(tmp_path, "stability").read()


# The package


class Unchecked:
    """Tables in the place of the published ones, whatever they hold."""

    def __init__(self, entry: str, name: str, data_dir: str):
        self.folder = Path(data_dir)

    def fetch(self) -> None: ...

    def __getitem__(self, file: str) -> Path:
        return self.folder / file


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "aaanalysis"
    folder.mkdir()
    (folder / "__init__.py").write_text("raise AssertionError('it is imported')")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(aaanalysis_sets, "PublishedFiles", Unchecked)
    return folder


def set_of(name: str, **changes: Any) -> AaanalysisSet:
    options: dict[str, Any] = {"part": "whole", "valid_fraction": 0.2, "test_fraction": 0.2, "split_seed": 0,
                               "stop": "error", "illegal": "drop", "features": "composition"}  # fmt: skip
    return AaanalysisSet(name, **{**options, **changes})


def test_a_packaged_set_is_read_without_the_package(package: Path) -> None:
    rows = [f"A_{n}\tname_{n}\t{one}\t{n % 2}" for n, one in enumerate(PROTEINS)]
    rows[7] = "A_7\tname_7\tMK!V\t1"
    (package / "SEQ_TAIL.tsv").write_text("entry\tgene\tsequence\tlabel\n" + "\n".join(rows))
    data = data_of(set_of("SEQ_TAIL"))
    data.prepare_data()
    data.setup()
    assert data.kind == "classification"
    assert [target.name for target in data.targets] == ["tail"]
    labels = {
        s: data.tables[x].labels_NK[i, 0]
        for x in SPLITS
        for i, s in enumerate(data.tables[x].sequences)
    }
    assert labels == {one: n % 2 for n, one in enumerate(PROTEINS) if n != 7}
    assert [tuple(one) for one in data.dropped["train"]] == [(8, "'!' at position 3 is no residue")]


def test_a_domain_is_the_segment_and_its_flanks(package: Path) -> None:
    head = "entry\tgene\tsequence\tlabel\ttmd_start\ttmd_stop\tjmd_n\ttmd\tjmd_c\n"
    rows = [f"{n}\tg\tMMM{one}MMM\t{n % 2}\t4\t9\tAA\t{one}\tCC" for n, one in enumerate(PROTEINS)]
    (package / "DOM_GSEC.tsv").write_text(head + "\n".join(rows))
    found: LabelRows = set_of("DOM_GSEC", part="domain").read()
    assert found.sequences == [f"AA{one}CC" for one in PROTEINS]
    assert set_of("DOM_GSEC").read().sequences == [f"MMM{one}MMM" for one in PROTEINS]


def test_labelled_residues_of_the_package(package: Path) -> None:
    rows = [f"R_{n}\tg\t{one}\t{','.join(str(int(i > 2)) for i in range(len(one)))}"
            for n, one in enumerate(PROTEINS)]  # fmt: skip
    path = package / "AA_SA.tsv"
    path.write_text("entry\tgene\tsequence\tlabel\n" + "\n".join(rows))
    source = AaanalysisResidues("AA_SA", 0.2, 0.2, 0)
    tables = [source.table(split, TOKENIZER) for split in SPLITS]
    assert sum(map(len, tables)) == 60
    for table in tables:
        table.check(2, "here")
        for sequence, labels in zip(table.sequences, table.labels, strict=True):
            assert labels.tolist() == [int(place > 2) for place in range(len(sequence))]
    path.write_text("entry\tgene\tsequence\tlabel\nR\tg\tMK\t0,2\n")
    with pytest.raises(UserError, match="row 1: a label is '2'"):
        list(residue_labels(path))
    path.write_text(
        "entry\tgene\tsequence\tlabel\n" + "".join(f"R{n}\tg\tMK{n * 'A'}\t0\n" for n in range(9))
    )
    with pytest.raises(UserError, match=r"1 labels, and . residues"):
        AaanalysisResidues("AA_SA", 0.2, 0.2, 0).table("train", TOKENIZER)


@pytest.mark.parametrize(
    ("name", "part", "message"),
    [
        ("AA_LDR", "whole", "data=aaanalysis_residues task=label_sites"),
        ("DOM_GSEC_PU", "whole", "no negatives"),
        ("SEQ_AMYL", "whole", "SEQ_AMYLO"),
        ("SEQ_AMYLO", "domain", "choose whole"),
        ("DOM_GSEC", "half", "choose whole, or domain"),
    ],
)
def test_a_set_that_cannot_be(name: str, part: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        set_of(name, part=part)


def test_without_the_package_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(aaanalysis_sets.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"pip install aaanalysis==1.1.0 .*data=protein_table"):
        set_of("SEQ_AMYLO").fetch()
    with pytest.raises(UserError, match=r"data.source.name=AA_LD: .*AA_LDR"):
        AaanalysisResidues("AA_LD", 0.2, 0.2, 0)


@pytest.mark.skipif(find_spec("aaanalysis") is None, reason="aaanalysis is not installed")
def test_the_published_counts_of_the_package(caplog: pytest.LogCaptureFixture) -> None:
    counts = {"SEQ_AMYLO": (1414, 511), "DOM_GSEC": (126, 63), "SEQ_LOCATION": (1835, 1045)}
    for name, (num_rows, num_ones) in counts.items():
        labels_NK = set_of(name).read().labels_NK
        assert (len(labels_NK), int(labels_NK.sum())) == (num_rows, num_ones)
    assert "lack all of E, F, I, L, P and Q" in caplog.text
    assert len(SEQUENCE_SETS) + len(RESIDUE_SETS) == 13
