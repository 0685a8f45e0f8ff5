"""Before any data loads: every target of a config exists, takes what it is given, and gets values of its types."""

import inspect
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from omegaconf import DictConfig, OmegaConf

from lit_seqlm.config import RunConfig, target
from lit_seqlm.errors import UserError, did_you_mean

PLAIN = (NoneType, bool, int, float, str)
WORDS = {NoneType: "null", bool: "true or false", int: "a whole number", float: "a number", str: "a word",
         list: "a list", tuple: "a list", dict: "a mapping"}  # fmt: skip


def check(cfg: DictConfig, injected: dict[str, set[str]]) -> None:
    """Every target exists and takes what it is given, before any data loads.

    Args:
        injected: for a dotted path, the parameters that the program fills in itself.

    Raises:
        UserError: with the key, what is accepted there, and the nearest name.
    """
    known = {f.name for f in fields(RunConfig)}
    for key in sorted(map(str, cfg.keys() - known)):
        raise UserError(f"{key}: there is no such key. {did_you_mean(key, known)}")
    if cfg.get("seed", 0) < 0:
        raise UserError(f"seed={cfg.seed}: it must be at least 0.")
    for path, node in _targets(cfg):
        parameters = inspect.signature(target(node)).parameters
        _check_values(path, node)
        if any(p.kind is inspect.Parameter.VAR_KEYWORD for p in parameters.values()):
            continue
        given = {str(key) for key in node if not str(key).startswith("_")}
        own = injected.get(path, set())
        for key in sorted(given - parameters.keys()):
            raise UserError(
                f"{path} has no option {key!r}. {did_you_mean(key, parameters.keys() - own)}"
            )
        required = {n for n, p in parameters.items() if p.default is p.empty}
        for key in sorted(required - given - own) if not node.get("_partial_") else []:
            raise UserError(f"{path}.{key} is not set. Say {path}.{key}=VALUE.")
        for key in given:
            if OmegaConf.is_missing(node, key):
                raise UserError(f"{path}.{key} must be given. Say {path}.{key}=VALUE.")


def _check_values(path: str, node: DictConfig) -> None:
    """Plain values against the annotations of the constructor; what is annotated as a class is its own judge."""
    made = target(node)
    try:
        hints = get_type_hints(made.__init__ if inspect.isclass(made) else made)
    except NameError:  # a name that exists for type checkers only
        return
    for key in map(str, node):
        if key not in hints or OmegaConf.is_missing(node, key):
            continue
        value = node[key]
        if isinstance(value, PLAIN) and not _fits(value, hints[key]):
            words = list(dict.fromkeys(_in_words(hints[key])))
            wanted = " or ".join(w for w in words if w != WORDS[int] or WORDS[float] not in words)
            given = "null" if value is None else str(value)
            raise UserError(f"{path}.{key}={given}: it takes {wanted}.")


def _fits(value: Any, hint: Any) -> bool:
    """Whether a plain value is of an annotated type; true for annotations that say nothing of plain values."""
    if hint is Any or isinstance(hint, str):
        return True
    if get_origin(hint) in (Union, UnionType):
        return any(_fits(value, inner) for inner in get_args(hint))
    if get_origin(hint) is Literal:
        return value in get_args(hint)
    if hint is float:
        return isinstance(value, int | float) and not isinstance(value, bool)
    if hint is int:
        return isinstance(value, int) and not isinstance(value, bool)
    return isinstance(value, str) if hint is Path else hint in PLAIN and isinstance(value, hint)


def _in_words(hint: Any) -> Iterator[str]:
    if get_origin(hint) in (Union, UnionType):
        for inner in get_args(hint):
            yield from _in_words(inner)
    elif get_origin(hint) is Literal:
        yield from map(str, get_args(hint))
    else:
        made = get_origin(hint) or hint
        yield WORDS.get(made) or str(getattr(made, "__name__", made))


def _targets(value: Any, path: str = "") -> Iterator[tuple[str, DictConfig]]:
    if isinstance(value, DictConfig):
        if "_target_" in value:
            yield path, value
        for key in map(str, value):
            if not OmegaConf.is_missing(value, key):
                yield from _targets(value[key], f"{path}.{key}" if path else key)
