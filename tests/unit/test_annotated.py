"""Classes of residues, pairs and chains: aligned with tokens, each scored once, and refused where they do not fit."""

import logging
from dataclasses import replace
from itertools import chain
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from lit_seqlm.console import Console
from lit_seqlm.data.annotated import AnnotatedData
from lit_seqlm.data.annotated_table import OUTSIDE, UNSCORED, AnnotatedTable
from lit_seqlm.data.annotated_windows import windows
from lit_seqlm.data.proteins.labelled import Labelled, classes_of, labelled_table
from lit_seqlm.data.proteins.secondary_structure import EIGHT, SecondaryStructure, numbers_of
from lit_seqlm.data.proteins.structures import ContactMaps, PdbChain, contact_map
from lit_seqlm.errors import DivergedError, UserError
from lit_seqlm.task.states import TokenStates
from lit_seqlm.tokenizer.amino_acid import STANDARD, AminoAcidTokenizer

LONG = np.full(30, 3, np.int8)
SCOPES = {"all": np.ones(30, bool), "some": np.ones(30, bool)}
SIZES = {"train": 40, "valid": 9, "one": 7, "two": 5}


class Made:
    """A source in memory: random chains, whose labels follow from a seed."""

    name, measure, tests, card = "made", "q3", ("one", "two"), {"data": "made"}

    def __init__(self, site: str, **lengths: int):
        self.site, self.classes = site, ("H", "E", "C") if site != "pair" else ("apart", "contact")
        self.lengths = {"low": 3, "high": 60} | lengths
        self.changes: dict[str, Any] = {}

    def digest(self) -> str:
        return ""

    def fetch(self) -> None: ...

    def rows(self, *_: Any) -> Any: ...

    def proteins(self, split: str) -> list[Labelled]:
        rng = np.random.default_rng(list(split.encode()))
        found = []
        for number in range(SIZES[split]):
            length = int(rng.integers(self.lengths["low"], self.lengths["high"] + 1))
            label: Any = rng.integers(-1, 3, length).astype(np.int8)
            if self.site == "pair":
                label = (10 * rng.normal(size=(length, 3))).astype(np.float32)
                label[rng.random(length) < 0.1] = np.nan
            if self.site == "chain":
                label = int(rng.choice([0, 1, 2, OUTSIDE]))
            sequence = "".join(rng.choice(list(STANDARD), length))
            scopes = {"all": np.ones(length, bool), "some": rng.random(length) < 0.5}
            name = f"{split}-{number}"
            found.append(Labelled(number + 1, name, sequence, label, scopes))
        return found

    def table(self, split: str, tokenizer: Any) -> AnnotatedTable:
        proteins = self.proteins(split)
        proteins[0] = replace(proteins[0], **self.changes)
        table = labelled_table(proteins, tokenizer, f"data=made, {split}", {})
        if self.site == "pair":
            table.labels = ContactMaps(table.labels, 8.0, False, 0)
        return table


def data(source: Made, ends: str = "cls", ambiguous: str = "keep", **changes: Any) -> AnnotatedData:
    options = {
        "budget": 300,
        "eval_budget": 500,
        "window": 16,
        "max_len": None,
        "over_long": "error",
    }
    options |= {"num_train": None, "seed": 1}
    tokenizer = AminoAcidTokenizer(ends, ambiguous, False)
    made = AnnotatedData(source, tokenizer, **(options | changes))
    made.setup()
    return made


def contacts_by_loops(points: np.ndarray) -> np.ndarray:
    found = np.full((len(points),) * 2, -1)
    for i, one in enumerate(points):
        for j, two in enumerate(points):
            if np.isfinite(one).all() and np.isfinite(two).all():
                found[i, j] = float(np.linalg.norm(one.astype(float) - two)) < 8.0
    return found


@pytest.mark.parametrize("ends", ["cls", "cls_sep"])
@pytest.mark.parametrize("site", ["residue", "pair", "chain"])
def test_labels_stand_at_the_tokens_of_their_residues(site: str, ends: str) -> None:
    source = Made(site)
    made = data(source, ends)
    for split in SIZES:
        proteins, seen = source.proteins(split), []
        for batch in made.exact_dataloader(split):
            assert batch.sites.dtype == torch.int64
            for place, row in enumerate(batch.rows_B.tolist()):
                protein = proteins[row]
                seen.append(row)
                length, tokens_T = len(protein.sequence), batch.tokens_BT[place]
                assert made.tokenizer.decode(tokens_T) == protein.sequence
                sites = batch.sites[place].numpy().copy()
                if site == "chain":
                    assert sites == protein.label
                    continue
                inner = (slice(1, 1 + length),) * sites.ndim
                labels = protein.label if site == "residue" else contacts_by_loops(protein.label)
                assert np.array_equal(sites[inner], labels)
                sites[inner] = UNSCORED
                assert (sites == UNSCORED).all(), "ends and padding have no class"
        assert sorted(seen) == list(range(SIZES[split]))


@pytest.mark.parametrize(("site", "power"), [("residue", 1), ("pair", 2), ("chain", 1)])
def test_an_epoch_has_every_sequence_once_within_its_budget(site: str, power: int) -> None:
    made, budget = data(Made(site), budget=4000, eval_budget=9000), 4000
    made.trainer = SimpleNamespace(current_epoch=3, global_rank=0, world_size=1)
    batches = list(made.train_dataloader())
    rows = [batch.rows_B.tolist() for batch in batches]
    assert sorted(chain.from_iterable(rows)) == list(range(SIZES["train"]))
    for batch in batches:
        count, width = batch.tokens_BT.shape
        assert count * width**power <= budget or count == 1
    again = data(Made(site), budget=4000, eval_budget=9000)
    again.trainer = made.trainer
    assert [batch.rows_B.tolist() for batch in again.train_dataloader()] == rows
    again.trainer = SimpleNamespace(current_epoch=4, global_rank=0, world_size=1)
    assert [batch.rows_B.tolist() for batch in again.train_dataloader()] != rows


def test_processes_share_an_epoch_and_score_each_label_once() -> None:
    made = data(Made("residue"))
    whole = sum(int((batch.sites >= 0).sum()) for batch in made.exact_dataloader("train"))
    counts, steps = 0, set()
    for rank in range(3):
        made.trainer = SimpleNamespace(current_epoch=0, global_rank=rank, world_size=3)
        batches = list(made.exact_dataloader("train"))
        steps.add(len(batches))
        counts += sum(int((batch.sites >= 0).sum()) for batch in batches)
    assert counts == whole
    assert len(steps) == 1


def test_a_loader_goes_on_where_it_was() -> None:
    made = data(Made("pair"))
    whole = [batch.rows_B.tolist() for batch in made.train_dataloader()]
    loader = made.train_dataloader()
    iterator = iter(loader)
    first = [next(iterator).rows_B.tolist() for _ in range(3)]
    resumed = made.train_dataloader()
    resumed.load_state_dict(loader.state_dict())
    assert first + [batch.rows_B.tolist() for batch in resumed] == whole


@pytest.mark.parametrize("size", [4, 7, 50, 510])
def test_windows_score_every_residue_once_and_give_it_context(size: int) -> None:
    for length in [*range(1, 4 * size), 20 * size + 3]:
        counts, least = np.zeros(length, int), size // 4 // 2
        for read, scored in windows(length, size):
            assert read.stop - read.start == min(size, length)
            assert read.start <= scored.start <= scored.stop <= read.stop
            counts[scored] += 1
            assert scored.start == 0 or scored.start - read.start >= least
            assert scored.stop == length or read.stop - scored.stop >= least
        assert (counts == 1).all()


def test_chains_read_in_windows_have_the_same_labels_and_scopes() -> None:
    source = Made("residue", low=1, high=200)
    made = data(source, "cls_sep", max_len=30, over_long="windows")
    assert made.tables["train"].tokens.lengths.max() == 32
    for split in SIZES:
        split_table, proteins = made.tables[split], source.proteins(split)
        table, owners = split_table.table, split_table.proteins_N
        assert len(table) == len(owners) == len(split_table.tokens) > len(proteins)
        for number, protein in enumerate(proteins):
            rows = np.flatnonzero(owners == number)
            assert {table.names[row] for row in rows} == {protein.name}
            labels = np.concatenate([table.labels[row] for row in rows])
            scored = protein.label[protein.label != UNSCORED]
            assert np.array_equal(labels[labels != UNSCORED], scored)
            marked = sum(int(table.scopes["all"][row].sum()) for row in rows)
            assert marked == len(protein.sequence), "each residue is in a scope once"
            some = np.concatenate([table.labels[r][table.scopes["some"][r]] for r in rows])
            assert np.array_equal(some, protein.label[protein.scopes["some"]])


@pytest.mark.parametrize("site", ["residue", "pair", "chain"])
def test_a_cut_chain_loses_the_labels_of_what_is_cut(
    site: str, caplog: pytest.LogCaptureFixture
) -> None:
    source = Made(site)
    with caplog.at_level(logging.WARNING):
        made = data(source, max_len=20, over_long="truncate")
    assert "residues are not read" in caplog.text
    whole, cut = data(source).tables["train"].table, made.tables["train"].table
    for place, sequence in enumerate(cut.sequences):
        assert sequence == whole.sequences[place][:20]
        inner = (slice(20),) * np.ndim(whole.labels[place])
        expected = whole.labels[place][inner] if inner else whole.labels[place]
        assert np.array_equal(cut.labels[place], expected)
        assert len(cut.scopes["some"][place]) == len(sequence)


def test_a_skipped_chain_is_named(caplog: pytest.LogCaptureFixture) -> None:
    made = data(Made("pair"), max_len=20, over_long="skip")
    long = [p for p in Made("pair").proteins("train") if len(p.sequence) > 20]
    assert len(made.tables["train"]) == SIZES["train"] - len(long)
    assert f"row {long[0].number}: {long[0].name}, too_long: {len(long[0].sequence)}" in caplog.text
    with pytest.raises(UserError, match=r"train-\d+: too_long: .* data.max_len=20"):
        data(Made("pair"), max_len=20)
    with pytest.raises(UserError, match="labels are of pairs"):
        data(Made("pair"), max_len=20, over_long="windows")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"label": np.zeros(5, np.int8)}, r"train-0: 5 labels, and \d+ residues"),
        ({"label": np.zeros(0, np.int8)}, r"train-0: 0 labels, and \d+ residues"),
        ({"scopes": {"all": np.ones(4, bool)}}, r"train-0: 4 entries of the scope all, and \d+"),
        ({"sequence": ""}, "train-0: the sequence is empty"),
        ({"sequence": "AC1D"}, "train-0: '1' at position 3"),
        (
            {"label": LONG, "sequence": "A" * 30, "scopes": SCOPES},
            "train-0: class 3 at position 1; accepted are 0 to 2, and -1 where there is no label",
        ),
    ],
)
def test_what_does_not_fit_is_refused_by_name(changes: dict[str, Any], message: str) -> None:
    source = Made("residue", low=20)
    source.changes = changes
    with pytest.raises(UserError, match=message):
        data(source)


@pytest.mark.parametrize("wrong", [-2, -3, -128, 3, 127])
def test_a_class_that_there_is_not_is_named_with_its_place(wrong: int) -> None:
    """Also one between others that are larger, and smaller."""
    source = Made("residue")
    label = np.array([2, -1, 0, wrong, 2, 1], np.int8)
    scopes = {name: part[:6] for name, part in SCOPES.items()}
    source.changes = {"sequence": "ACDEFG", "label": label, "scopes": scopes}
    with pytest.raises(UserError, match=rf"train-0: class {wrong} at position 4; accepted are 0"):
        data(source)
    label[3] = -1
    data(source)


def test_only_a_chain_may_be_of_a_class_that_is_not_learnt() -> None:
    source = Made("chain")
    source.changes = {"label": OUTSIDE}
    data(source)
    for wrong in (-3, 3):
        source.changes = {"label": wrong}
        with pytest.raises(UserError, match=rf"train-0: class {wrong}; accepted are 0 to 2"):
            data(source)


def test_options_that_cannot_be_are_refused() -> None:
    for changes, message in [
        ({"budget": 0}, "budget"),
        ({"over_long": "cut"}, "data.over_long=cut: choose windows, truncate, skip or error"),
        ({"num_train": 41}, "data.num_train=41: the training split has 40 rows"),
        ({"max_len": 1, "over_long": "skip"}, "no sequence is left"),
    ]:
        with pytest.raises(UserError, match=message):
            data(Made("residue"), **changes)


def test_a_smaller_draw_is_within_a_larger_one() -> None:
    names = [
        set(data(Made("residue"), num_train=count).tables["train"].table.names)
        for count in (5, 20, 40)
    ]
    assert names[0] < names[1] < names[2]
    assert list(map(len, names)) == [5, 20, 40]


def test_ambiguous_sequences_are_left_out_and_told(caplog: pytest.LogCaptureFixture) -> None:
    source = Made("residue", low=4, high=4)
    source.changes = {"sequence": "AXCD"}
    with caplog.at_level(logging.WARNING):
        made = data(source, ambiguous="drop")
    assert len(made.tables["train"]) == SIZES["train"] - 1
    assert "train-0 'X' at position 2 is ambiguous" in caplog.text


def test_dropped_rows_are_numbered_as_the_file_has_them(
    tmp_path: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    """The first one is ambiguous, which moves all others up; the screen names three, the file all."""
    source = Made("residue")
    scopes = {name: part[:3] for name, part in SCOPES.items()}
    source.changes = {"sequence": "XXX", "label": LONG[:3], "scopes": scopes}
    long = [p for p in source.proteins("train")[1:] if len(p.sequence) > 20]
    file, screen = logging.FileHandler(tmp_path / "run.log"), Console()
    logger = logging.getLogger("lit_seqlm")
    logger.setLevel(logging.INFO)
    for handler in (file, screen):
        logger.addHandler(handler)
    try:
        made = data(source, max_len=20, over_long="skip", ambiguous="drop")
    finally:
        for handler in (file, screen):
            logger.removeHandler(handler)
        logger.setLevel(logging.NOTSET)
    said = [f"row {p.number}: {p.name}, too_long: {len(p.sequence)} residues" for p in long]
    said.insert(0, "row 1: train-0 'X' at position 1 is ambiguous")
    assert [f"row {row}: {why}" for row, why in made.tables["train"].table.dropped] == said
    shown, written = capsys.readouterr().out, (tmp_path / "run.log").read_text()
    assert [one in shown for one in said] == [True] * 3 + [False] * (len(said) - 3)
    assert all(one in written for one in said)


def test_what_is_tested_is_not_learnt() -> None:
    tokenizer = AminoAcidTokenizer("cls", "keep", False)
    proteins = [Labelled(1, "a", "ACD", 0), Labelled(2, "b", "CCD", 1)]
    table = labelled_table(proteins, tokenizer, "data=made", {"CCD": "ts115"})
    assert table.names == ["a"]
    assert table.dropped == [(2, "b has the sequence of one in ts115")]


def test_letters_of_structure_have_three_classes_or_eight() -> None:
    # TAPE: 0 is H (of G H I), 1 is E (of B E), 2 is C (of S T C).
    assert classes_of("GHIBESTC -L", numbers_of(3), "").tolist() == [
        0,
        0,
        0,
        1,
        1,
        2,
        2,
        2,
        2,
        2,
        2,
    ]
    assert classes_of("GHIBESTC -L", numbers_of(8), "").tolist() == [*range(8), 7, 7, 7]
    assert len(EIGHT) == 8
    with pytest.raises(UserError, match=r"1abc: '\?' at position 3 of the labels is no class"):
        classes_of("HH?H", numbers_of(3), "1abc")
    with pytest.raises(UserError, match="position 2"):
        classes_of("Hé", numbers_of(3), "1abc")


def test_what_lies_at_the_cutoff_is_a_contact_if_that_is_closed() -> None:
    # 4.8, 6.4, 8.0 is a triangle, and in tenths of an Angstrom it is one of whole numbers.
    points = np.array([[0, 0, 0], [48, 64, 0], [47, 64, 0], [49, 64, 0]], np.float32)
    assert contact_map(points, 80.0, False)[0].tolist() == [1, 0, 1, 0]
    assert contact_map(points, 80.0, True)[0].tolist() == [1, 1, 1, 0]


def test_near_pairs_may_be_left_unlearnt() -> None:
    points = [np.zeros((9, 3), np.float32), np.zeros((0, 3), np.float32)]
    maps = ContactMaps(points, 8.0, False, 6)
    apart = np.abs(np.subtract.outer(np.arange(9), np.arange(9)))
    assert np.array_equal(maps[0], np.where(apart < 6, -1, 1))
    assert maps[1].shape == (0, 0)


def test_glycine_is_where_its_c_alpha_is() -> None:
    ca, cb = np.zeros((3, 3), np.int16), np.ones((3, 3), np.int16)
    glycine = PdbChain(1, "1ABC-A", "AGV", "CCC", ca, cb)
    assert glycine.points_of("cb")[:, 0].tolist() == [1, 0, 1]
    assert glycine.points_of("ca")[:, 0].tolist() == [0, 0, 0]


def test_secondary_structure_refuses_options_and_other_files(tmp_path: Any) -> None:
    options = {"name": "secondary_structure", "data_dir": str(tmp_path), "classes": 3}
    options |= {"pdb_split": None, "train_on": "all", "drop_test_overlaps": True}
    for changes, message in [
        ({"classes": 5}, "choose 3 or 8"),
        ({"classes": 8}, "data=secondary_structure_pdb"),
        ({"train_on": "some"}, "choose all or resolved"),
    ]:
        with pytest.raises(UserError, match=message):
            SecondaryStructure(**(options | changes))
    source = SecondaryStructure(**options)
    with pytest.raises(UserError, match="there is no netsurfp2_splits"):
        source.fetch()
    folder = tmp_path / "proteins/secondary_structure"
    folder.mkdir(parents=True)
    for name in source.files.hashes:
        (folder / name).write_text("other")
    with pytest.raises(UserError, match="is not the published file"):
        source.fetch()


def test_frozen_states_that_float16_cannot_hold_are_refused() -> None:
    states = TokenStates(torch.empty(3, 2, dtype=torch.float16), np.array([0, 1, 3]))
    states.put(torch.tensor([0]), torch.full((1, 2, 2), 5.0))
    with pytest.raises(UserError, match=r"task\.float32_mb"):
        states.put(torch.tensor([1]), torch.full((1, 2, 2), 1e5))


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32])
def test_a_trunk_that_has_diverged_is_told_as_that(dtype: torch.dtype) -> None:
    """More memory would not help: what it gives is no number in any precision."""
    states = TokenStates(torch.empty(3, 2, dtype=dtype), np.array([0, 1, 3]))
    hidden_BTD = torch.full((1, 2, 2), 5.0)
    for value in (np.nan, np.inf):
        hidden_BTD[0, 1, 0] = value
        with pytest.raises(DivergedError, match="diverged") as error:
            states.put(torch.tensor([1]), hidden_BTD)
        assert "float32_mb" not in str(error.value)
