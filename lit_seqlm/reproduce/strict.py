"""YAML into dataclasses, strictly: every mistake is told with its place and the accepted names."""

from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any

import yaml

from lit_seqlm.errors import UserError, did_you_mean


class Printed(float):
    """A number that remembers how it was written: 0.27 has two digits behind the point, 0.270 three."""

    text: str

    @property
    def digits(self) -> int:
        return len(self.text.partition(".")[2])


def construct(kind: Any, plain: Any, where: str) -> Any:
    """A dataclass from a mapping whose keys and simple types must fit."""
    values = mapping(plain, where)
    check_keys(values, kind, where, with_path=True)
    for item in fields(kind):
        if item.name not in values:
            if item.default is MISSING and item.default_factory is MISSING:
                raise UserError(f"{where}: the key {item.name!r} is missing.")
            continue
        values[item.name] = _convert(values[item.name], item.type, f"{where}: {item.name}")
    return kind(**values)


def check_keys(values: dict[str, Any], kind: Any, where: str, with_path: bool = False) -> None:
    known = [item.name for item in fields(kind) if with_path or not item.metadata.get("from_path")]
    for key in values:
        if key not in known:
            raise UserError(f"{where}: there is no key {key!r}. {did_you_mean(str(key), known)}")


def _convert(value: Any, kind: Any, where: str) -> Any:
    """Check a YAML value against a field's type; only lists become tuples and integers floats."""
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if kind is str and not isinstance(value, str):
        raise UserError(f"{where} must be text, not {value!r}. Put it in quotes.")
    if kind is bool and not isinstance(value, bool):
        raise UserError(f"{where} must be true or false, not {value!r}.")
    if kind is int and (not number or isinstance(value, float)):
        raise UserError(f"{where} must be a whole number, not {value!r}.")
    if kind == float | None and not number:
        raise UserError(f"{where} must be a number, not {value!r}.")
    if kind == dict[str, float]:
        return {
            key: _number(_convert(inner, float | None, f"{where}: {key}"))
            for key, inner in mapping(value, where).items()
        }
    for of, inner_kind in ((tuple[str, ...], str), (tuple[int, ...], int)):
        if kind == of:
            if not isinstance(value, list | tuple):
                raise UserError(f"{where} must be a list, not {value!r}.")
            return tuple(_convert(inner, inner_kind, where) for inner in value)
    return value


def _number(value: Any) -> float:
    return value if isinstance(value, Printed) else float(value)


def choice(value: str, choices: Any, where: str) -> None:
    if value not in choices:
        raise UserError(f"{where} {value!r} is not known. {did_you_mean(value, choices)}")


def mapping(value: Any, where: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise UserError(f"{where} must be a mapping of keys to values, not {value!r}.")
    return dict(value)


def read_yaml(path: Path) -> dict[str, Any]:
    where = f"{path.parent.name}/{path.name}"
    try:
        return mapping(yaml.load(path.read_text(), Loader=_NoDuplicates), where)
    except yaml.YAMLError as error:
        raise UserError(f"{where} is not YAML: {' '.join(str(error).split())}") from None


class _NoDuplicates(yaml.SafeLoader):
    """YAML lets the last of two equal keys win in silence; here it is an error. Numbers are `Printed`."""

    def construct_yaml_float(self, node: yaml.ScalarNode) -> float:
        value = Printed(super().construct_yaml_float(node))
        value.text = node.value
        return value

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        for key in keys:
            if keys.count(key) > 1:
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key {key!r} stands twice", node.start_mark
                )
        return super().construct_mapping(node, deep)


_NoDuplicates.add_constructor("tag:yaml.org,2002:float", _NoDuplicates.construct_yaml_float)
