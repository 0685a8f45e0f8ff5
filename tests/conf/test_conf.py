"""Every option of every group composes, points at real code and fits its signature. No training."""

import ast
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import ConfigAttributeError

from lit_seqlm.check import check
from lit_seqlm.config import Scale, register
from lit_seqlm.engine import INJECTED
from lit_seqlm.errors import UserError
from lit_seqlm.recipe import inherit, scale

ROOT = Path(__file__).parents[2]
CONF = ROOT / "conf"
OVERLAYS = {"experiment", "sweep", "debug"}
MIRROR = {"optimizer": "optim", "scheduler": "optim"}  # group -> package, where the names differ
EXTERNAL = ("torch.optim.", "lightning.")
PACKAGE = {"tokenizer": "tokenizer@data.tokenizer", "search": "search@cache.store"}
WITHIN = {"search": ["cache=unbounded"]}  # what must be chosen for a group to have its place
OPTIONS = sorted(
    path.relative_to(CONF).with_suffix("")
    for path in CONF.rglob("*.yaml")
    if path.parent != CONF and path.parent.name != "local" and not path.name.startswith("_")
)
EXPERIMENTS = [option.name for option in OPTIONS if option.parts[0] == "experiment"]


@pytest.fixture(scope="module", autouse=True)
def _hydra() -> None:
    register()
    with initialize_config_dir(version_base="1.3", config_dir=str(CONF)):
        yield


def composed(*overrides: str) -> DictConfig:
    return compose("config", overrides=["paths.run_dir=outputs/test", *overrides])


def fits(cfg: DictConfig) -> None:
    """Signatures fit; only what a command line must give (a folder) may be missing."""
    missing: tuple[str, ...] = ()
    try:
        check(cfg, INJECTED)
    except UserError as error:
        missing = error.args
    assert all("must be given" in message for message in missing), missing


@pytest.mark.parametrize("option", OPTIONS, ids=str)
def test_option_composes_and_fits(option: Path) -> None:
    group, name = option.parts[0], "/".join(option.parts[1:])
    fits(composed(*WITHIN.get(group, []), f"{PACKAGE.get(group, group)}={name}"))


@pytest.mark.parametrize("option", OPTIONS, ids=str)
def test_option_mirrors_its_package(option: Path) -> None:
    group, text = option.parts[0], (CONF / f"{option}.yaml").read_text()
    assert ("# @package _global_" in text) == (group in OVERLAYS), (
        "overlays, and only overlays, are global"
    )
    assert len(option.parts) == 2, "option names are flat"
    assert len(text.splitlines()) <= (30 if group in OVERLAYS else 15), "an option file is short"
    target = (OmegaConf.create(text) or {}).get("_target_")
    if target and group not in OVERLAYS:
        home = f"lit_seqlm.{MIRROR.get(group, group)}."
        assert target.startswith((home, *EXTERNAL)), f"conf/{group}/ must point into {home}"


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_experiment_is_named_after_its_file(name: str) -> None:
    cfg = composed(f"experiment={name}")
    assert cfg.name == name
    assert cfg.scale in Scale
    assert not (name.endswith("_cpu") and cfg.scale == Scale.paper)


def refuses_typos(node: DictConfig) -> None:
    """As Hydra does it: what is composed takes no key that is not there."""
    for key in [key for key in node if not str(key).startswith("_")]:
        with pytest.raises(ConfigAttributeError):
            OmegaConf.update(node, f"{key}_typo", 1)


@pytest.mark.parametrize("option", [o for o in OPTIONS if o.parts[0] not in OVERLAYS], ids=str)
def test_a_typo_in_any_key_is_refused(option: Path) -> None:
    """Keys of every option, misspelt: refused while composing, before anything loads."""
    group, chosen = option.parts[0], PACKAGE.get(option.parts[0], option.parts[0])
    overrides = [*WITHIN.get(group, []), f"{chosen}={option.name}"]
    place = chosen.rpartition("@")[2]
    node = OmegaConf.select(composed(*overrides), place)
    if isinstance(node, DictConfig):
        refuses_typos(node)
    with pytest.raises(HydraException):
        composed(*overrides, f"{place}.key_typo=1")


def test_a_typo_in_a_file_is_refused_with_the_nearest_name() -> None:
    cfg = composed("data=synthetic", "+model.hiden_size=3")
    with pytest.raises(
        UserError, match=r"model has no option 'hiden_size'\. Did you mean hidden_size\?"
    ):
        check(cfg, INJECTED)


def imports(path: Path) -> set[str]:
    """Top-level modules that a file imports anywhere."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module)
    return found


@pytest.mark.parametrize(
    "package", ["model", "objective", "regularizer", "penalty", "cache", "search"]
)
def test_plain_torch_packages_import_no_framework(package: str) -> None:
    for path in (ROOT / "lit_seqlm" / package).rglob("*.py"):
        frameworks = {
            m
            for m in imports(path)
            if m.split(".")[0] in ("lightning", "hydra", "omegaconf", "wandb")
        }
        assert not frameworks, f"{path.name} imports {frameworks}"


def test_no_model_asks_which_data_it_has() -> None:
    for path in (ROOT / "lit_seqlm" / "model").rglob("*.py"):
        data = {m for m in imports(path) if m.startswith(("lit_seqlm.data", "lit_seqlm.tokenizer"))}
        assert not data, f"{path.name} imports {data}"


MAY_SEE_THE_CONFIG = {"cli.py", "config.py", "check.py", "engine.py", "recipe.py"}


def test_nobody_else_stores_or_passes_the_config() -> None:
    for path in (ROOT / "lit_seqlm").rglob("*.py"):
        names = {
            node.arg if isinstance(node, ast.arg) else node.id
            for node in ast.walk(ast.parse(path.read_text()))
            if isinstance(node, ast.arg | ast.Name)
        }
        assert path.name in MAY_SEE_THE_CONFIG or "cfg" not in names, path


NEED_WEIGHTS = [name for name in EXPERIMENTS if name.endswith("_finetune")] + ["ptb_lstm_cpu_adv"]


@pytest.mark.parametrize("name", NEED_WEIGHTS)
def test_a_recipe_that_goes_on_from_a_run_refuses_to_start_from_nothing(name: str) -> None:
    with pytest.raises(UserError, match=f"{name} needs trained weights"):
        inherit(composed(f"experiment={name}"), None, [f"experiment={name}"])


def test_what_is_said_on_top_of_a_papers_recipe_takes_its_scale_away() -> None:
    def recorded(*overrides: str) -> str:
        return scale(composed("experiment=ptb_lstm_small", *overrides), list(overrides))

    assert recorded("seed=2") == recorded("trainer=gpu") == recorded("logger=wandb") == "paper"
    assert recorded("regularizer=adversarial", "regularizer.radius=0.01") == "paper"
    for cut in ("trainer.max_epochs=1", "model.hidden_size=10", "data.batch_size=5", "data=kjv"):
        assert recorded(cut) == "reduced", cut
    assert recorded("data.shuffle=partial", "scale=paper") == "paper", "the user's own word"


def test_only_tasks_are_lightning_modules() -> None:
    for path in (ROOT / "lit_seqlm").rglob("*.py"):
        if path.parent.name != "task":
            assert "LightningModule)" not in path.read_text(), path


def test_only_config_instantiates() -> None:
    for path in (ROOT / "lit_seqlm").rglob("*.py"):
        if path.name != "config.py":
            assert "instantiate(" not in path.read_text(), path


def test_the_package_never_imports_experiments() -> None:
    for path in (ROOT / "lit_seqlm").rglob("*.py"):
        assert not {m for m in imports(path) if m.split(".")[0] == "experiments"}, path


def test_no_place_or_person_in_a_config() -> None:
    for path in CONF.rglob("*.yaml"):
        text = path.read_text()
        assert not any(word in text for word in ("/home", "/root", "/work", "/tmp")), path
        assert "eval:" not in text, path
