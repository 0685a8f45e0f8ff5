"""What RDKit is asked, and rows of files."""

import gzip
import io
import random
import sys
import tracemalloc
from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
from rdkit import Chem
from rdkit.Chem import rdMolDescriptors

from lit_seqlm.data.chemistry.canonical import canonicalize, version
from lit_seqlm.data.chemistry.composition import ELEMENTS, composition
from lit_seqlm.data.chemistry.fingerprint import fingerprints
from lit_seqlm.data.chemistry.rows import Row, read_rows
from lit_seqlm.data.chemistry.scaffold import murcko_scaffold, stereo_free
from lit_seqlm.errors import UserError

MOLECULES = [
    "CC(=O)Oc1ccccc1C(=O)O",
    "[H]C([H])([H])[H]",
    "C[C@H](N)C(=O)[O-]",
    "F/C=C/Cl",
    "[2H]C([2H])O",
    "[Na+].[Cl-]",
    "c1ccc2c(c1)[nH]c1ccccc12",
    "O=S(=O)(N)C#N",
    "[H][H]",
]


class TestCanonical:
    @pytest.mark.parametrize("isomeric", [False, True])
    @pytest.mark.parametrize("smiles", MOLECULES)
    def test_the_same_for_every_way_to_write_a_molecule(self, smiles: str, isomeric: bool) -> None:
        molecule = Chem.MolFromSmiles(smiles)
        written = {Chem.MolToSmiles(molecule, doRandom=True) for _ in range(20)}
        assert {canonicalize(one, isomeric).smiles for one in written} == {
            canonicalize(smiles, isomeric).smiles
        }

    @pytest.mark.parametrize("isomeric", [False, True])
    @pytest.mark.parametrize("smiles", [*MOLECULES, "[H][NH+]=C(N)C", "[H]/N=C/C", "[2H]/N=C/C"])
    def test_a_second_time_changes_nothing(self, smiles: str, isomeric: bool) -> None:
        once = canonicalize(smiles, isomeric).smiles
        assert once is not None
        assert canonicalize(once, isomeric).smiles == once

    def test_stereo_marks_are_an_option(self) -> None:
        assert canonicalize("C[C@H](N)O", True).smiles != canonicalize("C[C@@H](N)O", True).smiles
        assert canonicalize("C[C@H](N)O", False).smiles == canonicalize("CC(N)O", False).smiles
        assert canonicalize("F/C=C/F", False).smiles == "FC=CF"

    def test_explicit_hydrogen_is_removed(self) -> None:
        assert canonicalize("[H]C([H])([H])[H]", True).smiles == "C"
        assert canonicalize("[2H]C", True).smiles == "[2H]C"
        assert canonicalize("[2H]C", False).smiles == "C"

    @pytest.mark.parametrize(
        ("smiles", "reason"),
        [
            ("", "empty"),
            (" \n", "empty"),
            (None, "empty"),
            ("CC(C)(C)(C)C", "invalid_smiles: Explicit valence for atom # 1 C, 5, is greater"),
            ("c1ccc", "invalid_smiles: unclosed ring"),
            ("CC(", "invalid_smiles: "),
            ("c1cccc1", "invalid_smiles: Can't kekulize mol."),
            ("CC ethane", "invalid_smiles: white space inside"),
            ("C\0C", "invalid_smiles: '\\x00' is no sign"),
            ("C\ud800", "invalid_smiles: '\\ud800' is no sign"),
            ("Cé", "invalid_smiles: '\\xe9' is no sign"),  # RDKit alone reads methane
            ("C" * 20_000, "too_long: 20,000 signs, of at most 5,000"),  # ends RDKit's process
        ],
    )
    def test_what_is_no_molecule_has_a_reason(self, smiles: str | None, reason: str) -> None:
        found = canonicalize(smiles, False)
        assert found.smiles is None
        assert found.reason.startswith(reason)
        assert "\n" not in found.reason
        assert len(found.reason) > len("invalid_smiles: ") or reason == "empty"

    def test_nothing_is_logged(self, capfd: pytest.CaptureFixture[str]) -> None:
        for smiles in ("CC(C)(C)(C)C", "CC(", "c1cccc1"):
            canonicalize(smiles, False)
        assert capfd.readouterr() == ("", "")
        Chem.MolFromSmiles("CC(")  # others are told as before
        assert "CC(" in capfd.readouterr().err

    def test_nothing_is_raised(self) -> None:
        rng = random.Random(0)
        for _ in range(2000):
            smiles = "".join(rng.choice("CNOcn1=()[]#H+-@/\\. %") for _ in range(rng.randrange(12)))
            found = canonicalize(smiles, False)
            assert (found.smiles is None) == bool(found.reason)

    def test_the_version_is_known(self) -> None:
        assert version()[:4].isdigit()


class TestComposition:
    @pytest.mark.parametrize("smiles", MOLECULES)
    def test_counts_are_those_with_all_hydrogen_written_out(self, smiles: str) -> None:
        whole = Chem.AddHs(Chem.MolFromSmiles(smiles))
        counts = Counter(atom.GetSymbol() for atom in whole.GetAtoms())
        assert composition(smiles).tolist() == [counts[element] for element in ELEMENTS]
        assert composition(smiles, ["Cl", "H"]).tolist() == [counts["Cl"], counts["H"]]
        assert composition(smiles).dtype == np.float64

    def test_what_is_no_molecule_or_no_element(self) -> None:
        with pytest.raises(UserError, match="'C1' has no composition: invalid_smiles"):
            composition("C1")
        with pytest.raises(UserError, match="no 'cl'"):
            composition("C", ["cl"])


class TestScaffold:
    @pytest.mark.parametrize(
        ("smiles", "scaffold"),
        [
            ("CC(C)Cc1ccc(cc1)C(C)C(=O)O", "c1ccccc1"),
            ("CCO", ""),
            ("C[C@H]1CC[C@@H](C1)CCc1ccncc1", "c1cc(CCC2CCCC2)ccn1"),
        ],
    )
    def test_by_hand(self, smiles: str, scaffold: str) -> None:
        expected = scaffold and Chem.CanonSmiles(scaffold)
        assert murcko_scaffold(smiles) == expected

    def test_stereo_isomers_share_scaffold_and_key(self) -> None:
        both = ["O[C@H]1CC[C@@H](c2ccccc2)C1", "O[C@@H]1CC[C@@H](c2ccccc2)C1"]
        assert len({canonicalize(smiles, True).smiles for smiles in both}) == 2
        assert len({murcko_scaffold(smiles) for smiles in both}) == 1
        assert len({stereo_free(smiles) for smiles in both}) == 1

    def test_what_is_no_molecule(self) -> None:
        assert stereo_free("C1") == "C1"
        with pytest.raises(UserError, match="no scaffold"):
            murcko_scaffold("C1")


class TestFingerprints:
    def test_counts_are_the_older_interface_s(self) -> None:
        found_NF = fingerprints(MOLECULES)
        assert found_NF.dtype == np.uint8
        for row, smiles in enumerate(MOLECULES):
            expected = np.zeros(2048, np.int64)
            molecule = Chem.MolFromSmiles(smiles)
            counts = rdMolDescriptors.GetHashedMorganFingerprint(molecule, 2, nBits=2048)
            for feature, count in counts.GetNonzeroElements().items():
                expected[feature] = count
            assert found_NF[row].tolist() == expected.tolist()

    def test_counts_stay_in_a_byte(self) -> None:
        assert fingerprints(["C" * 400]).max() == 255

    def test_the_molecule_is_named(self) -> None:
        with pytest.raises(UserError, match="molecule 2, 'C1'"):
            fingerprints(["C", "C1"])


TABLE = 'name,smiles,y\n"a, b",CC,1\n,,\nc,[broken,x\nd\n'
ROWS = [
    Row(1, "CC", {"name": "a, b", "y": "1"}),
    Row(2, "", {"name": "", "y": ""}),
    Row(3, "[broken", {"name": "c", "y": "x"}),
    Row(4, "", {"name": "d", "y": ""}),
]


def put(path: Path, text: str, mark: str = "") -> str:
    content = (mark + text).encode()
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)
    return str(path)


class TestRows:
    @pytest.mark.parametrize("mark", ["", "\ufeff"])
    @pytest.mark.parametrize("end", ["\n", "\r\n"])
    @pytest.mark.parametrize("name", ["a.csv", "a.CSV", "a.csv.gz"])
    def test_a_table_row_by_row(self, tmp_path: Path, name: str, end: str, mark: str) -> None:
        path = put(tmp_path / name, TABLE.replace("\n", end), mark)
        assert list(read_rows(path, "smiles")) == ROWS

    def test_only_the_columns_asked_for(self, tmp_path: Path) -> None:
        path = put(tmp_path / "a.csv", TABLE)
        assert next(read_rows(path, "smiles", ["y"])).columns == {"y": "1"}
        assert next(read_rows(path, "smiles", ())).columns == {}
        assert next(read_rows(path, "name", ["smiles"])).smiles == "a, b"

    def test_tabs(self, tmp_path: Path) -> None:
        path = put(tmp_path / "a.tsv", "smiles\ty\nC,C\t2\n")
        assert list(read_rows(path, "smiles")) == [Row(1, "C,C", {"y": "2"})]

    @pytest.mark.parametrize("header", ["", "SMILES zinc_id\n"])
    @pytest.mark.parametrize("name", ["a.smi", "a.txt.gz"])
    def test_a_list(self, tmp_path: Path, name: str, header: str) -> None:
        path = put(tmp_path / name, header + "CC ethane gas\n\nCO\tmethanol\nC")
        assert list(read_rows(path, "whatever")) == [
            Row(1, "CC", {"name": "ethane gas"}),
            Row(2, "", {"name": ""}),
            Row(3, "CO", {"name": "methanol"}),
            Row(4, "C", {"name": ""}),
        ]

    def test_parquet_keeps_types_and_missing_values(self, tmp_path: Path) -> None:
        table = pyarrow.table({"smiles": ["CC", None, "C1"], "y": [1.5, None, 2.0], "z": [1, 2, 3]})
        path = str(tmp_path / "a.parquet")
        pyarrow.parquet.write_table(table, path, row_group_size=2)
        assert list(read_rows(path, "smiles", ["y"])) == [
            Row(1, "CC", {"y": 1.5}),
            Row(2, "", {"y": None}),
            Row(3, "C1", {"y": 2.0}),
        ]

    @pytest.mark.parametrize(
        ("text", "rows"),
        [
            ("smiles,y\nCC,1\n", [Row(1, "CC", {"y": "1"})]),
            ("smiles\nCC\n", [Row(1, "CC", {"name": ""})]),
            ("CC x\nC\n", [Row(1, "CC", {"name": "x"}), Row(2, "C", {"name": ""})]),
            ("", []),
        ],
    )
    def test_standard_input(
        self, text: str, rows: list[Row], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(text.encode())))
        assert list(read_rows("-", "smiles")) == rows

    def test_a_table_of_other_columns_on_standard_input_is_no_list(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"SMILES,y\nCC,1\n")))
        with pytest.raises(UserError, match=r"standard input has no column 'smiles'.*SMILES, y"):
            list(read_rows("-", "smiles"))

    def test_a_sign_that_is_not_utf_8_spoils_one_row(self, tmp_path: Path) -> None:
        path = tmp_path / "a.smi"
        path.write_bytes(b"CC\nC\xff\nCO\n")
        rows = list(read_rows(str(path), "smiles"))
        assert [canonicalize(row.smiles, False).smiles for row in rows] == ["CC", None, "CO"]

    @pytest.mark.parametrize(
        ("name", "text", "message"),
        [
            ("a.csv", "SMILES,y\nC,1\n", "no column 'smiles'. .*Accepted: SMILES, y"),
            ("a.csv", "", "no column 'smiles'. It is empty"),
            ("a.csv", "smiles,smiles\nC,C\n", "2 columns named 'smiles'"),
            ("a.csv", "smiles,y\nC,1\nC,1,2\n", "row 2: 3 fields under 2 column names"),
            ("a.json", "{}", "are read from .csv, .tsv"),
            ("a.csv", 'smiles,y\nC,1\n"CC,2\nCCC,3\n', "row 2: not a readable table"),
            ("a.csv.gz", "", "no column"),
            ("a.parquet", "no parquet", "cannot be read as parquet"),
        ],
    )
    def test_faults(self, tmp_path: Path, name: str, text: str, message: str) -> None:
        path = put(tmp_path / name, text)
        with pytest.raises(UserError, match=message):
            list(read_rows(path, "smiles"))

    def test_faults_of_columns(self, tmp_path: Path) -> None:
        path = put(tmp_path / "a.csv", TABLE)
        with pytest.raises(UserError, match=r"no column 'yy'\. Did you mean y"):
            list(read_rows(path, "smiles", ["yy"]))
        with pytest.raises(UserError, match="one column, name, and not 'y'"):
            list(read_rows(put(tmp_path / "a.smi", "C\n"), "smiles", ["y"]))

    def test_faults_of_files(self, tmp_path: Path) -> None:
        with pytest.raises(UserError, match=r"a\.csv cannot be read \(No such file"):
            list(read_rows(str(tmp_path / "a.csv"), "smiles"))
        path = tmp_path / "a.smi.gz"
        path.write_bytes(gzip.compress(random.Random(0).randbytes(5000))[:-2000])
        with pytest.raises(UserError, match="broken or cut-off gzip"):
            list(read_rows(str(path), "smiles"))

    @pytest.mark.parametrize("name", ["a.csv.gz", "a.smi"])
    def test_memory_does_not_grow_with_the_file(self, tmp_path: Path, name: str) -> None:
        peaks = []
        for num_rows in (2_000, 40_000):
            path = put(tmp_path / name, "smiles,y\n" + "CCCCCCCCO,1\n" * num_rows)
            tracemalloc.start()
            assert sum(1 for _ in read_rows(path, "smiles")) >= num_rows
            peaks.append(tracemalloc.get_traced_memory()[1])
            tracemalloc.stop()
        assert peaks[1] < peaks[0] + 100_000
