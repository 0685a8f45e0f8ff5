"""Pooled states of a whole split, computed once."""

# N = sequences, D = hidden size

from collections.abc import Iterator
from typing import Any

import torch
from rich.console import Console
from rich.progress import track
from torch import Tensor, nn

from lit_seqlm.data.kept import Kept
from lit_seqlm.task.context import redraws


def embed_split(
    model: Any, datamodule: Any, split: str, cache_dir: str | None, device: torch.device
) -> Tensor:
    """Pooled states (N, D) float32 of a split, in the order of its table.

    They are kept in `cache_dir` by a digest of the trunk's weights and options, pooling and tokens, so that nothing
    stale is read; not at all where features are drawn anew for each batch, as no two passes agree.
    """
    tokens = datamodule.tables[split].tokens
    kept = Kept(None if redraws(model) else cache_dir, "embeddings", _follows_from(model, tokens))
    if (arrays := kept.read()) is not None:
        return torch.from_numpy(arrays["states_ND"])
    states_ND = _embed(model, datamodule, split, device)
    kept.write({"states_ND": states_ND.numpy()})
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


def _follows_from(model: Any, tokens: Any) -> Iterator[str | bytes]:
    yield repr(model.head.pooling)
    yield _options(model.trunk)
    for name, tensor in model.trunk.state_dict().items():
        yield name
        yield tensor.cpu().contiguous().numpy().tobytes()
    yield tokens.ids.tobytes()
    yield tokens.offsets.tobytes()


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
