"""BLAST's databases, and the Swiss-Prot with GO terms that Debian has in three of them."""

import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lit_seqlm.data.proteins.blast import LETTERS, BlastDatabase, first_title
from lit_seqlm.data.proteins.cleaning import Record
from lit_seqlm.data.proteins.metastudent import (
    DATABASE,
    FOLDER,
    ONTOLOGIES,
    RELEASE,
    Metastudent,
)
from lit_seqlm.data.proteins.sources import read_records
from lit_seqlm.errors import UserError

LONG = "E5 " + "x" * 400  # its length takes two bytes
# The byte of the second title's length is 0x41, an A, that of the third 0x39, a 9.
TITLES = ["P1 first", "P2 " + "y" * 62, "P3|" + "z" * 54, "P4 " + "w" * 197, LONG]
SEQUENCES = ["MKVL", LETTERS[1:], "X", "ACDEFGHIKLMNPQRSTVWY" * 5, "MU*"]
LINES = ["P1\tGO:0000001\tGO:0000001\tGO:0000002", *(f"P{n}\tGO:0000003" for n in range(2, 6))]
INSTALLED = pytest.mark.skipif(
    not Path(FOLDER).is_dir(), reason="apt-get install metastudent-data puts it there"
)


def length(size: int) -> bytes:
    if size < 0x80:
        return bytes([size])
    return bytes([0x81, size]) if size < 0x100 else bytes([0x82, *size.to_bytes(2, "big")])


def header(title: str) -> bytes:
    """As makeblastdb nests it, with the number of the sequence behind the title."""
    text = b"\x1a" + length(len(title)) + title.encode()
    return b"\x30\x80\x30\x80\xa0\x80" + text + b"\0\0\xa1\x80\x30\x80\x1a\x09BL_ORD_ID\0\0\0\0"


def write_blast(
    stem: Path, sequences: list[str] = SEQUENCES, titles: list[str] = TITLES, version: int = 4
) -> str:
    codes = [bytes(LETTERS.index(letter) for letter in one) for one in sequences]
    headers = [header(title) for title in titles]
    starts = np.cumsum([1, *(len(one) + 1 for one in codes)])
    header_starts = np.cumsum([0, *map(len, headers)])
    words = [len(one).to_bytes(4, "big") + one for one in (b"a title", b"Nov 27, 2026\0\0")]
    index = np.array([version, 1], ">i4").tobytes() + b"".join(words)
    index += np.array(len(codes), ">i4").tobytes() + np.array(sum(map(len, codes)), "<i8").tobytes()
    index += np.array([max(map(len, codes)), *header_starts, *starts], ">i4").tobytes()
    contents = {".pin": index, ".psq": b"\0" + b"\0".join(codes) + b"\0", ".phr": b"".join(headers)}
    for ending, content in contents.items():
        stem.with_name(stem.name + ending).write_bytes(content)
    return str(stem)


class TestBlast:
    def test_sequences_and_titles(self, tmp_path: Path) -> None:
        stem = write_blast(tmp_path / "db.fasta")
        database = BlastDatabase(stem)
        assert list(database.sequences()) == SEQUENCES
        assert [database.title_of(place) for place in range(5)] == TITLES
        assert database.lengths.tolist() == [len(one) for one in SEQUENCES]
        assert (database.title, database.date, database.longest) == ("a title", "Nov 27, 2026", 100)
        assert (len(database), database.num_residues) == (5, sum(map(len, SEQUENCES)))
        for path in (stem, f"{stem}.pin", f"{stem}.psq"):
            names = [title.split()[0] for title in TITLES]
            assert list(read_records(path)) == list(map(Record, names, SEQUENCES))
        with pytest.raises(IndexError):
            database.sequence(5)

    def test_lengths_of_titles_in_every_form(self) -> None:
        forms = [header(title)[7] for title in TITLES]
        assert forms == [8, ord("A"), ord("9"), 0x81, 0x82]
        for size in (1, 0x7F, 0x80, 0xFF, 0x100, 5000):
            assert first_title(header("t" * size)) == "t" * size
        cut_off = b"", b"\x30\x80", b"\x30\x80\x1a", header("title")[:10]
        for broken in (*cut_off, b"abc\x1a\x01d", header("")):
            assert first_title(broken) is None

    def test_titles_may_be_missing_until_they_are_asked_for(self, tmp_path: Path) -> None:
        stem = write_blast(tmp_path / "db")
        (tmp_path / "db.phr").unlink()
        database = BlastDatabase(stem)
        assert database.sequence(0) == "MKVL"
        with pytest.raises(UserError, match=r"there is no .*db\.phr"):
            database.title_of(0)

    @pytest.mark.parametrize(
        ("ending", "change", "message"),
        [
            (".psq", lambda b: b[:-1], r"db\.psq has 140 bytes; 5 sequences of 135 residues take 141"),
            (".psq", lambda b: b[:2] + b"\x1c" + b[3:], "sequence 1: a byte that is no residue"),
            (".psq", lambda b: b[:2] + b"\0" + b[3:], "sequence 1: a byte that is no residue"),
            (".psq", lambda b: b[:5] + b"\x01" + b[6:], "sequence 1: a byte that is no residue"),
            (".pin", lambda b: b[:-4], "cut off"),
            (".pin", lambda b: b[:20], "cut off"),
            (".pin", lambda b: b"", "cut off"),
            (".pin", lambda b: b + b"\0", "is damaged"),
            (".pin", lambda b: b[:-4] + b[-8:-4], "is damaged: places of sequences do not fit"),
            (".pin", lambda b: b[:3] + b"\x05" + b[4:], "version 5, of proteins. Make it again with makeblastdb"),
            (".pin", lambda b: b[:7] + b"\0" + b[8:], "no proteins"),
            (".pin", lambda b: b[:8] + b"\xff" * 4 + b[12:], "cut off"),
            (".phr", lambda b: b[:-1], "cut off, or of another database"),
        ],
    )  # fmt: skip
    def test_faults(self, tmp_path: Path, ending: str, change: Any, message: str) -> None:
        stem = write_blast(tmp_path / "db")
        path = Path(f"{stem}{ending}")
        path.write_bytes(change(path.read_bytes()))
        with pytest.raises(UserError, match=message):
            list(read_records(f"{stem}.pin"))

    def test_what_is_missing_is_named(self, tmp_path: Path) -> None:
        stem = write_blast(tmp_path / "db")
        Path(f"{stem}.psq").unlink()
        with pytest.raises(UserError, match=r"there is no .*db\.psq. A database of BLAST is NAME"):
            list(read_records(stem))
        (tmp_path / "big.pal").write_text("")
        with pytest.raises(UserError, match=r"several volumes: read .*big\.00"):
            BlastDatabase(tmp_path / "big")


def write_metastudent(folder: Path) -> dict[str, list[int]]:
    """Three ontologies of some of the five proteins each, in orders of their own."""
    rows = {"MFO": [0, 1, 2], "BPO": [2, 0, 4], "CCO": [3]}
    for name, own in rows.items():
        (folder / name).mkdir(parents=True)
        parts = [[whole[row] for row in own] for whole in (SEQUENCES, TITLES)]
        write_blast(folder / name / "goasp.fasta", *parts)
        text = "".join(f"{LINES[row]}\n" for row in own)
        (folder / name / "goasp_annot.dat").write_text(text)
    return rows


class TestMetastudent:
    def test_the_union_of_three_ontologies(self, tmp_path: Path) -> None:
        write_metastudent(tmp_path / "dataset_201401")
        found = list(Metastudent(tmp_path))
        assert len(Metastudent(tmp_path / "dataset_201401")) == len(found) == 5
        by_name = {one.accession: one for one in found}
        assert {name: one.sequence for name, one in by_name.items()} == {
            f"P{n}": SEQUENCES[n - 1] for n in range(1, 6)
        }
        assert by_name["P1"].terms == {
            "molecular_function": frozenset({"GO:0000001", "GO:0000002"}),
            "biological_process": frozenset({"GO:0000001", "GO:0000002"}),
            "cellular_component": frozenset(),
        }
        records = list(read_records(str(tmp_path)))
        assert records == [Record(one.accession, one.sequence) for one in found]
        single = tmp_path / "dataset_201401" / "BPO" / "goasp.fasta"
        assert [one.name for one in read_records(str(single))] == ["P3", "P1", "P5"]

    def test_faults(self, tmp_path: Path) -> None:
        with pytest.raises(UserError, match=r"no folder MFO.*apt-get install metastudent-data"):
            Metastudent(tmp_path)
        write_metastudent(tmp_path)
        lines = tmp_path / "MFO" / "goasp_annot.dat"
        good = lines.read_text()
        for text, message in (
            (good + good.splitlines()[1], "has 4 lines, and the database 3 sequences"),
            (good.replace("GO:0000002", "GO:2"), "line 1: not an accession and terms"),
            (good.replace("P2", "P1"), "line 2: P1 for a second time"),
            (good.replace("P2", "P5"), "P5 has several sequences"),
        ):
            lines.write_text(text)
            with pytest.raises(UserError, match=message):
                list(Metastudent(tmp_path))
        lines.unlink()
        with pytest.raises(UserError, match=r"there is no .*goasp_annot"):
            Metastudent(tmp_path)

    @pytest.mark.data
    @INSTALLED
    def test_the_databases_of_the_real_package(self) -> None:
        folders = [Path(FOLDER) / RELEASE / name for name in ONTOLOGIES]
        databases = [BlastDatabase(folder / DATABASE) for folder in folders]
        assert [len(one) for one in databases] == [459_503, 486_000, 392_822]
        for one in databases:
            size = one.file(".psq").stat().st_size
            assert size == one.num_residues + len(one) + 1 == one.lengths.sum() + len(one) + 1
            assert one.longest == one.lengths.max() == 35_213

    @pytest.mark.data
    @pytest.mark.slow
    @INSTALLED
    def test_counts_of_the_real_package(self) -> None:
        """Section 4.3 of the specification: every number counted from the files."""
        whole = Metastudent()
        assert len(whole) == 516_371
        rng = random.Random(0)
        for part in whole.parts:
            names = list(part.accessions())
            for place in rng.sample(range(len(names)), 2_000):
                accession, _, terms = part.database.title_of(place).partition("|")
                assert accession == names[place]
                assert set(terms.split(",")) == part.terms(place)
        lengths, terms, digests, in_all = [], set(), set(), 0
        for protein in whole:
            lengths.append(len(protein.sequence))
            digests.add(hash(protein.sequence))
            terms.update(*protein.terms.values())
            in_all += all(protein.terms.values())
        assert (len(digests), in_all, len(terms)) == (435_059, 335_262, 22_604)
        assert (sum(lengths), max(lengths)) == (186_717_374, 35_213)
        assert np.median(lengths) == 298
        assert np.mean(np.array(lengths) <= 512) == pytest.approx(0.818, abs=5e-4)
