"""A sequence longer than the model is refused by its name, whatever the data, before training begins."""

import re
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from lit_seqlm.data.annotated import AnnotatedData
from lit_seqlm.data.masking import CountedMasking
from lit_seqlm.data.packed import PackedData
from lit_seqlm.data.prepare.pipeline import prepare
from lit_seqlm.data.properties import PropertyData
from lit_seqlm.data.property_loader import TokenisedTable
from lit_seqlm.data.property_source import PropertyTable
from lit_seqlm.data.targets import plain_target
from lit_seqlm.errors import UserError
from lit_seqlm.model.layers.encoder_positions import ENCODER_POSITIONS
from lit_seqlm.task.room import check_room, longest
from lit_seqlm.tokenizer.amino_acid import AminoAcidTokenizer
from tests.behaviour.test_predict import run
from tests.behaviour.test_sites import training
from tests.made_sites import MadeSites
from tests.unit.test_prepare_proteins import drawn, few_partitions, options_of, write_table
from tests.unit.test_sharded_packed import data as sharded

__all__ = ["few_partitions"]  # a fixture for all tests here

CLS = AminoAcidTokenizer("cls", "keep", False)
SEQUENCES = {"train": ["MKV" * 4, "ACDEFGHIKL" * 2], "valid": ["MKVLA"], "test": ["MKVLAA"]}


def model(positions: str, max_len: int) -> nn.Module:
    """What stands inside of a model for sites or properties."""
    return nn.ModuleDict({"trunk": ENCODER_POSITIONS[positions](8, 2, max_len)})


def packed() -> PackedData:
    source: Any = SimpleNamespace(name="made", sequences=lambda split, tokenizer: SEQUENCES[split])
    masking = CountedMasking(0.15, 0.8, 0.1, "content", "row")
    options = {
        "packing": "block_diagonal", "row_len": 32, "token_budget": 64, "eval_token_budget": 64, "window": 10,
        "multiple": 1, "min_len": 2, "max_len": 31, "over_long": "truncate", "seed": 1,
    }  # fmt: skip
    made = PackedData(source=source, tokenizer=CLS, masking=masking, **options)
    made.setup()
    return made


def annotated(
    site: str = "residue", max_len: int | None = None, over_long: str = "error"
) -> AnnotatedData:
    made = AnnotatedData(MadeSites("", site, 8, 6), CLS, 100, 100, 10, max_len, over_long, None, 1)
    made.setup()
    return made


class MadeProperties:
    """Three proteins a split, whose property is their length."""

    name, kind, covariates = "made", "protein", ()
    targets = (plain_target("length", "length", ""),)

    def table(self, split: str, tokenizer: Any) -> PropertyTable:
        sequences = ["MKV", "MKVLA", "MKVLAA"]
        labels_NK = np.array([[3.0], [5.0], [6.0]])
        return PropertyTable(sequences, sequences, labels_NK, np.zeros((3, 0)), np.arange(1, 4), [])


def of_properties(max_len: int | None = None, over_long: str = "error") -> PropertyData:
    source: Any = MadeProperties()
    made = PropertyData(
        source, CLS, "length", "random", 2, 64, 10, 1, 2, max_len, over_long, None, "none", 1
    )
    made.setup()
    return made


def properties() -> Any:
    tokens, rows_N = CLS.encode(["MKV", "MKVLA"]), np.array([3, 9])
    table = TokenisedTable(tokens, [], [], np.zeros((2, 1)), np.zeros((2, 0)), rows_N)
    source = SimpleNamespace(name="made")
    return SimpleNamespace(tables={"test": table}, source=source, tokenizer=CLS, max_len=None)


@pytest.mark.parametrize(
    ("data", "length", "message"),
    [
        (packed, 21, r"train, sequence 2, ACDEFGHIKLACDEFGHIKL\.\.\.: .*Say data\.max_len=19;"),
        (
            annotated,
            18,
            r"valid, valid_0 \(row \d\): .*model\.max_len=18 or model\.positions=rotary",
        ),
        (properties, 6, r"data=made, test, row 9: a sequence of 6 tokens, .*vectors for 5 only"),
    ],
)
def test_the_longest_is_named(data: Any, length: int, message: str) -> None:
    made = data()
    assert longest(made)[0] == length
    check_room(model("absolute", length), made)
    for positions in ("rotary", "none"):
        check_room(model(positions, 4), made)
    with pytest.raises(UserError, match=message):
        check_room(model("absolute", length - 1), made)


def test_the_longest_of_shards_is_not_in_memory(tmp_path: Path) -> None:
    """How long the sequences of the training split are stands in the manifest of the prepared folder."""
    write_table(tmp_path / "a.tsv", drawn(60, longest=20) | {"long": "ACD" * 11})
    prepare(options_of(tmp_path))
    said = (
        r"data=corpus, train: a sequence of 34 tokens, .*Prepare the corpus again with --max-len 32"
    )
    made = sharded(str(tmp_path / "corpus"), row_len=34)
    assert longest(made) == (34, "train")
    assert max(int(table.lengths.max()) for table in made.tables.values()) <= 21
    check_room(model("absolute", 34), made)
    check_room(model("rotary", 4), made)
    with pytest.raises(UserError, match=said):
        check_room(model("absolute", 33), made)
    prepare(options_of(tmp_path, output=tmp_path / "again", max_len=32))
    check_room(model("absolute", 33), sharded(str(tmp_path / "again"), row_len=33))


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (annotated, "truncate windows skip"),
        (partial(annotated, "pair"), "truncate skip"),
        (partial(annotated, "chain"), "truncate skip"),
        (of_properties, "truncate skip"),
    ],
)
def test_who_does_what_is_said_is_not_refused_again(make: Any, words: str) -> None:
    """Of ``over_long=error``, a smaller ``max_len`` alone would only be the next refusal."""
    made = make()
    most = longest(made)[0] - 1
    with pytest.raises(UserError, match="with data") as told:
        check_room(model("absolute", most), made)
    said = re.search(r"Say data\.max_len=(\d+) with data\.over_long=(.*?);", str(told.value))
    assert said is not None
    max_len, found = int(said[1]), re.findall("truncate|windows|skip", said[2])
    assert found == words.split()
    with pytest.raises(UserError, match="too_long"):
        make(max_len=max_len)
    for word in found:
        changed = make(max_len=max_len, over_long=word)
        check_room(model("absolute", most), changed)
        assert longest(changed)[0] <= most


def test_a_batch_is_refused_in_the_same_words() -> None:
    with pytest.raises(
        UserError, match=r"sequence of 7 tokens, .*vectors for 6 only\. .*max_len=7"
    ):
        ENCODER_POSITIONS["absolute"](8, 2, 6).embed(torch.zeros(7, 1, 8))


def test_streams_are_cut_anyway() -> None:
    check_room(model("absolute", 2), SimpleNamespace())


def test_nothing_is_learnt_before(tmp_path: Path) -> None:
    said = [
        "model.positions=absolute",
        "model.max_len=13",
        "data.max_len=null",
        "data.over_long=error",
    ]
    with pytest.raises(UserError, match=r"data=made, valid, valid_0 .*vectors for 13 only"):
        run(tmp_path / "run", *training("residue", 1), *said)
    assert not list(tmp_path.rglob("*.ckpt"))
