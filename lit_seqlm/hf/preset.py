"""The config of an imported model: the options of its family, with the sizes of its tensors."""

from collections.abc import Mapping
from typing import Any

from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from lit_seqlm.config import CONF, Scale, register
from lit_seqlm.hf.keys import HUGGING_FACE
from lit_seqlm.hf.settings import model_options, option
from lit_seqlm.hf.sizes import Sizes

# What the published code makes of an unknown token: the fine-tuning tokenizer of the official one, <pad>.
UNKNOWN = {"official": "pad", "hf": "unk"}
SIZES = ("hidden_size", "num_layers", "num_heads", "feed_forward_size")
PUBLISHED_PARAMETERS = 46_781_184
CONVENTIONS = ("layer_norm_eps", "guard", "guard_eps", "feed_forward_dropout", "embedding_dropout",
               "pad_handling", "omega_policy")  # fmt: skip


def config_for(family: str, sizes: Sizes, settings: Mapping[str, Any], seed: int) -> dict[str, Any]:
    """A run's config as checkpoints hold it, as far as loading and fine-tuning read it.

    Args:
        settings: of config.json; what it says goes before the family's own options.
        seed: what tensors that the file lacks are drawn from.
    """
    options = {
        **{name: getattr(sizes, name) for name in SIZES},
        "attention.num_features": sizes.num_features,
        **model_options(settings),
    }
    preset = "molformer_hf" if family == HUGGING_FACE else "molformer_official"
    # Data that read molecules, for embed and predict; what is trained on is chosen when something is.
    chosen = [f"model={preset}", "objective=masked_lm", "data=moses", "paths.run_dir=."]
    chosen += [f"data.tokenizer.unknown={UNKNOWN[family]}"]
    chosen += [f"model.{name}={value}" for name, value in options.items()]
    register()
    with initialize_config_dir(version_base="1.3", config_dir=str(CONF)):
        composed = compose("config", overrides=chosen)
    parts = {
        "model": OmegaConf.to_container(composed.model, resolve=True),
        "objective": OmegaConf.to_container(composed.objective, resolve=True),
        "data": OmegaConf.to_container(composed.data, resolve=True),
    }
    published = sizes.num_parameters() == PUBLISHED_PARAMETERS
    scale = Scale.paper if published else Scale.reduced
    return {**parts, "name": preset, "seed": seed, "scale": scale.value, "monitor": "val/nll"}


def conventions_of(model: Mapping[str, Any]) -> dict[str, Any]:
    """The options that decide an encoder's numbers beside its weights, wherever they stand in its config."""
    return {name: value for name in CONVENTIONS if (value := option(model, name)) is not None}
