"""TAPE's files: an LMDB of pickles, and its twins in JSON; a pickle that brings code is refused."""

import os
import pickle
import random
import shutil
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lit_seqlm.data.proteins.cleaning import Record
from lit_seqlm.data.proteins.plain_pickle import RefusedError, load_plain
from lit_seqlm.data.proteins.sources import read_records
from lit_seqlm.data.proteins.tape_files import read_tape, tape_file
from lit_seqlm.errors import UserError


class Runs:
    """A pickle of it makes a file when it is read by the usual reader."""

    def __init__(self, marker: Path):
        self.marker = marker

    def __reduce__(self) -> Any:
        return os.system, (f"touch {self.marker}",)


PLAIN = {
    "primary": "MKV",
    "id": b"7",
    "empty": b"",
    "array": np.arange(6.0).reshape(2, 3),
    "fortran": np.asfortranarray(np.arange(6, dtype=np.float32).reshape(2, 3)),
    "scalar": np.float32(2.5),
    "mask": np.array([True, False]),
    "words": np.array(["ab", "c"]),
    "none": np.zeros((0, 3)),
    "point": np.array(3.0),
    "big": np.arange(3, dtype=">i4"),
    "nested": [1, (2, None), {"a": {1, 2}, "b": 3j}, 2**70],
}
REFUSED = [
    np.array([1, "a", None], object),
    np.zeros(2, [("a", "i4")]),
    np.zeros(2, "M8[s]"),
    np.ma.masked_array([1]),
    [print],
    {"x": Path("a")},
]
# Opcodes written by hand: a name that may be called is called with what it does not take.
TRICKS = [
    b"cnumpy\nndarray\n(I1000000000000\ntR.",
    b"c_codecs\nencode\n(Vabc\nVzip\ntR.",
    b"cnumpy\ndtype\n(VO\ntR.",
    b"cnumpy.core.multiarray\nscalar\n(VO\nVabc\ntR.",
    b"cbuiltins\nbytes\n(I1000000000000\ntR.",
    b"cbuiltins\ngetattr\n.",
    b"\x80\x04\x8c\x08builtins\x8c\x0bset.__new__\x93.",
    b"cbuiltins\nset\n(VO\ntR",
    b"",
    b"no pickle",
]


class TestPickles:
    @pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
    def test_plain_values_are_what_pickle_makes_of_them(self, protocol: int) -> None:
        pickled = pickle.dumps(PLAIN, protocol)
        found, expected = load_plain(pickled), pickle.loads(pickled)
        assert list(found) == list(expected)
        for key, value in expected.items():
            assert type(found[key]) is type(value), key
            if isinstance(value, np.ndarray):
                np.testing.assert_array_equal(found[key], value)
                assert (found[key].dtype, found[key].shape) == (value.dtype, value.shape)
                found[key][...] = value  # and can be written to
            else:
                assert found[key] == value

    @pytest.mark.parametrize("core", ["numpy.core", "numpy._core"])
    def test_of_either_numpy(self, core: str) -> None:
        pickled = pickle.dumps(np.arange(3), 0)
        other = pickled.replace(b"numpy._core.", b"numpy.core.")
        other = other.replace(b"numpy.core.", f"{core}.".encode())
        assert load_plain(other).tolist() == [0, 1, 2]

    @pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
    def test_code_is_refused_and_not_run(self, tmp_path: Path, protocol: int) -> None:
        marker = tmp_path / "it_ran"
        for value in (Runs(marker), {"a": [1, Runs(marker)]}, *REFUSED):
            with pytest.raises(RefusedError):
                load_plain(pickle.dumps(value, protocol))
        assert not marker.exists()
        pickle.loads(pickle.dumps(Runs(marker), protocol))
        assert marker.exists(), "the usual reader would have run it"

    @pytest.mark.parametrize("pickled", TRICKS)
    def test_tricks(self, pickled: bytes) -> None:
        with pytest.raises(pickle.UnpicklingError):
            load_plain(pickled)

    def test_damage_is_told_as_damage(self) -> None:
        """Whatever is changed, the reader answers or refuses; it is never brought down."""
        whole, rng = bytearray(pickle.dumps(PLAIN, 4)), random.Random(0)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            for _ in range(2_000):
                broken = whole[: rng.randint(1, len(whole))]
                for _ in range(rng.randint(0, 4)):
                    broken[rng.randrange(len(broken))] = rng.randrange(256)
                try:
                    load_plain(bytes(broken))
                except pickle.UnpicklingError:
                    continue


def record(task: str, number: int) -> dict[str, Any]:
    """One protein with the keys that each task of TAPE has."""
    rng = np.random.default_rng(number)
    size = int(rng.integers(3, 9))
    found: dict[str, Any] = {
        "primary": "".join(rng.choice(list("ACDEFG"), size)),
        "protein_length": size,
    }
    own: dict[str, dict[str, Any]] = {
        "pfam": {"clan": 3, "family": 12},
        "secondary_structure": {"ss3": rng.integers(0, 3, size), "ss8": rng.integers(0, 8, size),
                                "valid_mask": rng.random(size) < 0.9, "evolutionary": rng.random((size, 30))},
        "proteinnet": {"tertiary": rng.normal(size=(size, 3)).astype(np.float32), "valid_mask": rng.random(size) < 0.9},
        "remote_homology": {"fold_label": 5, "class_label": 1, "superfamily_label": 2, "family_label": 3},
        "fluorescence": {"log_fluorescence": np.array([3.5], np.float32), "num_mutations": 2},
        "stability": {"stability_score": [0.5], "parent": "EEHEE_rd3", "topology": "EEHEE", "id": f"d{number}"},
    }  # fmt: skip
    return found | own[task]


TASKS = ["pfam", "secondary_structure", "proteinnet", "remote_homology", "fluorescence", "stability"]  # fmt: skip


def write_lmdb(path: Path, values: dict[str, Any], subdir: bool = False) -> Path:
    lmdb = pytest.importorskip("lmdb")
    whole = lmdb.open(str(path), subdir=subdir, map_size=2**24, lock=False)
    with whole, whole.begin(write=True) as transaction:
        for key, value in values.items():
            raw = value if isinstance(value, bytes) else pickle.dumps(value)
            transaction.put(key.encode(), raw)
    return path


def numbered(records: list[Any]) -> dict[str, Any]:
    return {"num_examples": len(records), **{str(n): one for n, one in enumerate(records)}}


class TestTape:
    @pytest.mark.parametrize("subdir", [False, True])
    @pytest.mark.parametrize("task", TASKS)
    def test_every_task_is_read_back(self, tmp_path: Path, task: str, subdir: bool) -> None:
        records = [record(task, number) for number in range(12)]
        place = tmp_path / task / f"{task}_train.lmdb"
        place.parent.mkdir()
        write_lmdb(place, numbered(records), subdir)
        before = sorted(place.parent.rglob("*"))
        found = list(read_tape(tape_file(tmp_path, task, "train")))
        assert [one["id"] for one in found] == [
            one.get("id", str(number)) for number, one in enumerate(records)
        ]
        for one, expected in zip(found, records, strict=True):
            assert set(one) == {*expected, "id"}
            for key, value in expected.items():
                np.testing.assert_array_equal(one[key], value)
        names = [one["id"] for one in found]
        sequences = [one["primary"] for one in records]
        assert list(read_records(str(place))) == list(map(Record, names, sequences))
        assert sorted(place.parent.rglob("*")) == before, "no lock is left"

    @pytest.mark.parametrize("name", ["a.json", "a.jsonl"])
    def test_the_json_twins(self, tmp_path: Path, name: str) -> None:
        one, two = '{"primary": "MK", "ss3": [0, 1]}', '{"primary": "V", "ss3": [2], "id": 9}'
        text = f"[{one}, {two}]" if name == "a.json" else f"{one}\n{two}\n"
        (tmp_path / name).write_text(text)
        assert list(read_tape(tmp_path / name)) == [
            {"primary": "MK", "ss3": [0, 1], "id": "0"},
            {"primary": "V", "ss3": [2], "id": 9},
        ]

    def test_what_is_missing_says_where_it_is_had(self, tmp_path: Path) -> None:
        with pytest.raises(
            UserError, match=r"no pfam_valid\.lmdb or pfam_valid\.json in .*songlab"
        ):
            tape_file(tmp_path, "pfam", "valid")
        (tmp_path / "pfam_valid.json").write_text("[]")
        assert tape_file(tmp_path, "pfam", "valid").name == "pfam_valid.json"
        with pytest.raises(UserError, match=r"files of TAPE end in"):
            list(read_tape(tmp_path / "a.pkl"))
        with pytest.raises(UserError, match=r"cannot be read \(No such file"):
            list(read_tape(tmp_path / "a.lmdb"))

    def test_code_in_a_record_is_refused_by_its_place(self, tmp_path: Path) -> None:
        marker = tmp_path / "it_ran"
        path = write_lmdb(tmp_path / "a.lmdb", numbered([{"primary": "M"}, Runs(marker)]))
        found = read_tape(path)
        assert next(found)["primary"] == "M"
        with pytest.raises(
            UserError, match=r"protein 2: its pickle holds more than .*posix\.system"
        ):
            next(found)
        assert not marker.exists()

    @pytest.mark.parametrize(
        ("values", "message"),
        [
            ({"0": {}}, "has no key 'num_examples'"),
            ({"num_examples": "2"}, "num_examples is no number"),
            ({"num_examples": True, "0": {"primary": "M"}}, "num_examples is no number"),
            ({"num_examples": 2, "0": {}}, "protein 2: it is missing, though the file says 2"),
            (numbered([["M"]]), "protein 1: not a dictionary"),
            (numbered([{1: "M"}]), "protein 1: not a dictionary"),
            (numbered([b"\x80\x04garbage"]), "protein 1: not a readable pickle"),
        ],
    )
    def test_faults(self, tmp_path: Path, values: dict[str, Any], message: str) -> None:
        path = write_lmdb(tmp_path / "a.lmdb", values)
        with pytest.raises(UserError, match=message):
            list(read_tape(path))

    def test_entries_that_are_not_read_are_told(
        self, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        path = write_lmdb(tmp_path / "a.lmdb", {"num_examples": 1, "0": {"primary": "M"}, "x": 1})
        assert len(list(read_tape(path))) == 1
        assert "1 entries beside its 1 proteins are not read" in caplog.text

    def test_a_file_that_is_none_or_cut_off(self, tmp_path: Path) -> None:
        """The library maps the file: what it would not survive is refused before."""
        path = write_lmdb(tmp_path / "a.lmdb", numbered([{"primary": "MK" * 500}] * 200))
        short = shutil.copy(path, tmp_path / "short.lmdb")
        os.truncate(short, path.stat().st_size // 2)
        with pytest.raises(UserError, match="is cut off"):
            list(read_tape(short))
        for size in (0, 10, 100):
            os.truncate(short, size)
            with pytest.raises(UserError, match=r"is no LMDB|cannot be read as LMDB"):
                list(read_tape(short))
        (tmp_path / "b.lmdb").write_text("no such thing, and longer than its first words")
        with pytest.raises(UserError, match="is no LMDB"):
            list(read_tape(tmp_path / "b.lmdb"))
