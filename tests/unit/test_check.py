"""A value of the wrong type is refused by its annotation, and what the annotation allows is not."""

from pathlib import Path
from typing import Any, Literal

import pytest
import torch
from omegaconf import OmegaConf

from lit_seqlm.check import check
from lit_seqlm.errors import UserError


class Thing:
    def __init__(
        self,
        count: int = 1,
        rate: float | torch.Tensor = 0.1,
        limit: int | float | None = None,
        name: str = "",
        place: str | Path = "",
        on: bool = False,
        sizes: list[int] | None = None,
        kind: Literal["a", "b"] = "a",
        other: Any = None,
        bare=None,
    ): ...


def refused(**values: Any) -> str:
    node = {"_target_": "tests.unit.test_check.Thing", **values}
    with pytest.raises(UserError) as caught:
        check(OmegaConf.create({"model": node}), {})
    return str(caught.value)


@pytest.mark.parametrize(
    ("key", "value", "wanted"),
    [
        ("count", "abc", "a whole number"),
        ("count", 1.5, "a whole number"),
        ("count", True, "a whole number"),
        ("count", None, "a whole number"),
        ("rate", "abc", "a number or Tensor"),
        ("limit", "abc", "a number or null"),
        ("name", 3, "a word"),
        ("on", 1, "true or false"),
        ("sizes", 3, "a list or null"),
        ("kind", "c", "a or b"),
    ],
)
def test_a_wrong_type_names_the_key_the_value_and_what_it_takes(
    key: str, value: Any, wanted: str
) -> None:
    given = "null" if value is None else value
    assert refused(**{key: value}) == f"model.{key}={given}: it takes {wanted}."


def test_what_the_annotations_allow_passes() -> None:
    node = {
        "_target_": "tests.unit.test_check.Thing",
        "count": 2,
        "rate": 1,  # a whole number is a number
        "limit": 0.5,
        "name": "x",
        "place": "somewhere",
        "on": True,
        "sizes": [1, 2],
        "kind": "b",
        "other": "anything",
        "bare": 3,
    }
    check(OmegaConf.create({"model": node}), {})
    check(OmegaConf.create({"model": {**node, "limit": None, "sizes": None}}), {})
