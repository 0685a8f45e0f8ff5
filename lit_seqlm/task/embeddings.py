"""Pooled states of a whole split, computed once."""

# N = sequences, D = hidden size

import hashlib
import logging
import os
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.progress import track
from torch import Tensor, nn

from lit_seqlm.task.rows import redraws

log = logging.getLogger(__name__)


def embed_split(
    model: Any, datamodule: Any, split: str, cache_dir: str | None, device: torch.device
) -> Tensor:
    """Pooled states (N, D) float32 of a split, in the order of its table.

    They are kept in `cache_dir` by a digest of the trunk's weights and options, pooling and tokens, so that nothing
    stale is read; not at all where features are drawn anew for each batch, as no two passes agree.
    """
    tokens = datamodule.tables[split].tokens
    place = None
    if cache_dir is not None and not redraws(model):
        key = _digest(model, tokens)
        place = Path(cache_dir) / f"embeddings-{key}.npy"
        if place.exists():
            return torch.from_numpy(np.load(place))
    states_ND = _embed(model, datamodule, split, device)
    if place is not None:
        place.parent.mkdir(parents=True, exist_ok=True)
        partial = place.with_name(f".{place.stem}.{os.getpid()}.npy")
        np.save(partial, states_ND.numpy())
        partial.replace(place)
    return states_ND


@torch.inference_mode()
def _embed(model: Any, datamodule: Any, split: str, device: torch.device) -> Tensor:
    loader, console = datamodule.exact_dataloader(split), Console(stderr=True)
    states, rows = [], []
    for batch in track(
        loader,
        f"embedding {split}",
        total=len(loader),
        console=console,
        transient=True,
        disable=not console.is_terminal,
    ):
        valid_BT = None if batch.valid_BT is None else batch.valid_BT.to(device)
        states.append(model.embed(batch.tokens_BT.to(device), valid_BT).float().cpu())
        rows.append(batch.rows_B)
    order = torch.cat(rows).argsort()
    return torch.cat(states)[order].clone()


def _digest(model: Any, tokens: Any) -> str:
    digest = hashlib.sha256(repr(model.head.pooling).encode())
    digest.update(_options(model.trunk).encode())
    for name, tensor in model.trunk.state_dict().items():
        digest.update(name.encode() + tensor.cpu().contiguous().numpy().tobytes())
    digest.update(tokens.ids.tobytes() + tokens.offsets.tobytes())
    return digest.hexdigest()[:16]


def _options(trunk: nn.Module) -> str:
    """What decides a trunk's numbers beside its weights: kinds of its parts, and the words and numbers they keep."""
    parts = []
    for name, part in trunk.named_modules():
        kept = {key: getattr(value, "__name__", value) for key, value in vars(part).items()
                if isinstance(value, bool | int | float | str | tuple) or callable(value)}  # fmt: skip
        plain = {key: value for key, value in kept.items() if not key.startswith("_")}
        parts.append(
            (name, type(part).__qualname__, sorted(plain.items(), key=lambda item: item[0]))
        )
    return repr(parts)
