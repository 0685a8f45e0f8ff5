"""Files of proteins: FASTA, UniProt's flat file, tables, JSON, lists; what is broken is named by its line."""

import gzip
import io
import json
import logging
import os
import random
import sys
import tracemalloc
from pathlib import Path

import pytest

from lit_seqlm.data.json_rows import CHUNK, read_json_lines, read_json_list
from lit_seqlm.data.proteins.cleaning import Record, cleaned
from lit_seqlm.data.proteins.fasta import FastaRecord, Header, name_of, parse_header, read_fasta
from lit_seqlm.data.proteins.flat_file import FlatEntry, GoTerm, read_flat_file
from lit_seqlm.data.proteins.rows import protein_rows
from lit_seqlm.data.proteins.sources import read_records
from lit_seqlm.errors import UserError
from lit_seqlm.tokenizer.amino_acid import AminoAcidTokenizer

TOKENIZER = AminoAcidTokenizer("cls", "keep", False)
FASTA = """>sp|P0ABF6|CDD_ECOLI Cytidine deaminase OS=Escherichia coli (strain K12) OX=83333 GN=cdd PE=1 SV=1
MHPRFQTAFA
 QLADNLQS*

>lcl|two words
mkv
>three\tand a tab
A
"""
RECORDS = [("P0ABF6", "MHPRFQTAFAQLADNLQS*"), ("lcl|two", "mkv"), ("three", "A")]
SIX = ">a\nMK\n>b\nM1\n>c\n>d\nmk\n>e\nMX\n>f\nMJ-\n"


def put(path: Path, text: str) -> str:
    content = text.encode()
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)
    return str(path)


class TestFasta:
    @pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
    @pytest.mark.parametrize("name", ["a.fasta", "a.fa.gz", "a.FAA"])
    def test_records_with_their_lines(self, tmp_path: Path, name: str, end: str) -> None:
        path = put(tmp_path / name, "\ufeff" + FASTA.replace("\n", end))
        found = list(read_fasta(path))
        assert [one.line for one in found] == [1, 5, 7]
        assert found[1] == FastaRecord(5, "lcl|two words", "mkv")
        assert list(read_records(path)) == [Record(*one) for one in RECORDS]

    def test_as_biopython_reads_it(self, tmp_path: Path) -> None:
        parser = pytest.importorskip("Bio.SeqIO.FastaIO").SimpleFastaParser
        rng = random.Random(0)
        text = ""
        for number in range(50):
            sequence = "".join(rng.choices("ACDEFGHIKLMNPQRSTVWY", k=rng.randint(1, 200)))
            width = rng.randint(1, 80)
            lines = [sequence[i : i + width] for i in range(0, len(sequence), width)]
            text += f">n{number} x{number}\n" + "\n".join(lines) + "\n" * rng.randint(1, 3)
        found = read_fasta(put(tmp_path / "a.fasta", text))
        assert [(one.header, one.sequence) for one in found] == list(parser(io.StringIO(text)))

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("", "has no record: no line begins with '>'"),
            ("\n \n", "has no record"),
            ("\nMKV\n>a\nMK\n", "line 2: 'MKV' before the first record"),
            (">a\nMK\n> \nMK\n", "line 3: a record without a name"),
            (">a\nMK\n>b c\n\n>d\nM\n", "line 3: b has no sequence"),
            (">a\nMK\n>b\n", "line 3: b has no sequence"),
            ("\x1f\x8b", "it is compressed. Let its name end in .gz"),
        ],
    )
    def test_faults(self, tmp_path: Path, text: str, message: str) -> None:
        path = put(tmp_path / "a.fasta", text)
        with pytest.raises(UserError, match=message) as caught:
            list(read_fasta(path))
        assert str(caught.value).startswith(path)

    def test_a_file_that_is_cut_off_or_missing(self, tmp_path: Path) -> None:
        path = Path(put(tmp_path / "a.fasta.gz", ">a\n" + "MKVLA" * 40_000))
        path.write_bytes(path.read_bytes()[:-20])
        with pytest.raises(UserError, match=r"a\.fasta\.gz is a broken or cut-off gzip file"):
            list(read_records(str(path)))
        path.write_bytes(b">a\nMK\n")
        with pytest.raises(UserError, match="broken or cut-off gzip"):
            list(read_records(str(path)))
        with pytest.raises(UserError, match=r"cannot be read \(No such file"):
            list(read_records(str(tmp_path / "b.fasta")))

    def test_memory_does_not_grow_with_the_file(self, tmp_path: Path) -> None:
        peaks = []
        for num_records in (500, 10_000):
            path = put(tmp_path / "a.fasta.gz", ">name of it\nMKVLAMKVLA\nMKV\n" * num_records)
            tracemalloc.start()
            assert sum(1 for _ in protein_rows(path, None, TOKENIZER)) == num_records
            peaks.append(tracemalloc.get_traced_memory()[1])
            tracemalloc.stop()
        assert peaks[1] < peaks[0] + 100_000


class TestHeaders:
    def test_uniprot(self) -> None:
        header = FASTA.splitlines()[0][1:]
        found = parse_header(header, "uniprot")
        fields = {"OS": "Escherichia coli (strain K12)", "OX": "83333", "GN": "cdd", "PE": "1", "SV": "1"}  # fmt: skip
        expected = Header("P0ABF6", "Cytidine deaminase", "CDD_ECOLI", fields["OS"], 83333, fields)
        assert found == parse_header(header, "auto") == expected

    def test_old_uniprot_has_no_taxon(self) -> None:
        found = parse_header("tr|M4|M4_BACIU Choline (ATP) OS=Bacillus sp. XF-1 PE=4 SV=1", "auto")
        assert (found.name, found.organism, found.taxon) == ("M4", "Bacillus sp. XF-1", None)
        assert parse_header("sp|P1|", "uniprot") == Header("P1", "")

    @pytest.mark.parametrize(("said", "taxon"), [("TaxID=9606", 9606), ("TaxID=N/A", None), ("", None)])  # fmt: skip
    def test_uniref(self, said: str, taxon: int | None) -> None:
        header = f"UniRef50_Q8WZ42 Titin n=12 Tax=Homo sapiens {said} RepID=TITIN_HUMAN"
        found = parse_header(header, "auto")
        assert (found.name, found.description, found.taxon) == ("UniRef50_Q8WZ42", "Titin", taxon)
        assert (found.organism, found.fields["n"], found.fields["RepID"]) == (
            "Homo sapiens", "12", "TITIN_HUMAN",
        )  # fmt: skip

    def test_plain(self) -> None:
        header = "sp|P1|X_Y a OS=b"
        assert parse_header(header, "plain") == Header("sp|P1|X_Y", "a OS=b")
        assert name_of(header) == parse_header(header, "auto").name == "P1"
        assert name_of("gi|1|x y") == parse_header("gi|1|x y", "auto").name == "gi|1|x"

    def test_a_header_of_another_kind_is_refused(self) -> None:
        with pytest.raises(UserError, match=r"^a, line 3: 'P1 protein' is no header like sp"):
            parse_header("P1 protein", "uniprot", "a, line 3")
        with pytest.raises(UserError, match="no header like UniRef50_"):
            parse_header("sp|P1|X", "uniref")
        with pytest.raises(UserError, match="'human' is no number of a taxon"):
            parse_header("sp|P1|X d OS=Homo OX=human", "uniprot")
        with pytest.raises(UserError, match="header=ncbi: choose auto, uniprot"):
            parse_header("P1", "ncbi")

    @pytest.mark.data
    @pytest.mark.skipif("LIT_SEQLM_DATA" not in os.environ, reason="LIT_SEQLM_DATA is unset")
    def test_counts_of_debians_mmseqs2_examples(self) -> None:
        folder = Path(os.environ["LIT_SEQLM_DATA"]) / "proteins" / "uniprot_organism"
        records = list(read_fasta(str(folder / "uniprot_20k_with_organism.fasta.gz")))
        headers = [parse_header(one.header, "uniprot") for one in records]
        assert len(records) == 20_000
        assert sum(one.header.startswith("sp|") for one in records) == 3_183
        assert sum(len(one.sequence) for one in records) == 9_055_569
        assert max(len(one.sequence) for one in records) == 8_081
        assert len({one.organism for one in headers}) == 6_244
        assert all(one.taxon is None for one in headers)


class TestRows:
    def test_each_record_has_a_row_and_its_name(
        self, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        tokenizer = AminoAcidTokenizer("cls", "drop", True)
        with caplog.at_level(logging.WARNING):
            rows = list(protein_rows(put(tmp_path / "a.fasta", SIX), "seq", tokenizer))
        assert [one.name for one in rows] == list("abcdef")
        assert [one.number for one in rows] == [1, 2, 3, 4, 5, 6]
        assert [one.status for one in rows] == ["ok", "illegal", "empty", "ok", "ambiguous", "ambiguous"]  # fmt: skip
        assert [one.sequence for one in rows] == ["MK", None, None, "MK", None, None]
        assert [one.written for one in rows] == ["MK", "M1", "", "mk", "MX", "MJ-"]
        assert rows[1].reason == "'1' at position 2 is no residue"
        assert "task.column=seq has no effect" in caplog.text
        assert "1 sequences had lower-case letters" in caplog.text

    def test_a_corpus_refuses_what_rows_report(self, tmp_path: Path) -> None:
        path = put(tmp_path / "a.fasta", SIX)
        with pytest.raises(UserError, match=r"^it, b: '1' at position 2"):
            list(cleaned(read_records(path), TOKENIZER, "it"))
        path = put(tmp_path / "a.fasta", SIX.replace("M1", "M"))
        with pytest.raises(UserError, match=r"^it, c: the sequence is empty"):
            list(cleaned(read_records(path), TOKENIZER, "it"))

    @pytest.mark.parametrize(
        ("name", "text"),
        [
            ("a.csv", "id,sequence\nP1,MK V\nP2,\n"),
            ("a.tsv.gz", "sequence\tname\taccession\nMK V\tx\tP1\n\ty\tP2\n"),
            ("a.jsonl", '{"id": "P1", "sequence": "MK V"}\n\n{"id": "P2", "sequence": null}\n'),
            ("a.json", '[{"id": "P1", "primary": "MK V"}, {"id": "P2", "primary": ""}]'),
        ],
    )
    def test_tables_and_objects(self, tmp_path: Path, name: str, text: str) -> None:
        path = put(tmp_path / name, text)
        rows = list(protein_rows(path, None, TOKENIZER))
        told = [(one.number, one.name, one.written, one.sequence, one.status) for one in rows]
        assert told == [(1, "P1", "MK V", "MKV", "ok"), (2, "P2", "", None, "empty")]
        assert [one.name for one in read_records(path)] == ["P1", "P2"]

    def test_parquet_and_another_column(self, tmp_path: Path) -> None:
        arrow, parquet = (pytest.importorskip(name) for name in ("pyarrow", "pyarrow.parquet"))
        path = str(tmp_path / "a.parquet")
        parquet.write_table(arrow.table({"chain": ["MK", None], "id": [7, 8]}), path)
        assert list(read_records(path, "chain")) == [Record("7", "MK"), Record("8", "")]
        with pytest.raises(UserError, match=r"no column 'sequence'\. Accepted: chain, id"):
            list(read_records(path))

    @pytest.mark.parametrize("heading", ["", "sequence\n"])
    def test_lists(self, tmp_path: Path, heading: str) -> None:
        path = put(tmp_path / "a.txt", heading + "M K V\n\nSEQ\n")
        rows = list(protein_rows(path, None, TOKENIZER))
        assert [one.sequence for one in rows] == ["MKV", None, "SEQ"]
        assert [one.name for one in read_records(path)] == ["row 1", "row 2", "row 3"]

    @pytest.mark.parametrize(
        ("text", "names"),
        [
            (FASTA, ["P0ABF6", "lcl|two", "three"]),
            ('{"sequence": "MK", "id": 1}\n{"sequence": "MK", "id": 2}\n', ["1", "2"]),
            ("id,sequence\na,MK\nb,MKV\n", ["a", "b"]),
            ("sequence\taccession\nMK\ta\n", ["a"]),
            ("sequence\nMK\n", [""]),
            ("MK\nMKV", ["", ""]),
        ],
    )
    def test_standard_input(
        self, text: str, names: list[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(text.encode())))
        rows = list(protein_rows("-", None, TOKENIZER))
        assert [one.name for one in rows] == names
        assert all(one.status == "ok" for one in rows)

    @pytest.mark.parametrize(
        ("name", "text", "message"),
        [
            ("a.xlsx", "", r"proteins are read from \.fasta, .*Rename it"),
            ("a.txt", ">a\nMK\n", "begins with '>' as FASTA does"),
            ("a.csv", "seq,id\nMK,1\n", "no column 'sequence'. Accepted: id, seq"),
            ("a.jsonl", '{"sequence": "M"}\n{"seq": "M"}\n', "line 2: it has no 'sequence'. It has: seq"),
            ("a.jsonl", '{"sequence": "M"}\n{"sequence": true}\n', "line 2: .sequence. is True; a sequence is a text"),
            ("a.jsonl", '{"sequence": "M"}\n\n{"sequence": M}\n', "line 3: not JSON .Expecting value"),
            ("a.jsonl", "[1]\n", "line 1: a list, where an object is wanted"),
            ("a.jsonl", "\n", "has no line with a JSON object"),
            ("a.dat", "MKV\n", "line 1: 'MKV' has no line code"),
        ],
    )  # fmt: skip
    def test_faults(self, tmp_path: Path, name: str, text: str, message: str) -> None:
        path = put(tmp_path / name, text)
        with pytest.raises(UserError, match=message) as caught:
            list(protein_rows(path, None, TOKENIZER))
        assert name in str(caught.value)
        with pytest.raises(UserError, match="is a folder without proteins"):
            list(protein_rows(str(tmp_path), None, TOKENIZER))

    def test_a_sign_that_is_not_utf_8_spoils_one_row(self, tmp_path: Path) -> None:
        path = tmp_path / "a.fasta"
        path.write_bytes(b">a\nMK\n>b\nM\xff\n>c\xff\nMK\n")
        rows = list(protein_rows(str(path), None, TOKENIZER))
        assert [one.status for one in rows] == ["ok", "illegal", "ok"]


class TestJson:
    def test_long_and_many_records_are_read_as_json_does(self, tmp_path: Path) -> None:
        rng = random.Random(1)
        records = [{"id": i, "x": [rng.random()] * rng.randint(0, 40)} for i in range(300)]
        records.insert(7, {"text": 'a "quoted", [bracketed]\n' * (CHUNK // 10)})
        for indent in (None, 2):
            path = put(tmp_path / "a.json.gz", json.dumps(records, indent=indent))
            assert list(read_json_list(path)) == records
        assert list(read_json_list(put(tmp_path / "a.json", " [ ] \n"))) == []

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("", "at its beginning: the end of the file"),
            ('{"a": 1}', "at its beginning: '{', where . is wanted"),
            ('[{"a": 1} {"a": 2}]', "after record 1: '{'"),
            ('[{"a": 1}, {"a": 2}', "after record 2: the end of the file"),
            ('[{"a": 1}, {"a": [2, 3', "record 2: not JSON, or cut off"),
            ('[{"a": 1}, {"a": "b', "record 2: not JSON, or cut off .Unterminated"),
            ('[{"a": 1}, {"a": x' + "y" * 500 + "}]", "record 2: not JSON, or cut off .Expecting value"),
            ('[{"a": 1}, [2]]', "record 2: a list, where an object is wanted"),
            ('[{"a": 1}] x', "'x' after the end of the list"),
            ("[" * 100_000, "record 1: not JSON, or cut off .nested too deeply"),
        ],
    )  # fmt: skip
    def test_faults_of_a_list(self, tmp_path: Path, text: str, message: str) -> None:
        with pytest.raises(UserError, match=message):
            list(read_json_list(put(tmp_path / "a.json", text)))

    def test_lines_keep_their_numbers(self, tmp_path: Path) -> None:
        path = put(tmp_path / "a.jsonl", '{"a": NaN}\n\n{"a": 2}\n')
        assert [number for number, _ in read_json_lines(path)] == [1, 3]


FLAT = """ID   002L_FRG3G              Reviewed;          12 AA.
AC   Q6GZX3; A1B2C3;
AC   Q00001;
DE   RecName: Full=Uncharacterized protein 002L;
OS   Frog virus 3 (isolate Goorha) (FV-3) {{ECO:0000303|PubMed:1}}
OS   (Second line).
OC   Viruses; Varidnaviria; Bamfordvirae;
OC   Nucleocytoviricota; Iridoviridae.
OX   NCBI_TaxID=654924 {{ECO:0000313|EMBL:AAT09661.1, ECO:0000313|Proteomes:UP000008770}};
OH   NCBI_TaxID=30343; Dryophytes versicolor (chameleon treefrog).
CC   -!- FUNCTION: none {{ECO:0000250}}.
DR   EMBL; AY548484; AAT09661.1; -; Genomic_DNA.
DR   GO; GO:0033644; C:host cell membrane; IEA:UniProtKB-SubCell.
DR   GO; GO:0008270; F:zinc ion binding; IEA:InterPro.
DR   Pfam; PF03003; Pox_G9-A16; 1.
DR   Pfam; PF00856; SET; 2.
KW   Host membrane {{ECO:0000256|ARBA:ARBA00022870}}; Membrane; Reference
KW   proteome; Metal-binding.
SQ   SEQUENCE   12 AA;  34642 MW;  9E110808B6E328E0 CRC64;
     MSIIGATRLQ ND
//
ID   X_ECOLI                 Unreviewed;          3 AA.
AC   P00001;
OS   Escherichia coli.
OX   NCBI_TaxID=31033;
SQ   SEQUENCE   3 AA;  1 MW;  0 CRC64;
     MKV
//
""".replace("{{", "{").replace("}}", "}")


class TestFlatFile:
    @pytest.mark.parametrize("name", ["a.dat", "a.dat.gz"])
    def test_entries(self, tmp_path: Path, name: str) -> None:
        third = FLAT[FLAT.index("ID   X_E") :].replace("P00001", "P3")
        third = third.replace("OX   NCBI_TaxID=31033;\n", "")
        path = put(tmp_path / name, FLAT + third)
        first, second, last = read_flat_file(path)
        assert first == FlatEntry(
            line=1,
            entry="002L_FRG3G",
            accessions=("Q6GZX3", "A1B2C3", "Q00001"),
            organism="Frog virus 3 (isolate Goorha) (FV-3) (Second line)",
            lineage=("Viruses", "Varidnaviria", "Bamfordvirae", "Nucleocytoviricota", "Iridoviridae"),
            taxon=654924,
            keywords=("Host membrane", "Membrane", "Reference proteome", "Metal-binding"),
            go=(
                GoTerm("GO:0033644", "C", "host cell membrane", "IEA:UniProtKB-SubCell"),
                GoTerm("GO:0008270", "F", "zinc ion binding", "IEA:InterPro"),
            ),
            pfam=("PF03003", "PF00856"),
            sequence="MSIIGATRLQND",
        )  # fmt: skip
        assert (second.line, second.accession, second.taxon, second.go) == (22, "P00001", 31033, ())
        assert (last.accession, last.taxon, last.sequence) == ("P3", None, "MKV")
        rows = list(protein_rows(path, None, TOKENIZER))
        assert [one.name for one in rows] == ["Q6GZX3", "P00001", "P3"]
        assert [one.sequence for one in rows] == ["MSIIGATRLQND", "MKV", "MKV"]

    def test_as_biopython_reads_it(self, tmp_path: Path) -> None:
        parse = pytest.importorskip("Bio.SwissProt").parse
        ours = list(read_flat_file(put(tmp_path / "a.dat", FLAT)))
        for one, theirs in zip(ours, parse(io.StringIO(FLAT)), strict=True):
            assert one.entry == theirs.entry_name
            assert list(one.accessions) == theirs.accessions
            assert list(one.lineage) == theirs.organism_classification
            assert [str(one.taxon)] == theirs.taxonomy_id
            assert one.sequence == theirs.sequence
            banks = [reference[:2] for reference in theirs.cross_references]
            assert [term.id for term in one.go] == [i for bank, i in banks if bank == "GO"]
            assert list(one.pfam) == [i for bank, i in banks if bank == "Pfam"]

    @pytest.mark.parametrize(
        ("old", "new", "message"),
        [
            ("     MKV\n//\n", "     MKV\n", "line 27: the file ends within P00001, before its '//'"),
            ("     MKV\n", "     MK\n", "P00001: 2 residues, and SQ says 3"),
            ("     MKV\n", "", "P00001: 0 residues"),
            ("3 AA;  1 MW", "3 KB", "P00001: it has no line 'SQ"),
            ("AC   P00001;\n", "", "line 22, X_ECOLI: an entry without an accession"),
            ("NCBI_TaxID=31033", "NCBI=1", "P00001: 'NCBI=1;' has no NCBI_TaxID"),
            ("OS   Esch", "Esch", "line 24, P00001: 'Escherichia coli.' has no line code"),
            ("SQ   SEQUENCE   3", "     MKV\nSQ   SEQUENCE   3", "line 26, P00001: a sequence without an SQ line"),
            ("GO:0008270", "GO:827", "line 14, Q6GZX3: 'GO; GO:827; F:zinc"),
            (FLAT, "\n", "has no entry: no line is '//'"),
        ],
    )  # fmt: skip
    def test_faults(self, tmp_path: Path, old: str, new: str, message: str) -> None:
        assert old in FLAT
        with pytest.raises(UserError, match=message):
            list(read_flat_file(put(tmp_path / "a.dat", FLAT.replace(old, new))))
