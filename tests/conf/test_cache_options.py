"""Memories from the command line: every option is made, every key is known, lists to choose from reach their memory."""

from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from hydra import compose, initialize_config_dir
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import ConfigAttributeError

from lit_seqlm import cli
from lit_seqlm.cache.dynamic import DynamicEvaluation
from lit_seqlm.cache.memory import Memory
from lit_seqlm.config import CONF, build, register
from lit_seqlm.errors import UserError

CACHES = sorted(path.stem for path in (CONF / "cache").glob("*.yaml"))
SEARCHES = sorted(path.stem for path in (CONF / "search").glob("[!_]*.yaml"))
STORES = {"unbounded": "cache.store", "knn": "cache.store", "mixture": "cache.components.unbounded.store",
          "local_and_knn": "cache.components.knn.store"}  # fmt: skip
THETA = "theta=[0.3,1.0]"


@cache
def composed(*overrides: str) -> DictConfig:
    register()
    with initialize_config_dir(version_base="1.3", config_dir=str(CONF)):
        return compose("config", overrides=["paths.run_dir=outputs/test", *overrides])


def made(*overrides: str) -> Any:
    return build(composed(*overrides).cache)


def nodes(node: DictConfig, path: str) -> Iterator[tuple[str, list[str]]]:
    """Every mapping below a place, and what may be said in it."""
    yield path, [str(key) for key in node if not str(key).startswith("_")]
    for key in map(str, node):
        if isinstance(node[key], DictConfig):
            yield from nodes(node[key], f"{path}.{key}")


def refusal(monkeypatch: pytest.MonkeyPatch, *overrides: str) -> str:
    """What run.py says to a command line that cannot be composed."""
    monkeypatch.setattr("sys.argv", ["run.py", *overrides])
    monkeypatch.setattr(cli, "_composed", lambda: composed(*overrides[:-1]))
    with pytest.raises(HydraException) as caught:
        composed(*overrides)
    return cli.explain(caught.value)


@pytest.mark.parametrize("option", CACHES)
def test_every_cache_is_made(option: str) -> None:
    assert isinstance(made(f"cache={option}"), Memory | DynamicEvaluation)


@pytest.mark.parametrize("option", SEARCHES)
@pytest.mark.parametrize("memory", STORES)
def test_every_search_goes_into_every_memory_that_searches(memory: str, option: str) -> None:
    parts = made(f"cache={memory}", f"search@{STORES[memory]}={option}").memories
    stores = [part.store for part in parts.values() if hasattr(part, "store")]
    assert [store.options.kind for store in stores] == [option.removesuffix("_small")]


@pytest.mark.parametrize("option", [name for name in CACHES if name != "none"])
def test_a_typo_in_every_key_is_refused_with_the_accepted_names(
    option: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a store and in the lists to choose from too."""
    whole = composed(f"cache={option}")
    for path, keys in nodes(whole.cache, "cache"):
        for key in keys:
            with pytest.raises(ConfigAttributeError):
                OmegaConf.update(whole, f"{path}.{key}_typo", 1)
        if not keys or "components" in path:  # whose parts are options themselves
            continue
        typo = f"{path}.{keys[-1]}_typo"
        said = refusal(monkeypatch, f"cache={option}", f"{typo}=1")
        assert said.startswith(f"{typo}: there is no such key. Did you mean {keys[-1]}? "), said
        assert said.endswith(f"Accepted: {', '.join(sorted(keys))}.")


@pytest.mark.parametrize(
    ("chosen", "place", "name"),
    [
        (["cache=local"], "cache", "local"),
        (["cache=unbounded"], "cache", "unbounded"),
        (["cache=knn"], "cache", "knn"),
        (["cache=mixture"], "cache.components.local", "local"),
        (["cache=mixture"], "cache.components.unbounded", "unbounded"),
        (["cache=local_and_knn"], "cache.components.knn", "knn"),
        (["cache=mixture", "+cache@cache.components.far=knn"], "cache.components.far", "far"),
    ],
)
def test_lists_to_choose_from_reach_their_memory(chosen: list[str], place: str, name: str) -> None:
    memories = made(*chosen, f"{place}.grid.{THETA}").memories
    assert [setting["theta"] for setting in memories[name].settings] == [0.3, 1.0]
    alone = [part for other, part in memories.items() if other != name]
    assert all(len(part.settings) == 1 for part in alone)


def test_two_lists_make_every_combination() -> None:
    memory = made("cache=local", f"cache.grid.{THETA}", "cache.grid.size=[10,null]")
    points = {(setting["size"], setting["theta"]) for setting in memory.settings}
    assert points == {(10, 0.3), (10, 1.0), (None, 0.3), (None, 1.0)}


@pytest.mark.parametrize("option", ["local", "unbounded", "knn", "unigram"])
def test_a_list_for_what_a_memory_has_not_is_refused(option: str) -> None:
    with pytest.raises(UserError, match=r"cache\.grid\.thet: there is nothing of that name"):
        made(f"cache={option}", "+cache.grid.thet=[1]")


def test_a_memory_is_added_to_a_mixture_and_taken_out() -> None:
    """As conf/cache/mixture.yaml says it."""
    assert Path(CONF / "cache" / "mixture.yaml").read_text().count("~cache.components.unigram") == 1
    changed = made("cache=mixture", "+cache@cache.components.far=knn", "~cache.components.unigram")
    assert list(changed.memories) == ["local", "unbounded", "far"]
