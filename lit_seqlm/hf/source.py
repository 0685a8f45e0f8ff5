"""Weights as somebody published them: a Lightning file, or a Hugging Face folder with its settings."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pooch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from lit_seqlm.errors import UserError, did_you_mean
from lit_seqlm.hf.keys import FAMILIES, HUGGING_FACE, family_of, plain_names
from lit_seqlm.hf.pickled import hints_in, read_pickled, weights_in
from lit_seqlm.hf.settings import hints_in_settings, read_settings

WEIGHT_FILES = ("model.safetensors", "pytorch_model.bin", "pytorch_model.pt")
VOCABULARY_FILES = ("vocab.json", "tokenizer.json", "bert_vocab.txt", "vocab.txt")


@dataclass
class Source:
    """What was read, still under its own names.

    Attributes:
        settings: of config.json; empty for a file alone.
        hints: ``num_heads`` and ``num_features`` as far as the file or its settings say them.
        vocabulary: the file of tokens that lay beside the weights, if any.
    """

    path: Path
    family: str
    tensors: dict[str, Tensor]
    settings: dict[str, Any] = field(default_factory=dict)
    hints: dict[str, int] = field(default_factory=dict)
    vocabulary: Path | None = None

    @property
    def sha256(self) -> str:
        return pooch.file_hash(str(self.path))


def read_source(origin: str, family: str) -> Source:
    """Read a checkpoint file, a .safetensors file or a folder with one.

    Args:
        family: ``official``, ``hf`` or ``auto``.

    Raises:
        UserError: if there is nothing to read, or it is of another family or another model.
    """
    if family not in (*FAMILIES, "auto"):
        raise UserError(f"--family {family}. {did_you_mean(family, (*FAMILIES, 'auto'))}")
    path = _weight_file(Path(origin))
    hints: dict[str, int] = {}
    settings: dict[str, Any] = {}
    if path.suffix == ".safetensors":
        tensors = _safetensors(path)
    else:
        content = read_pickled(path)
        tensors, hints = weights_in(content, path), hints_in(content)
    tensors = plain_names(tensors)
    found = family_of(tensors, str(path))
    if family not in ("auto", found):
        raise UserError(
            f"--family {family}: {path} is in the {found} layout. Leave --family out, or say --family {found}."
        )
    if found == HUGGING_FACE:
        settings = read_settings(path)
        hints = hints_in_settings(settings)
    beside = (path.with_name(name) for name in VOCABULARY_FILES)
    vocabulary = next((file for file in beside if file.exists()), None)
    return Source(path, found, tensors, settings, hints, vocabulary)


def _weight_file(path: Path) -> Path:
    if not path.exists():
        raise UserError(
            f"no such file or folder: {path}. Give IBM's .ckpt file or a Hugging Face folder."
        )
    if not path.is_dir():
        return path
    found = next((path / name for name in WEIGHT_FILES if (path / name).exists()), None)
    if found is None:
        raise UserError(
            f"{path} has none of {', '.join(WEIGHT_FILES)}. Give a Hugging Face folder, or the .ckpt file itself."
        )
    return found


def _safetensors(path: Path) -> dict[str, Tensor]:
    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise UserError(f"{path} is not a readable .safetensors file ({error}).") from None
