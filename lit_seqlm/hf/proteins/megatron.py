"""Reading a Megatron checkpoint of ProteinLM: one file for each rank that held a share of the model."""

# D = hidden size

import re
from argparse import Namespace
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from lit_seqlm.errors import UserError
from lit_seqlm.hf.pickled import read_pickled
from lit_seqlm.hf.proteins.keys import MEGATRON, OUTPUT_HEAD, expected_keys, num_layers_of

FILE, TRACKER = "model_optim_rng.pt", "latest_checkpointed_iteration.txt"
RANK = re.compile(r"mp_rank_(\d\d)")
STAGE = re.compile(r"mp_rank_\d\d_\d\d\d")
# The rows of a fused projection: whose index runs slowest to fastest. Megatron changed it twice.
FUSED = {
    0.0: ("part", "head", "size"),
    1.0: ("head", "size", "part"),
    2.0: ("head", "part", "size"),
    3.0: ("head", "part", "size"),  # what ProteinLM's code writes
}
SAME = {"rtol": 1e-3, "atol": 1e-5}  # how far ranks may be apart in what all of them hold


class Read(NamedTuple):
    """What a Megatron checkpoint holds of a model.

    Attributes:
        tensors: under Megatron's names, whole; each fused projection is query, key, value, as ours.
        options: what the program that wrote it was told.
        files: one for each rank.
        version: ``checkpoint_version``.
        has_version: whether the file says it.
    """

    tensors: dict[str, Tensor]
    options: dict[str, Any]
    files: list[Path]
    version: float
    has_version: bool


def is_megatron(path: Path) -> bool:
    """Whether this looks like a Megatron checkpoint: its file, or a folder of ranks or of iterations."""
    if not path.is_dir():
        return path.name == FILE
    return (path / TRACKER).is_file() or (path / FILE).is_file() or bool(_ranks(path))


def read_megatron(path: Path, version: float | None, num_heads: int | None) -> Read:
    """Read every rank's file and put its tensors together.

    Args:
        path: a rank's file, or the folder of a rank, of all ranks, or of iterations.
        version: ``checkpoint_version``, for a file that does not say it.
        num_heads: for a file without its program's options.

    Raises:
        UserError: for ranks that are missing or of different models, and a version that is not known.
    """
    files = rank_files(path)
    contents = [read_pickled(file) for file in files]
    first = contents[0]
    options = _options(first, files[0])
    _check_ranks(options, files)
    found = _version(first, version, files[0])
    heads = options.get("num_attention_heads") or num_heads
    if not isinstance(heads, int) or heads < 1:
        raise UserError(
            f"{files[0]}: it has no args that say num_attention_heads, and no tensor shows it. Say --heads N: 16 for "
            "the model of 1024."
        )
    flat = [_flat(content, file) for content, file in zip(contents, files, strict=True)]
    tensors = merged(flat, found, heads, str(files[0]))
    return Read(
        tensors,
        {**options, "num_attention_heads": heads},
        files,
        found,
        "checkpoint_version" in first,
    )


def rank_files(path: Path) -> list[Path]:
    """The files of all ranks, in order.

    Raises:
        UserError: where there are none, one is missing, or the model was cut into stages.
    """
    if path.is_file() and path.name != FILE:
        return [path]
    folder = path.parent if path.name == FILE else path
    if (folder / TRACKER).is_file():
        said = (folder / TRACKER).read_text(encoding="utf-8", errors="replace").strip()
        folder = folder / (f"iter_{int(said):07d}" if said.isdecimal() else "release")
    elif RANK.fullmatch(folder.name):
        folder = folder.parent
    stages = [found.name for found in _entries(folder) if STAGE.fullmatch(found.name)]
    if stages:
        raise UserError(
            f"{folder} has {', '.join(sorted(stages)[:3])}: this model was cut into pipeline stages, which cannot be "
            "put together here. Merge them with Megatron's own tools first."
        )
    ranks = _ranks(folder)
    files = [rank / FILE for rank in ranks] or [folder / FILE]
    numbers = [int(RANK.fullmatch(rank.name)[1]) for rank in ranks]  # type: ignore[index]
    lost = sorted(set(range(max(numbers, default=-1) + 1)) - set(numbers))
    absent = [f"mp_rank_{number:02d}" for number in lost]
    absent += [str(file.relative_to(folder)) for file in files if not file.is_file()]
    if absent:
        raise UserError(
            f"{folder}: there is no {', '.join(absent)}. A Megatron checkpoint is a folder with {FILE} in mp_rank_00, "
            "and in mp_rank_01 and so on where several ranks shared the model."
        )
    return files


def merged(
    ranks: Sequence[Mapping[str, Tensor]], version: float, num_heads: int, where: str
) -> dict[str, Tensor]:
    """Tensors as one rank would hold them; each fused projection is query, key, value.

    Raises:
        UserError: for ranks that differ in the names of tensors, or in one that all hold.
    """
    if any(rank.keys() != ranks[0].keys() for rank in ranks):
        raise UserError(f"{where}: the ranks hold tensors of different names, so of other models.")
    keys = [*expected_keys(MEGATRON, num_layers_of(ranks[0])), *((key, 0) for key in OUTPUT_HEAD)]
    shared = {key.theirs(MEGATRON, layer)[0]: key.shared for key, layer in keys}
    whole: dict[str, Tensor] = {}
    for name in ranks[0]:
        shares, how = [rank[name] for rank in ranks], shared.get(name, "whole")
        if len({share.shape for share in shares}) > 1 or (how == "whole" and not _same(shares)):
            raise UserError(
                f"{where}: the ranks do not agree in {name}. Put mp_rank_ folders of one iteration together."
            )
        if how == "heads":
            parts = [apart(share, version, num_heads / len(ranks), where) for share in shares]
            whole[name] = torch.cat(parts, 1).flatten(0, 1)
        elif how == "whole" or len(ranks) == 1 or shares[0].dim() <= (how == "columns"):
            whole[name] = shares[0]
        else:
            whole[name] = torch.cat(shares, int(how == "columns"))
    return whole


def apart(fused: Tensor, version: float, num_heads: float, where: str) -> Tensor:
    """Query, key and value (3, D, ...) of a fused projection's weight or bias.

    Raises:
        UserError: if its rows are not those of so many heads.
    """
    if num_heads % 1 or not fused.dim() or len(fused) % (3 * num_heads):
        raise UserError(
            f"{where}: a query_key_value of shape {tuple(fused.shape)} is not queries, keys and values of "
            f"{num_heads:g} heads. --heads says another number where the file has no args."
        )
    heads = int(num_heads)
    sizes = {"part": 3, "head": heads, "size": len(fused) // (3 * heads)}
    order = FUSED[version]
    split = fused.unflatten(0, [sizes[index] for index in order])
    return split.movedim(order.index("part"), 0).flatten(1, 2)


def _version(content: Mapping[str, Any], said: float | None, path: Path) -> float:
    found = content.get("checkpoint_version")
    if None not in (found, said) and found != said:
        raise UserError(f"{path} says checkpoint_version={found}. Leave --checkpoint-version out.")
    version = next((v for v in (found, said) if v is not None), 0.0)
    if isinstance(version, bool) or not isinstance(version, int | float) or version not in FUSED:
        raise UserError(
            f"{path}: checkpoint_version={version} is not known, so neither is the order of its queries, keys and "
            f"values. Known: {', '.join(f'{known:g}' for known in FUSED)}."
        )
    return float(version)


def _options(content: Mapping[str, Any], path: Path) -> dict[str, Any]:
    args = content.get("args")
    if args is None:
        return {}
    found = vars(args) if isinstance(args, Namespace) else args
    if not isinstance(found, dict):
        raise UserError(f"{path}: its args are a {type(args).__name__}, not a program's options.")
    return dict(found)


def _check_ranks(options: Mapping[str, Any], files: list[Path]) -> None:
    names = ("tensor_model_parallel_size", "model_parallel_size")
    size = next((options[name] for name in names if options.get(name)), len(files))
    if size != len(files):
        raise UserError(
            f"{files[0]}: its args say that {size} ranks shared the model, and there are {len(files)}. Put all "
            "mp_rank_ folders of one iteration together."
        )


def _same(shares: list[Tensor]) -> bool:
    first = shares[0].float()
    return all(torch.allclose(share.float(), first, equal_nan=True, **SAME) for share in shares[1:])


def _flat(content: Mapping[str, Any], path: Path) -> dict[str, Tensor]:
    """The nested dictionaries of a model, with a dot between their names."""
    model = content.get("model")
    if not isinstance(model, dict) or not model:
        raise UserError(
            f"{path} holds no model of Megatron's, but {', '.join(map(str, content)) or 'nothing'}."
        )
    flat = dict(_leaves(model, ""))
    wrong = [name for name, value in flat.items() if not isinstance(value, Tensor)]
    if wrong:
        raise UserError(f"{path} holds no weights: its {wrong[0]} is no tensor.")
    return {name.removeprefix("module."): tensor for name, tensor in flat.items()}


def _leaves(node: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, Any]]:
    for name, value in node.items():
        if isinstance(value, dict):
            yield from _leaves(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def _ranks(folder: Path) -> list[Path]:
    return sorted(entry for entry in _entries(folder) if RANK.fullmatch(entry.name))


def _entries(folder: Path) -> list[Path]:
    return list(folder.iterdir()) if folder.is_dir() else []
