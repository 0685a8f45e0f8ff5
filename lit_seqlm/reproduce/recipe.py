"""What a command line is today, as run.py would see it, without running it."""

from hydra import compose, initialize_config_dir
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, open_dict

from lit_seqlm import recipe
from lit_seqlm.checkpoint import find_checkpoint, read_checkpoint
from lit_seqlm.config import CONF, config_hash, register
from lit_seqlm.errors import UserError


def hash_of(command: list[str]) -> str | None:
    """The `config_hash` of what follows `run.py`; None if that follows from weights that are not here."""
    register()
    with initialize_config_dir(version_base="1.3", config_dir=str(CONF)):
        words = [*command, "paths.run_dir=."]
        cfg = compose("config", overrides=words, return_hydra_config=True)
    if cfg.init_from and recipe.inherits(cfg) and not _inherited(cfg, command):
        return None
    return config_hash(_without_hydra(cfg))


def _inherited(cfg: DictConfig, command: list[str]) -> bool:
    """Take over, as a run does, what a task has from the weights that it goes on from."""
    try:
        origin = read_checkpoint(find_checkpoint(cfg.init_from))
    except UserError:
        return False
    before = HydraConfig.instance().cfg
    HydraConfig.instance().set_config(cfg)
    try:
        recipe.inherit(_without_hydra(cfg), origin, command)
    finally:
        HydraConfig.instance().cfg = before
    return True


def _without_hydra(cfg: DictConfig) -> DictConfig:
    """What a run is given: the config without Hydra's own section."""
    with open_dict(cfg):
        cfg.pop("hydra", None)
    return cfg
