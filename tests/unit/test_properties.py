"""Labelled molecules: reading, splitting, dropping, batching."""

import gzip
import logging
import os
from collections.abc import Callable
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from lit_seqlm.data.chemistry.enumeration import random_smiles
from lit_seqlm.data.corpus import SPLITS
from lit_seqlm.data.molecule_corpus import MoleculeCorpus
from lit_seqlm.data.molecule_properties import MoleculeProperties
from lit_seqlm.data.molecule_table import MoleculeTable
from lit_seqlm.data.properties import PropertyData
from lit_seqlm.data.splits import Fractions, random_split, scaffold_balanced, split_hash
from lit_seqlm.errors import UserError
from lit_seqlm.tokenizer.smiles import SmilesTokenizer

CHAINS = [
    "C" * length + end for length in range(1, 14) for end in ("", "O", "N", "F", "C=O", "C#N")
]
HEADER = "smiles,mass,charge\n"
Write = Callable[[str], Path]


def table_of(path: Path, **changes: Any) -> MoleculeTable:
    options: dict[str, Any] = {
        "smiles_column": "smiles",
        "target_columns": ["mass", "charge"],
        "kind": "regression",
        "unit": "g",
        "split": "random",
        "split_column": "split",
        "valid_fraction": 0.2,
        "test_fraction": 0.2,
        "split_seed": 0,
        "repeats": "error",
        "cache_dir": None,
    }
    return MoleculeTable(str(path), **{**options, **changes})


def data_of(source: Any, **changes: Any) -> PropertyData:
    options: dict[str, Any] = {
        "target": "all",
        "batching": "exact_length",
        "batch_size": 4,
        "token_budget": 64,
        "window": 32,
        "multiple": 8,
        "eval_batch_size": 5,
        "max_len": None,
        "over_long": "skip",
        "num_train": None,
        "augment": "none",
        "seed": 1,
    }
    tokenizer = changes.pop("tokenizer", None) or SmilesTokenizer(None, "unk", False, 1)
    return PropertyData(source, tokenizer, **{**options, **changes})


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def written(text: str) -> Path:
        path = tmp_path / "molecules.csv"
        path.write_text(text)
        return path

    return written


@pytest.fixture
def chains(write: Write) -> Path:
    """78 molecules whose labels are the row, and its negative."""
    rows = [f"{smiles},{row},{-row}" for row, smiles in enumerate(CHAINS, start=1)]
    return write(HEADER + "\n".join(rows) + "\n")


def test_rows_keep_their_labels_counts_and_numbers(chains: Path) -> None:
    data = data_of(table_of(chains))
    data.setup()
    assert [len(data.tables[split]) for split in SPLITS] == [46, 16, 16]
    seen = []
    for split in SPLITS:
        table = data.tables[split]
        for place, row in enumerate(table.rows_N):
            written = CHAINS[row - 1]
            assert table.written[place] == written
            assert table.labels_NK[place].tolist() == [row, -row]
            letters = [written.count(letter) for letter in "CNOF"]
            assert table.covariates_NC[place, 1:].tolist() == letters
            assert data.tokenizer.decode(table.tokens[place]) == table.sequences[place]
            seen.append(row)
    assert sorted(seen) == list(range(1, 79))
    assert data.tables["train"].labels_NK.dtype == np.float64
    ethanol = next(
        data.tables[split].covariates_NC[place]
        for split in SPLITS
        for place, one in enumerate(data.tables[split].written)
        if one == "CCO"
    )
    assert ethanol.tolist() == [6, 2, 0, 1, 0]


@pytest.mark.parametrize("batching", ["exact_length", "random", "budget"])
def test_an_epoch_has_every_row_once(chains: Path, batching: str) -> None:
    data = data_of(table_of(chains), batching=batching)
    data.setup()
    table = data.tables["train"]
    rows = []
    for batch in data.train_dataloader():
        assert batch.labels_BK is not None
        assert batch.rows_B is not None
        assert batch.labels_BK.dtype == batch.covariates_BC.dtype == torch.float64
        for place, row in enumerate(batch.rows_B.tolist()):
            tokens = batch.tokens_BT[place]
            if batch.valid_BT is not None:
                valid = batch.valid_BT[place]
                assert (tokens[~valid] == data.tokenizer.pad_id).all()
                tokens = tokens[valid]
            assert tokens.tolist() == table.tokens[row].tolist()
            assert batch.labels_BK[place].tolist() == table.labels_NK[row].tolist()
            rows.append(row)
        if batching == "budget":
            assert batch.tokens_BT.numel() <= 64
            assert batch.tokens_BT.size(1) % 8 == 0
        else:
            assert len(batch.rows_B) <= 4
    assert sorted(rows) == list(range(len(table)))


def test_the_order_follows_from_seed_and_epoch(chains: Path) -> None:
    class Clock:
        current_epoch, global_rank, world_size = 0, 0, 1

    def order(seed: int, epoch: int) -> list[list[int]]:
        data = data_of(table_of(chains), seed=seed)
        data.setup()
        data.trainer = Clock()  # type: ignore[assignment]
        data.trainer.current_epoch = epoch  # type: ignore[union-attr, misc]
        return [batch.rows_B.tolist() for batch in data.train_dataloader()]

    assert order(1, 0) == order(1, 0)
    assert order(1, 0) != order(1, 1)
    assert order(1, 0) != order(2, 0)


def test_a_loader_goes_on_where_it_was_saved(chains: Path) -> None:
    data = data_of(table_of(chains))
    data.setup()
    whole = [batch.rows_B.tolist() for batch in data.train_dataloader()]
    loader = data.train_dataloader()
    stopped = iter(loader)
    for _ in range(5):
        next(stopped)
    state = loader.state_dict()
    assert state == {"position": 5}
    resumed = data.train_dataloader()
    resumed.load_state_dict(state)
    assert [batch.rows_B.tolist() for batch in resumed] == whole[5:]
    assert resumed.state_dict() == {"position": 0}
    assert [batch.rows_B.tolist() for batch in resumed] == whole  # the next pass is a whole one


def test_exact_evaluation_is_by_length_and_whole(chains: Path) -> None:
    data = data_of(table_of(chains))
    data.setup()
    rows = torch.cat([batch.rows_B for batch in data.exact_dataloader("test")])
    lengths = data.tables["test"].tokens.lengths[rows.numpy()]
    assert (np.diff(lengths) >= 0).all()
    assert sorted(rows.tolist()) == list(range(16))


def test_rows_that_cannot_be_used_are_reported(
    write: Write, caplog: pytest.LogCaptureFixture
) -> None:
    good = "".join(f"{smiles},{row},1\n" for row, smiles in enumerate(CHAINS[:20]))
    path = write(HEADER + good + "C1CC,5,1\n,5,1\nCl,,\n" + "C" * 30 + ",1,\n")
    data = data_of(table_of(path, valid_fraction=0.1, test_fraction=0.1), max_len=20)
    with caplog.at_level(logging.WARNING):
        data.setup()
    reasons = {row: reason for dropped in data.dropped.values() for row, reason in dropped}
    assert sorted(reasons) == [21, 22, 23, 24]
    assert reasons[21].startswith("invalid_smiles")
    assert (reasons[22], reasons[23], reasons[24]) == ("empty", "no label", "too_long: 30 tokens")
    assert "left out (row" in caplog.text
    assert sum(len(table) for table in data.tables.values()) == 20


def test_one_target_needs_its_own_label_alone(write: Write) -> None:
    rows = "".join(
        f"{smiles},{row},{'' if row % 2 else row}\n" for row, smiles in enumerate(CHAINS)
    )
    both = data_of(table_of(write(HEADER + rows)))
    both.setup()
    assert sum(len(table) for table in both.tables.values()) == 78
    assert np.isnan(both.tables["train"].labels_NK[:, 1]).any()
    one = data_of(table_of(write(HEADER + rows)), target="charge")
    one.setup()
    assert sum(len(table) for table in one.tables.values()) == 39
    assert one.tables["train"].labels_NK.shape[1] == len(one.targets) == 1


@pytest.mark.parametrize("over_long", ["error", "skip", "truncate"])
def test_over_long(chains: Path, over_long: str) -> None:
    data = data_of(table_of(chains), max_len=10, over_long=over_long)
    if over_long == "error":
        with pytest.raises(UserError, match=r"row \d+: too_long: 1\d tokens.*data.max_len=10"):
            data.setup()
        return
    data.setup()
    kept = sum(len(table) for table in data.tables.values())
    longest = max(int(data.tables[split].tokens.lengths.max()) for split in SPLITS)
    assert longest == 12
    assert (kept == 78) == (over_long == "truncate")
    for split in SPLITS:
        tokens = data.tables[split].tokens
        ends = {(int(tokens[row][0]), int(tokens[row][-1])) for row in range(len(tokens))}
        assert ends == {(data.tokenizer.bos_id, data.tokenizer.eos_id)}


def test_smaller_training_sets_lie_within_larger_ones(chains: Path) -> None:
    drawn = []
    for number in (5, 20, 46):
        data = data_of(table_of(chains), num_train=number)
        data.setup()
        drawn.append(set(data.tables["train"].rows_N.tolist()))
        assert len(drawn[-1]) == number
        assert len(data.tables["test"]) == 16
    assert drawn[0] < drawn[1] < drawn[2]
    with pytest.raises(UserError, match="num_train=47"):
        data_of(table_of(chains), num_train=47).setup()


def test_enumeration_writes_the_same_molecules_another_way(chains: Path) -> None:
    from lit_seqlm.data.chemistry.canonical import canonicalize

    data = data_of(table_of(chains), augment="enumerate")
    data.setup()
    table, other = data.tables["train"], 0
    for batch in data.train_dataloader():
        for place, row in enumerate(batch.rows_B.tolist()):
            tokens = batch.tokens_BT[place].tolist()
            text = data.tokenizer.decode(t for t in tokens if t != data.tokenizer.pad_id)
            assert canonicalize(text, False).smiles == table.sequences[row]
            other += text != table.sequences[row]
    assert other > 10


def test_enumeration_writes_nothing_that_the_vocabulary_lacks(write: Write) -> None:
    names = ["train"] * 6 + ["valid", "test"]
    smiles = ["C" * length + "[C@H](N)O" for length in range(2, 10)]
    rows = "".join(f"{one},1,1,{split}\n" for one, split in zip(smiles, names, strict=True))
    path = write("smiles,mass,charge,split\n" + rows)
    tokenizer = SmilesTokenizer(None, "unk", True, 1)
    data = data_of(table_of(path, split="column"), augment="enumerate")
    data.tokenizer = tokenizer
    data.setup()
    assert not sum(data.num_unknown.values())
    assert len({"[C@H]", "[C@@H]"} & set(tokenizer.vocabulary)) == 1
    written = data.train_dataloader().table
    assert not (written.tokens.ids == tokenizer.unknown_id).any()
    assert written.sequences != data.tables["train"].sequences


def test_a_way_to_write_a_molecule_follows_from_its_seed() -> None:
    smiles = "CCOC(=O)c1ccccc1N"
    for seed in (0, 7):
        assert len({random_smiles(smiles, seed) for _ in range(20)}) == 1


def test_unknown_tokens_are_counted_or_refused(chains: Path) -> None:
    tokenizer = SmilesTokenizer(None, "unk", False, 1)
    tokenizer.fit({"C": 5})
    tokenizer.load_state_dict(
        {"vocabulary": [t for t in tokenizer.vocabulary if t != "F"], "isomeric": False}
    )
    data = data_of(table_of(chains), tokenizer=tokenizer)
    data.setup()
    assert sum(data.num_unknown.values()) == 13
    tokenizer.unknown = "error"
    with pytest.raises(UserError, match=r"row \d+: unknown_tokens: F.*unknown=unk"):
        data_of(table_of(chains), tokenizer=tokenizer).setup()


@pytest.mark.parametrize(
    ("text", "changes", "words"),
    [
        ("smile,mass,charge\nC,1,1\n", {}, "no column 'smiles'. Did you mean smile"),
        ("smiles,mas,charge\nC,1,1\n", {}, "no column 'mass'. Did you mean mas"),
        (HEADER + "C,1,1\nCC,x,1\n", {}, "row 2, column 'mass': 'x' is no number"),
        (HEADER + "C,inf,1\n", {}, "row 1, column 'mass': inf; a label is a finite number"),
        (HEADER, {}, "a heading but no rows"),
        ("", {}, "no column 'smiles'"),
        (HEADER + "C,1,2\n", {"kind": "classification"}, "column 'charge': 2; a class is 0 or 1"),
        (HEADER + "CO,1,2\nC,1,1\nOC,1,2\n", {}, "row 3 repeats row 1"),
        (HEADER + "C,1,1\n", {"split": "scaffold"}, "data.source.split=scaffold: Did you mean"),
        (HEADER + "C,1,1\n", {"valid_fraction": 0.9}, "below 1 together"),
        ("smiles,mass,charge,split\nC,1,1,trane\n", {"split": "column"}, "row 1: the split is"),
        (
            "smiles,mass,charge,split\nC,1,1,train\nC,1,1,train\nN,1,1,trane\n",
            {"split": "column", "repeats": "drop"},
            "row 3: the split is 'trane'",
        ),
        (HEADER + "C,1,1\n", {"target_columns": "smiles"}, "column 'smiles' is named twice"),
        (HEADER + "C,1,1\n", {"target_columns": ["mass"] * 2}, "column 'mass' is named twice"),
    ],
)
def test_what_is_wrong_in_a_table_is_named(
    write: Write, text: str, changes: dict[str, Any], words: str
) -> None:
    path = write(text)
    with pytest.raises(UserError, match=words):
        data_of(table_of(path, **changes)).setup()


def test_repeated_rows_can_be_dropped_or_kept(write: Write) -> None:
    rows = "".join(f"{smiles},{row},1\n" for row, smiles in enumerate(CHAINS[:20]))
    path = write(HEADER + rows + "C,0,1\nC,7,1\n")
    dropped = data_of(table_of(path, repeats="drop"))
    dropped.setup()
    assert [tuple(one) for one in dropped.dropped["train"]] == [(21, "repeats row 1")]
    assert sum(len(table) for table in dropped.tables.values()) == 21
    kept = data_of(table_of(path, repeats="keep"))
    kept.setup()
    assert sum(len(table) for table in kept.tables.values()) == 22


def test_a_column_can_say_the_split(write: Write) -> None:
    words = ["train", "val", "test"]
    rows = "".join(f"{smiles},{row},1,{words[row % 3]}\n" for row, smiles in enumerate(CHAINS))
    data = data_of(table_of(write("smiles,mass,charge,split\n" + rows), split="column"))
    data.setup()
    for remainder, split in enumerate(SPLITS):
        assert (data.tables[split].labels_NK[:, 0] % 3 == remainder).all()


def test_random_split_is_of_the_sizes_asked() -> None:
    parts = random_split(100, Fractions(0.1, 0.2), 3)
    assert [len(parts[split]) for split in SPLITS] == [70, 10, 20]
    assert sorted(np.concatenate(list(parts.values()))) == list(range(100))
    assert split_hash(parts) == split_hash(random_split(100, Fractions(0.1, 0.2), 3))
    assert split_hash(parts) != split_hash(random_split(100, Fractions(0.1, 0.2), 4))


@pytest.mark.parametrize("split", ["scaffold_balanced", "scaffold_strict"])
def test_no_scaffold_is_in_two_splits(write: Write, split: str) -> None:
    from lit_seqlm.data.chemistry.scaffold import murcko_scaffold

    rings = ["c1ccccc1", "C1CCCCC1", "c1ccncc1", "C1CCNC1", "c1ccoc1", "C1CC1", "C1CCC1", "c1ccsc1"]
    rows = [f"{'C' * tail}{ring},{tail},1" for ring in rings for tail in range(1, 7)]
    rows += [f"{'C' * length},{length},1" for length in range(1, 10)]
    path = write(HEADER + "\n".join(rows) + "\n")
    data = data_of(table_of(path, split=split))
    data.setup()
    found = {name: {murcko_scaffold(s) for s in data.sequences(name)} for name in SPLITS}
    if split == "scaffold_balanced":  # what has no ring shares no scaffold
        found = {name: scaffolds - {""} for name, scaffolds in found.items()}
    for one, two in combinations(SPLITS, 2):
        assert not found[one] & found[two]
    assert min(len(data.tables[name]) for name in SPLITS) >= 6


def test_scaffold_balanced_keeps_groups_whole_and_varies_with_its_seed() -> None:
    groups = [str(number % 40) for number in range(200)]
    held_out = set()
    for seed in range(4):
        parts = scaffold_balanced(groups, Fractions(0.1, 0.1), seed)
        owners = [{groups[row] for row in parts[split]} for split in SPLITS]
        assert all(not one & two for one, two in combinations(owners, 2))
        assert [len(parts[split]) for split in SPLITS] == [160, 20, 20]
        held_out.add(split_hash(parts))
    assert len(held_out) == 4


def test_a_wrong_copy_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "molecules" / "qm8"
    folder.mkdir(parents=True)
    for split in SPLITS:
        (folder / f"{split}.csv").write_text("smiles,E1-CC2\nC,1\n")
    source = MoleculeProperties("qm8", str(tmp_path), None, None, "published", 0)
    with pytest.raises(UserError, match=r"train.csv is not the published file.*079af359"):
        source.fetch()


@pytest.mark.parametrize(
    ("name", "tasks", "split", "words"),
    [
        ("qm7", None, "published", "no labelled set 'qm7'. Did you mean qm"),
        ("qm8", 13, "published", "tasks=13. Accepted: null, 12, 16"),
        ("qm8", None, "scafold_strict", "Did you mean scaffold_strict"),
        ("bace", None, "published", "split=scaffold_balanced"),
    ],
)
def test_what_a_published_set_is_not(name: str, tasks: int | None, split: str, words: str) -> None:
    with pytest.raises(UserError, match=words):
        MoleculeProperties(name, "", None, tasks, split, 0)


def test_qm9_out_of_its_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    source = MoleculeProperties("qm9", str(tmp_path), None, None, "published", 0)
    with pytest.raises(UserError, match="pip install qm9pack"):
        source.fetch()
    folder = tmp_path / "qm9pack" / "data"
    folder.mkdir(parents=True)
    (folder.parent / "__init__.py").write_text("raise RuntimeError('it must not be imported')")
    columns = list(source.entry.packed.values())
    for part in range(3):
        lines = [",".join(["Index", "SMILES", *columns])]
        for row in range(part * 26, part * 26 + 26):
            lines.append(",".join([str(row), CHAINS[row], *[str(row + 0.5)] * 12]))
        (folder / f"qm9_part{part + 1}.csv").write_text("\n".join(lines))
    monkeypatch.syspath_prepend(str(tmp_path))
    assert source.digest() == "qm9pack==1.0.3"
    data = data_of(source)
    with caplog.at_level(logging.WARNING):
        data.setup()
    assert "RANDOM" in caplog.text
    assert [len(data.tables[split]) for split in SPLITS] == [63, 7, 8]
    table = data.tables["train"]
    assert (table.labels_NK[:, 0] == table.rows_N - 0.5).all()


def test_canonical_smiles_are_kept(
    tmp_path: Path, chains: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from lit_seqlm.data import molecule_forms as forms

    monkeypatch.setattr(forms, "KEPT_FROM", 1)
    cache = tmp_path / "cache"
    first = forms.molecule_forms(["OC", "C1", ""], False, str(cache), "")
    assert (first.smiles, first.reasons[2]) == (["CO", "", ""], "empty")
    assert [path.suffix for path in cache.iterdir()] == [".npz"]
    monkeypatch.setattr(forms, "canonicalize", None)  # no molecule is made again
    again = forms.molecule_forms(["OC", "C1", ""], False, str(cache), "")
    assert (again.smiles, again.reasons) == (first.smiles, first.reasons)
    np.testing.assert_array_equal(again.counts_NC, first.counts_NC)
    with pytest.raises(TypeError):
        forms.molecule_forms(["OC", "C1", "C"], False, str(cache), "")


def test_gz_and_digest(tmp_path: Path, chains: Path) -> None:
    packed = tmp_path / "molecules.csv.gz"
    packed.write_bytes(gzip.compress(chains.read_bytes()))
    one, two = data_of(table_of(chains)), data_of(table_of(packed))
    one.setup()
    two.setup()
    assert one.sequences("test") == two.sequences("test")
    before = one.fingerprint()
    chains.write_text(chains.read_text().replace("78,", "79,"))
    assert data_of(table_of(chains)).fingerprint() != before


@pytest.mark.data
@pytest.mark.slow
@pytest.mark.skipif("LIT_SEQLM_DATA" not in os.environ, reason="LIT_SEQLM_DATA is unset")
def test_qm8_as_published() -> None:
    source = MoleculeProperties("qm8", os.environ["LIT_SEQLM_DATA"], None, 16, "published", 0)
    data = data_of(source)
    data.prepare_data()
    data.setup()
    assert [len(data.tables[split]) for split in SPLITS] == [17_428, 2_179, 2_179]
    assert not any(data.dropped.values())
    assert data.tables["train"].tokens.lengths.mean() == pytest.approx(14.68, abs=0.005)
    labels_NK, names = data.tables["test"].labels_NK, [target.name for target in data.targets]
    for quantity in ("E1", "E2", "f1", "f2"):
        one, two = names.index(f"{quantity}-PBE0"), names.index(f"{quantity}-PBE0.1")
        assert np.array_equal(labels_NK[:, one], labels_NK[:, two])


@pytest.mark.data
@pytest.mark.slow
@pytest.mark.skipif("LIT_SEQLM_DATA" not in os.environ, reason="LIT_SEQLM_DATA is unset")
def test_qm9_as_published() -> None:
    from lit_seqlm.data.residual import explained, least_squares

    source = MoleculeProperties("qm9", os.environ["LIT_SEQLM_DATA"], None, None, "published", 0)
    data = data_of(source, target="u0")
    data.setup()
    assert [len(data.tables[split]) for split in SPLITS] == [105_971, 11_779, 13_081]
    train, test = data.tables["train"], data.tables["test"]
    weights_CK = least_squares(train.labels_NK, train.covariates_NC, np.array([True]))
    wanted = [-0.6038, -38.0776, -54.7529, -75.2289, -99.870, 0.0317]
    np.testing.assert_allclose(weights_CK[:, 0], wanted, rtol=0.01)
    error = np.abs(explained(test.covariates_NC, weights_CK) - test.labels_NK).mean()
    assert error == pytest.approx(0.0321, rel=0.01)


@pytest.mark.parametrize(
    ("num_train", "num_heldout", "words"),
    [
        (50, 2, "num_train=50, num_heldout=2: all.smi has 10 rows"),
        (None, 10, "num_train=None, num_heldout=10"),
        (5, 0, "num_heldout=0: it must be at least 1"),
        (-5, 2, "num_train=-5: it must be at least 1"),
    ],
)
def test_a_corpus_gives_no_fewer_molecules_than_asked(
    tmp_path: Path, num_train: int | None, num_heldout: int, words: str
) -> None:
    (tmp_path / "all.smi").write_text("\n".join(CHAINS[:10]))
    tokenizer = SmilesTokenizer(None, "unk", False, 1)
    with pytest.raises(UserError, match=words):
        MoleculeCorpus(
            "own",
            str(tmp_path),
            "all.smi",
            "all.smi",
            "smiles",
            num_train,
            num_heldout,
            [],
            "",
            None,
            0,
        ).sequences("train", tokenizer)


def test_unknown_tokens_are_named_with_their_row(
    write: Write, caplog: pytest.LogCaptureFixture
) -> None:
    splits = ["train"] * 5 + ["valid"] * 2 + ["test"] * 2
    rows = [f"{'C' * n}O,{n},{split}" for n, split in enumerate(splits, start=1)]
    path = write("\n".join(["smiles,y,split", *rows, "[SeH]CC,1,test"]) + "\n")
    with caplog.at_level(logging.WARNING):
        data_of(table_of(path, target_columns="y", split="column")).setup()
    assert "unknown tokens: 1 (row 10: [SeH])" in caplog.text
