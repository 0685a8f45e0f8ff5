"""Reading other people's .ckpt, .pt and .bin files without running a line of them."""

import argparse
import pickle
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.serialization import get_unsafe_globals_in_checkpoint, safe_globals

from lit_seqlm.errors import UserError

# The official checkpoint keeps its options (a Namespace) and generators (numpy arrays) beside the
# weights. Both numpy 1 and numpy 2 wrote such files, and they name the same functions differently.
NUMPY_MODULES = ("numpy.core.multiarray", "numpy._core.multiarray")
NUMBER_TYPES = (np.bool_, np.uint8, np.int32, np.uint32, np.int64, np.uint64, np.float32, np.float64)  # fmt: skip
# Lightning 1 used the class of a callback as a key for its state; Megatron keeps a loss scaler and enums.
STAND_INS = ("pytorch_lightning.callbacks.", "lightning.pytorch.callbacks.", "megatron.", "fp16.")
WEIGHTS = ("state_dict", "model_state_dict")
UNREADABLE = (RuntimeError, EOFError, OSError, ValueError, KeyError, zipfile.BadZipFile)


class Placeholder:
    """Stands where the file names a class of `STAND_INS`: nothing is imported, and it does nothing."""

    def __init__(self, *parts: object):
        """Whatever the file would make it of."""


def read_pickled(path: Path) -> dict[str, Any]:
    """The content of a checkpoint that holds tensors, plain values and what `allowed` names.

    Raises:
        UserError: for a file that holds anything else, of which nothing was run, or is damaged.
    """
    try:
        with safe_globals(allowed(path)), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:
        raise _refused(path) from None
    except UNREADABLE as error:
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise UserError(f"{path} is not a readable checkpoint ({reason}).") from None
    if not isinstance(content, dict):
        raise UserError(f"{path} holds a {type(content).__name__}, not the weights of a model.")
    return content


def allowed(path: Path) -> list[Any]:
    """What the reader may make beside tensors; none of it runs code that a file brings."""
    reconstruct, scalar = np.array(0.0).__reduce__()[0], np.float64(0).__reduce__()[0]
    arrays = [np.ndarray, np.dtype, *{type(np.dtype(kind)) for kind in NUMBER_TYPES}]
    functions = [
        (function, f"{module}.{name}")
        for module in NUMPY_MODULES
        for function, name in ((reconstruct, "_reconstruct"), (scalar, "scalar"))
    ]
    return [argparse.Namespace, *arrays, *functions, *_stand_ins(path)]


def weights_in(content: Mapping[str, Any], path: Path) -> dict[str, Tensor]:
    """The state of the model in a checkpoint of Lightning or DeepChem, or in a plain file of tensors.

    Raises:
        UserError: if there is none, or the file is one of this program.
    """
    if "tokenizer" in content and "config" in content:
        raise UserError(
            f"{path} is a checkpoint of this program already: say init_from={path}, no import is needed."
        )
    found = next((content[key] for key in WEIGHTS if key in content), content)
    if not isinstance(found, dict) or not found:
        raise UserError(f"{path} holds no weights: neither state_dict nor model_state_dict.")
    wrong = [name for name, value in found.items() if not isinstance(value, Tensor)]
    if wrong:
        raise UserError(f"{path} holds no weights: its {wrong[0]} is no tensor.")
    return found


def hints_in(content: Mapping[str, Any]) -> dict[str, int]:
    """Numbers of heads and random features, where the official options say them."""
    options = content.get("hyper_parameters", {})
    options = vars(options) if isinstance(options, argparse.Namespace) else options
    names = {"num_heads": "n_head", "num_features": "num_feats"}
    known = {ours: options.get(theirs) for ours, theirs in names.items()}
    return {name: value for name, value in known.items() if isinstance(value, int)}


def _stand_ins(path: Path) -> list[Any]:
    try:
        names = get_unsafe_globals_in_checkpoint(path)
    except (*UNREADABLE, pickle.UnpicklingError):  # reading it says what is wrong
        return []
    return [(Placeholder, name) for name in names if name.startswith(STAND_INS)]


def _refused(path: Path) -> UserError:
    try:
        with safe_globals(allowed(path)):
            names = sorted(get_unsafe_globals_in_checkpoint(path))
    except (*UNREADABLE, pickle.UnpicklingError):  # too damaged, or too old, to list
        names = []
    if not names:
        return UserError(
            f"{path} is no file of tensors that torch wrote, or is damaged. Nothing of it was run. "
            "Give the file as it was published, a .safetensors file or a Hugging Face folder."
        )
    return UserError(
        f"{path} holds objects that are not weights ({', '.join(names[:3])}), so it was refused and nothing of it "
        "was run. Ask its author for a .safetensors file. Or, where you trust it and have the program that wrote it, "
        'save the tensors alone: torch.save({"state_dict": model.state_dict()}, "weights.pt"), and import weights.pt.'
    )
