"""SMILES as tokens: the expression, nothing lost, ids, vocabularies."""

import csv
import gzip
import hashlib
import json
import os
import random
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import yaml

from lit_seqlm.data.chemistry.canonical import canonicalize
from lit_seqlm.errors import UserError
from lit_seqlm.tokenizer import smiles_cut, smiles_vocabulary
from lit_seqlm.tokenizer.smiles import SmilesTokenizer
from lit_seqlm.tokenizer.smiles_vocabulary import (
    CLOSED_SET,
    OFFICIAL_HEAD,
    build_vocabulary,
    read_vocabulary,
)

ROOT = Path(os.environ.get("LIT_SEQLM_DATA", "."))
OPTION = Path(__file__).parents[2] / "conf" / "tokenizer" / "smiles.yaml"
MOLECULES = [
    "C[C@@H](Br)O",
    "Clc1ccccc1Brc1",
    "C%12CC%12",
    "[NH4+].[O-]S(=O)(=O)C#N",
    "F/C=C\\I",
    "n1cc[nH]c1P(b)o",
    "B1CC:C~C@?>*$",
    "C",
]


def scan(smiles: str) -> list[str]:
    """The rules of the specification, one sign at a time; what matches nothing is left out."""
    tokens, place = [], 0
    while place < len(smiles):
        rest = smiles[place:]
        if rest[0] == "[" and rest.find("]") > 1 and "\n" not in rest[: rest.index("]")]:
            token = rest[: rest.index("]") + 1]
        elif rest[:2] in ("Br", "Cl"):
            token = rest[:2]
        elif rest[0] == "%" and rest[1:3].isdigit() and len(rest) > 2:
            token = rest[:3]
        elif rest[0] in "BCNOSPFIbcnosp().=#-+\\/:~@?>*$0123456789":
            token = rest[0]
        else:
            place += 1
            continue
        tokens.append(token)
        place += len(token)
    return tokens


def tokenizer(unknown: str = "error", smiles: list[str] | None = None) -> SmilesTokenizer:
    made = SmilesTokenizer(None, unknown, isomeric=False, min_count=1)
    made.fit(made.count(MOLECULES if smiles is None else smiles))
    return made


def made_up(seed: int, alphabet: str) -> str:
    rng = random.Random(seed)
    return "".join(rng.choice(alphabet) for _ in range(rng.randrange(1, 30)))


@pytest.mark.parametrize(
    ("smiles", "tokens"),
    [
        ("Brc1", ["Br", "c", "1"]),
        ("C%12C", ["C", "%12", "C"]),
        ("[C@@H]", ["[C@@H]"]),
        ("BrBClC", ["Br", "B", "Cl", "C"]),
        ("C%(100)", ["C", "(", "1", "0", "0", ")"]),
        ("C =O", ["C", "=", "O"]),
    ],
)
def test_tokens_by_hand(smiles: str, tokens: list[str]) -> None:
    assert tokenizer().split(smiles) == tokens


@pytest.mark.parametrize("seed", range(300))
def test_the_expression_is_a_scan_by_rules(seed: int) -> None:
    smiles = made_up(seed, "[[]]CBrlcnosp%%1234()=#@ xé\\/+-.$*~:?>HN")
    assert tokenizer().split(smiles) == scan(smiles)


def test_all_at_once_is_one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    strings = MOLECULES * 3 + [made_up(seed, "CNO()=#1cl[]Br%Xe\n ") for seed in range(400)]
    strings += ["", "[", "]", "C\nC", "[\n]", "Br\n", "C[Xe]", "[Kr][Xe]"]
    made = tokenizer("unk")
    expected = ["".join(scan(smiles)) == smiles for smiles in strings]
    for chunk in (7, 100_000):
        monkeypatch.setattr("lit_seqlm.tokenizer.smiles.CHUNK", chunk)
        assert [reason is None for reason in made.problems(strings)] == expected
        good = [smiles for smiles, kept in zip(strings, expected, strict=True) if kept]
        table = made.encode(good)
        assert len(table) == len(good)
        for row, smiles in enumerate(good):
            inner = [made.index.get(token, made.unknown_id) for token in scan(smiles)]
            assert table[row].tolist() == [made.bos_id, *inner, made.eos_id]
        unknown = [token for smiles in good for token in scan(smiles) if token not in made.index]
        assert made.num_unknown == len(unknown) > 0
        assert made.count(good) == Counter(token for one in good for token in scan(one))


def test_ids_are_two_bytes_and_decode_again() -> None:
    made = tokenizer()
    table = made.encode(MOLECULES)
    assert table.ids.dtype == np.uint16
    assert table.offsets.dtype == np.int64
    assert [made.decode(table[row]) for row in range(len(table))] == MOLECULES
    assert len(made.encode([])) == 0
    tokens_BT, valid_BT = table.pad(np.array([0, 7]), made.pad_id)
    assert valid_BT is not None
    assert tokens_BT[~valid_BT].unique().tolist() == [made.pad_id]


def test_the_first_ids_of_the_official_list() -> None:
    """Of bert_vocab.txt: 5 special ones and 2,357 tokens by how often they occur in isomeric strings."""
    ids = {token: number for number, token in enumerate(OFFICIAL_HEAD)}
    assert len(ids) == len(OFFICIAL_HEAD) == 50
    wanted = {"<bos>": 0, "<eos>": 1, "<pad>": 2, "<mask>": 3, "C": 4, "c": 5, "(": 6, ")": 7, "1": 8, "O": 9, "N": 10,
              "2": 11, "=": 12, "n": 13, "3": 14, "[C@H]": 15, "[C@@H]": 16, "F": 17, "S": 18, "4": 19, "Cl": 20,
              "-": 21, "o": 22, "s": 23, "[nH]": 24, "#": 25, "/": 26, "Br": 27, "[C@]": 28, "[C@@]": 29, "[N+]": 30,
              "[O-]": 31, "5": 32, "\\": 33, ".": 34, "I": 35, "6": 36, "[S@]": 37, "[S@@]": 38, "P": 39, "[N-]": 40,
              "[Si]": 41, "7": 42, "[n+]": 43, "[2H]": 44, "8": 45, "[NH+]": 46,
              "B": 47, "9": 48, "[C-]": 49}  # fmt: skip
    assert ids == wanted
    made = tokenizer()  # a list built here begins with the same special ones
    assert tuple(made.vocabulary[:4]) == OFFICIAL_HEAD[:4]


def test_special_ids() -> None:
    made = tokenizer()
    assert (made.bos_id, made.eos_id, made.pad_id, made.mask_id) == (0, 1, 2, 3)
    assert made.unknown_id == len(made) - 1
    assert made.special_ids == [0, 1, 2, 3, len(made) - 1]
    assert tokenizer("pad").unknown_id == 2


class TestUnknown:
    def test_error_names_the_molecule_and_its_tokens(self) -> None:
        with pytest.raises(UserError, match=r"molecule 2, 'C\[Xe\]'.*unknown_tokens: \[Xe\]\."):
            tokenizer().encode(["C", "C[Xe]"])

    def test_the_number_of_a_molecule_counts_all_chunks(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("lit_seqlm.tokenizer.smiles.CHUNK", 2)
        with pytest.raises(UserError, match="molecule 6"):
            tokenizer().encode(["C"] * 5 + ["[Xe]"])

    @pytest.mark.parametrize("unknown", ["unk", "pad"])
    def test_replaced_and_counted(self, unknown: str) -> None:
        made = tokenizer(unknown)
        assert made.problems(["C[Xe]"]) == [None]
        assert made.encode(["C[Xe]"])[0].tolist() == [0, made.index["C"], made.unknown_id, 1]
        assert made.num_unknown == 1
        made.encode(["C"])
        assert made.num_unknown == 0

    @pytest.mark.parametrize("unknown", ["error", "unk", "pad"])
    def test_lossy_is_never_encoded(self, unknown: str) -> None:
        made = tokenizer(unknown)
        assert made.problems(["C%(100)"]) == ["lossy: '%' is no token"]
        with pytest.raises(UserError, match="lossy"):
            made.encode(["C%(100)"])

    def test_another_word_is_refused(self) -> None:
        with pytest.raises(UserError, match="choose error, unk or pad"):
            SmilesTokenizer(None, "drop", False, 1)


class TestBuilt:
    def test_the_same_for_any_order_of_the_corpus(self) -> None:
        shuffled = list(MOLECULES)
        random.Random(0).shuffle(shuffled)
        assert tokenizer(smiles=shuffled).vocabulary == tokenizer().vocabulary

    def test_special_ones_first_then_by_count_then_by_token(self) -> None:
        found = build_vocabulary({"[Xe]": 2, "C": 9, "[Ar]": 2, "N": 2}, min_count=2)
        assert found[:8] == ["<bos>", "<eos>", "<pad>", "<mask>", "C", "N", "[Ar]", "[Xe]"]
        assert found[-1] == "<unk>"
        rest = found[8:-1]
        assert rest == sorted(rest)
        assert {*rest, "C", "N"} == set(CLOSED_SET)

    def test_rare_tokens_fall_out_but_those_of_the_closed_set(self) -> None:
        found = build_vocabulary({"[Xe]": 1, "F": 1, "[Ar]": 1}, min_count=2, always=["[Ar]"])
        assert "[Xe]" not in found
        assert {"F", "[Ar]"} < set(found)
        assert found.index("F") < found.index("B")

    def test_the_closed_set_is_what_single_tokens_there_are(self) -> None:
        letters = ["Br", "B", "Cl", "C", *"NOSPFIbcnosp"]
        signs = list("().=#-+\\/:~@?>*$")
        rings = [*map(str, range(10)), *(f"%{number}" for number in range(10, 21))]
        assert sorted(CLOSED_SET) == sorted([*letters, *signs, *rings])
        assert all(scan(token) == [token] for token in CLOSED_SET)

    def test_two_bytes_are_the_limit(self) -> None:
        with pytest.raises(UserError, match=r"65,\d+ tokens, two bytes number 65,536.*min_count"):
            build_vocabulary({f"[{number}]": 1 for number in range(65_500)}, min_count=1)

    def test_nothing_is_encoded_without_a_vocabulary(self) -> None:
        empty = SmilesTokenizer(None, "unk", False, 1)
        assert len(empty) == 0
        with pytest.raises(UserError, match="no vocabulary yet"):
            empty.encode(["C"])


class TestFile:
    TOKENS = ("<bos>", "<eos>", "<pad>", "<mask>", "c", "C", "<unk>")

    def write(self, folder: Path, tokens: tuple[str, ...], name: str = "v.txt") -> str:
        path = folder / name
        path.write_text("".join(f"{token}\n" for token in tokens))
        return str(path)

    def test_ids_are_the_order_of_the_lines(self, tmp_path: Path) -> None:
        made = SmilesTokenizer(self.write(tmp_path, self.TOKENS), "error", False, 1)
        assert made.encode(["Cc"])[0].tolist() == [0, 5, 4, 1]

    @pytest.mark.parametrize("nested", [False, True])
    def test_the_table_of_a_hugging_face_folder(self, tmp_path: Path, nested: bool) -> None:
        table = dict(reversed([(token, i) for i, token in enumerate(self.TOKENS)]))
        path = tmp_path / "vocab.json"
        path.write_text(json.dumps({"model": {"vocab": table}} if nested else table))
        assert read_vocabulary(str(path)) == list(self.TOKENS)

    @pytest.mark.parametrize(
        ("content", "message"),
        [
            ("<bos>\n<eos>\n\nC\n", "line 3 is empty"),
            ("<bos>\n<eos>\n<pad>\n<mask>\nC\nC\n", "'C' is there twice"),
            ("<bos>\n<eos>\n<pad>\nC\n", "has no <mask>"),
        ],
    )
    def test_what_is_no_vocabulary(self, tmp_path: Path, content: str, message: str) -> None:
        path = tmp_path / "v.txt"
        path.write_text(content)
        with pytest.raises(UserError, match=message):
            read_vocabulary(str(path))

    @pytest.mark.parametrize(
        "content", ["[1]", "{", '{"C": 1}', '{"C": 0, "N": true}', '{"C": "0"}']
    )
    def test_what_is_no_table(self, tmp_path: Path, content: str) -> None:
        path = tmp_path / "v.json"
        path.write_text(content)
        with pytest.raises(UserError, match="JSON from token to id"):
            read_vocabulary(str(path))

    def test_a_missing_file_says_what_to_give(self, tmp_path: Path) -> None:
        made = SmilesTokenizer(str(tmp_path / "none.txt"), "unk", False, 1)
        with pytest.raises(UserError, match=r"cannot be read.*or null to build one"):
            made.encode(["C"])

    def test_unk_needs_its_token(self, tmp_path: Path) -> None:
        made = SmilesTokenizer(self.write(tmp_path, self.TOKENS[:-1]), "unk", False, 1)
        with pytest.raises(UserError, match="no <unk>"):
            made.encode(["C"])

    @pytest.mark.parametrize("end", ["", "\n"])
    def test_the_official_one_is_known_by_its_digest(
        self, end: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        sha256 = hashlib.sha256(("\n".join(self.TOKENS) + end).encode()).hexdigest()
        path = self.write(tmp_path, self.TOKENS)
        assert not SmilesTokenizer(path, "unk", False, 1).official
        monkeypatch.setattr(smiles_vocabulary, "OFFICIAL_SHA256", sha256)
        assert SmilesTokenizer(path, "unk", False, 1).official
        swapped = (*self.TOKENS[:4], "C", "c", "<unk>")
        assert not SmilesTokenizer(self.write(tmp_path, swapped, "w.txt"), "unk", False, 1).official


def test_the_state_does_without_the_file(tmp_path: Path) -> None:
    path = TestFile().write(tmp_path, TestFile.TOKENS)
    saved = SmilesTokenizer(path, "unk", isomeric=True, min_count=1).state_dict()
    Path(path).unlink()
    loaded = SmilesTokenizer(path, "unk", isomeric=False, min_count=1)
    loaded.load_state_dict(json.loads(json.dumps(saved)))
    assert loaded.vocabulary == list(TestFile.TOKENS)
    assert loaded.isomeric
    assert loaded.state_dict() == saved


def test_the_option_has_every_argument() -> None:
    options = yaml.safe_load(OPTION.read_text(encoding="utf-8"))
    assert options.pop("_target_") == "lit_seqlm.tokenizer.smiles.SmilesTokenizer"
    assert SmilesTokenizer(**options).unknown == "unk"


def test_both_expressions_are_one() -> None:
    text = "\n".join(MOLECULES)
    apart = [token for smiles in MOLECULES for token in smiles_cut.find(smiles)]
    assert [token for token in smiles_cut.find_in_lines(text) if token != "\n"] == apart


@pytest.mark.data
@pytest.mark.slow
@pytest.mark.skipif(
    "LIT_SEQLM_DATA" not in os.environ,
    reason="LIT_SEQLM_DATA is unset; shared/data/README.md names it",
)
class TestRealMolecules:
    """Specification, sections 2 and 12."""

    @pytest.mark.parametrize(
        ("path", "mean", "longest"),
        [("qm8/train.csv", 14.68, 22), ("qm9/qm9_12tasks_with_split.csv.gz", 16.8, 24)],
    )
    def test_nothing_is_lossy_and_lengths_are_the_published(
        self, path: str, mean: float, longest: int
    ) -> None:
        file = ROOT / "molecules" / path
        opener = gzip.open if file.suffix == ".gz" else open
        with opener(file, "rt") as text:
            rows = list(csv.DictReader(text))[:: 10 if "qm9" in path else 1]
        smiles = [canonicalize(row["smiles"], isomeric=False).smiles or "" for row in rows]
        assert all(smiles)
        made = tokenizer(smiles=["C"])
        assert made.problems(smiles[:2000]).count(None) < 2000  # the closed set has no brackets
        made.fit(made.count(smiles))
        assert made.problems(smiles) == [None] * len(smiles)
        lengths = made.encode(smiles).lengths
        assert lengths.mean() == pytest.approx(mean, abs=0.05)
        assert lengths.max() <= longest
