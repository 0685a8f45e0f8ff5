"""A sequence longer than the model is refused by its name, whatever the data, before training begins."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from torch import nn

from lit_seqlm.data.annotated import AnnotatedData
from lit_seqlm.data.masking import CountedMasking
from lit_seqlm.data.packed import PackedData
from lit_seqlm.data.property_loader import TokenisedTable
from lit_seqlm.data.sharded_packed import ShardedPackedData
from lit_seqlm.errors import UserError
from lit_seqlm.model.layers.encoder_positions import ENCODER_POSITIONS
from lit_seqlm.task.room import check_room, longest
from lit_seqlm.tokenizer.amino_acid import AminoAcidTokenizer
from tests.behaviour.test_predict import run
from tests.behaviour.test_sites import training
from tests.made_sites import MadeSites

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


def annotated() -> AnnotatedData:
    made = AnnotatedData(MadeSites("", "residue", 8, 6), CLS, 100, 100, 10, None, "error", None, 1)
    made.setup()
    return made


def sharded() -> Any:
    """Whose training split is not in memory: how long its sequences are stands in the manifest."""
    made = ShardedPackedData.__new__(ShardedPackedData)
    lengths = {"train": {5: 7, 33: 1}, "valid": {9: 2}}
    made.source = SimpleNamespace(name="made", splits=list(lengths), lengths=lengths.get)  # type: ignore[assignment]
    made.tokenizer, made.tables = CLS, {"valid": CLS.encode(["MKVLAMKV"])}
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
        (
            sharded,
            33,
            r"data=made, train: a sequence of 33 .*Prepare the corpus again with --max-len 31",
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
