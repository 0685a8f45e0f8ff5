"""Tasks of TAPE in files as TAPE lays them out, made here: the real ones are not at hand."""

import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lit_seqlm.data.annotated import AnnotatedData
from lit_seqlm.data.annotated_table import OUTSIDE
from lit_seqlm.data.proteins.cleaning import clean
from lit_seqlm.data.proteins.sources import read_written
from lit_seqlm.data.proteins.tape_annotated import (
    TapeProteinNet,
    TapeRemoteHomology,
    TapeSecondaryStructure,
)
from lit_seqlm.errors import UserError
from lit_seqlm.tokenizer.amino_acid import STANDARD, AminoAcidTokenizer

TOKENIZER = AminoAcidTokenizer("cls_sep", "keep", False)
SPLITS = {
    "secondary_structure": ("train", "valid", "casp12", "ts115", "cb513"),
    "proteinnet": ("train", "valid", "test"),
    "remote_homology": (
        "train", "valid", "test_fold_holdout", "test_superfamily_holdout", "test_family_holdout",
    ),
}  # fmt: skip
GROUPS = [0, 0, 0, 1, 1, 2, 2, 2]


def proteins(task: str, split: str) -> list[dict[str, Any]]:
    rng = np.random.default_rng(list(f"{task} {split}".encode()))
    found: list[dict[str, Any]] = []
    for number in range(4):
        length = int(rng.integers(10, 30))
        one: dict[str, Any] = {"primary": "".join(rng.choice(list(STANDARD), length))}
        one |= {"protein_length": length, "id": str(number)}
        if task != "remote_homology":
            one["valid_mask"] = (rng.random(length) < 0.8).tolist()
        if task == "secondary_structure":
            one["ss8"] = rng.integers(0, 8, length).tolist()
            one["ss3"] = [GROUPS[label] for label in one["ss8"]]
        elif task == "proteinnet":
            one["tertiary"] = (10 * rng.normal(size=(length, 3))).tolist()
        else:
            one["fold_label"] = number + 7 * (split == "valid")
        found.append(one)
    return found


def as_lmdb(path: Path, records: list[dict[str, Any]]) -> None:
    """As TAPE writes it, arrays as arrays."""
    lmdb = pytest.importorskip("lmdb")
    kinds = {"valid_mask": bool, "tertiary": np.float32, "ss3": np.int64, "ss8": np.int64}
    with lmdb.open(str(path), map_size=2**20) as environment, environment.begin(write=True) as file:
        file.put(b"num_examples", pickle.dumps(len(records)))
        for number, one in enumerate(records):
            value = {k: np.array(v, kinds[k]) if k in kinds else v for k, v in one.items()}
            file.put(str(number).encode(), pickle.dumps(value))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for task, splits in SPLITS.items():
        (tmp_path / task).mkdir()
        for split in splits:
            path = tmp_path / task / f"{task}_{split}.json"
            path.write_text(json.dumps(proteins(task, split)))
    return tmp_path


def changed(folder: Path, task: str, split: str, **values: Any) -> None:
    """The first protein of a file with other values; None takes one away."""
    path = folder / task / f"{task}_{split}.json"
    found = json.loads(path.read_text())
    found[0] = {key: value for key, value in (found[0] | values).items() if value is not None}
    path.write_text(json.dumps(found))


def structure(folder: Path, classes: int = 3, train_on: str = "all") -> TapeSecondaryStructure:
    return TapeSecondaryStructure(str(folder), "secondary_structure", classes, train_on)


def contacts(folder: Path, closed: bool = False, separation: int = 0) -> TapeProteinNet:
    return TapeProteinNet(str(folder), "proteinnet", 8.0, closed, separation)


def data(source: Any) -> AnnotatedData:
    made = AnnotatedData(source, TOKENIZER, 2000, 2000, 16, None, "error", None, 1)
    made.prepare_data()
    made.setup()
    return made


@pytest.mark.parametrize("classes", [3, 8])
def test_structure_and_mask_are_those_of_the_file(folder: Path, classes: int) -> None:
    made = data(structure(folder, classes))
    assert made.classes == tuple("HEC" if classes == 3 else "GHIBESTC")
    assert made.tests == ("cb513", "casp12", "ts115")
    for split in ("train", "valid", *made.tests):
        table = made.tables[split].table
        for place, one in enumerate(proteins("secondary_structure", split)):
            assert table.names[place] == one["id"]
            assert table.sequences[place] == one["primary"]
            assert table.labels[place].tolist() == one[f"ss{classes}"]
            assert table.scopes["resolved"][place].tolist() == one["valid_mask"]
    batch = next(iter(made.exact_dataloader("cb513")))
    assert int((batch.sites >= 0).sum()) == int((batch.tokens_BT >= 5).sum())


def test_unresolved_residues_may_be_left_unlearnt(folder: Path) -> None:
    table = structure(folder, train_on="resolved").table("train", TOKENIZER)
    for label, one in zip(table.labels, proteins("secondary_structure", "train"), strict=True):
        wanted = [
            a if known else -1 for a, known in zip(one["ss3"], one["valid_mask"], strict=True)
        ]
        assert label.tolist() == wanted


def test_contacts_are_of_residues_that_are_in_space(folder: Path) -> None:
    made = data(contacts(folder, separation=6))
    for split in ("train", "valid", "test"):
        labels = made.tables[split].table.labels
        for label, one in zip(labels, proteins("proteinnet", split), strict=True):
            points, known = np.array(one["tertiary"]), one["valid_mask"]
            for i in range(len(points)):
                for j in range(len(points)):
                    touch = np.linalg.norm(points[i] - points[j]) < 8.0
                    near = split == "train" and abs(i - j) < 6
                    scored = known[i] and known[j] and not near
                    assert label[i, j] == (touch if scored else -1)


def test_missing_coordinates_are_not_scored(folder: Path) -> None:
    points = np.array(proteins("proteinnet", "test")[0]["tertiary"])
    points[2] = np.nan
    changed(folder, "proteinnet", "test", tertiary=points.tolist(), valid_mask=[True] * len(points))
    label = contacts(folder).table("test", TOKENIZER).labels[0]
    assert (label[2] == -1).all()
    assert (label[:, 2] == -1).all()
    assert (np.delete(np.delete(label, 2, 0), 2, 1) >= 0).all()


def test_folds_are_those_of_the_training_part(folder: Path) -> None:
    made = data(TapeRemoteHomology(str(folder), "remote_homology"))
    assert made.classes == ("0", "1", "2", "3")
    assert list(made.tables["train"].table.labels) == [0, 1, 2, 3]
    assert list(made.tables["valid"].table.labels) == [OUTSIDE] * 4
    assert made.tests == ("fold", "superfamily", "family")


@pytest.mark.parametrize(
    ("task", "values", "message"),
    [
        ("secondary_structure", {"ss3": [0, 1]}, r"train, 0: 2 labels, and \d+ residues"),
        ("secondary_structure", {"ss3": None}, "train, 0: it has no 'ss3'. It has: id, "),
        ("secondary_structure", {"ss3": ["H"] * 9}, "train, 0: 'ss3' is no array of numbers"),
        ("secondary_structure", {"ss3": [0.5] * 9}, "train, 0: 'ss3' is no list of classes"),
        ("secondary_structure", {"primary": "AC?D"}, r"train, 0: '\?' at position 3"),
        ("secondary_structure", {"primary": "A", "ss3": [7], "valid_mask": [1]}, "class 7"),
        ("secondary_structure", {"ss3": [None] * 9}, "train, 0: 'ss3' is no list of classes"),
        ("secondary_structure", {"primary": True}, "train, 0: 'primary' is True; a sequence is"),
        ("secondary_structure", {"primary": 7}, "train, 0: 'primary' is 7; a sequence is a text"),
        ("secondary_structure", {"valid_mask": [None]}, "train, 0: 'valid_mask' is no list of"),
        ("secondary_structure", {"valid_mask": [[1]]}, "train, 0: 'valid_mask' is no list of"),
        ("proteinnet", {"valid_mask": [1, float("nan")]}, "train, 0: 'valid_mask' is no list of"),
        ("remote_homology", {"primary": ["MKV"]}, r"train, 0: 'primary' is \['MKV'\]; a sequence"),
        ("remote_homology", {"fold_label": [None]}, "train, 0: 'fold_label' is no list of classes"),
        ("proteinnet", {"tertiary": [[0, 0]] * 3}, "'tertiary' is 3 x 2"),
        ("proteinnet", {"valid_mask": [True]}, "'valid_mask' has 1 entries"),
        ("remote_homology", {"fold_label": None}, "it has no 'fold_label'"),
        ("remote_homology", {"primary": ""}, "the sequence is empty"),
    ],
)
def test_what_does_not_fit_is_refused_by_name(
    folder: Path, task: str, values: dict[str, Any], message: str
) -> None:
    changed(folder, task, "train", **values)
    source = {
        "secondary_structure": lambda: structure(folder),
        "proteinnet": lambda: contacts(folder),
        "remote_homology": lambda: TapeRemoteHomology(str(folder), "remote_homology"),
    }[task]()
    with pytest.raises(UserError, match=message):
        data(source)


@pytest.mark.parametrize("task", ["secondary_structure", "proteinnet", "remote_homology"])
def test_null_is_no_protein(folder: Path, task: str) -> None:
    path = folder / task / f"{task}_train.json"
    records = json.loads(path.read_text())
    records[0]["primary"] = None
    path.write_text(json.dumps(records))
    source = {
        "secondary_structure": structure,
        "proteinnet": contacts,
        "remote_homology": lambda folder: TapeRemoteHomology(str(folder), task),
    }[task](folder)
    with pytest.raises(UserError, match=r"train, 0: the sequence is empty"):
        source.table("train", TOKENIZER)


@pytest.mark.parametrize(
    ("value", "wanted"),
    [
        ("MKV", "MKV"),
        (b"MKV", "MKV"),
        (None, ""),
        (b"MK\xffV", "MK\ufffdV"),
        ("MK\u00e9V".encode(), "MK\u00e9V"),  # one sign, not its two bytes
    ],
)
def test_a_sequence_is_one_text_to_all_readers(tmp_path: Path, value: Any, wanted: str) -> None:
    """Those of labelled proteins and those of any file."""
    path = tmp_path / "secondary_structure" / "secondary_structure_train.lmdb"
    path.parent.mkdir()
    as_lmdb(path, [{"primary": value, "id": "P1", "ss3": [0], "valid_mask": [1]}])
    (labelled,) = structure(tmp_path).proteins("train")
    (written,) = read_written(str(path), None)
    assert labelled.sequence == written.text == wanted
    if set(wanted) - set(STANDARD):
        reason = clean(wanted, "keep", False).reason
        assert reason.endswith("at position 3 is no residue")


@pytest.mark.parametrize("wrong", [65536, 65537, -65535, 1e30, float("inf")])
def test_a_class_beyond_16_bits_is_refused_and_not_another_one(folder: Path, wrong: float) -> None:
    labels = {"primary": "ACD", "ss3": [0, wrong, 2], "valid_mask": [1, 1, 1]}
    changed(folder, "secondary_structure", "train", **labels)
    changed(folder, "remote_homology", "train", fold_label=wrong)
    said = r"train, 0: 'ss3' is -?\w+ at position 2; a class is a whole number from -32768 to 32767"
    for train_on in ("all", "resolved"):
        with pytest.raises(UserError, match=said):
            data(structure(folder, train_on=train_on))
    with pytest.raises(UserError, match=r"train, 0: 'fold_label' is .* at position 1; a class is"):
        data(TapeRemoteHomology(str(folder), "remote_homology"))


@pytest.mark.parametrize("train_on", ["all", "resolved"])
def test_a_class_beyond_8_bits_is_refused_and_not_another_one(folder: Path, train_on: str) -> None:
    labels = {"primary": "ACD", "ss3": [0, 256, 2], "valid_mask": [1, 1, 1]}
    changed(folder, "secondary_structure", "train", **labels)
    with pytest.raises(UserError, match=r"train, 0: class 256"):
        data(structure(folder, train_on=train_on))


@pytest.mark.parametrize("task", ["structure", "contacts", "folds"])
def test_lmdb_is_read_as_json_is(folder: Path, task: str) -> None:
    def source() -> Any:
        if task == "folds":
            return TapeRemoteHomology(str(folder), "remote_homology")
        return structure(folder) if task == "structure" else contacts(folder)

    before, digest = data(source()), source().digest()
    for path in list(folder.glob("*/*.json")):
        records = json.loads(path.read_text())
        path.unlink()
        as_lmdb(path.with_suffix(".lmdb"), records)
    after = data(source())
    assert source().digest() != digest
    for split, found in before.tables.items():
        again = after.tables[split].table
        assert again.names == found.table.names
        assert again.sequences == found.table.sequences
        for one, two in zip(found.table.labels, again.labels, strict=True):
            assert np.array_equal(one, two)
    assert source().digest() == source().digest(), "reading an LMDB leaves it as it is"


def test_files_that_are_missing_or_others_are_told(folder: Path) -> None:
    before = structure(folder).digest()
    changed(folder, "secondary_structure", "cb513", protein_length=0)
    assert structure(folder).digest() != before
    (folder / "secondary_structure/secondary_structure_casp12.json").unlink()
    with pytest.raises(UserError, match=r"secondary_structure_casp12\.lmdb or .*_casp12\.json"):
        data(structure(folder))
