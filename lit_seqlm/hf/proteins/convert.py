"""Published protein models into a folder that `init_from=` and `lit_seqlm.load` accept."""

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pooch
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from lit_seqlm.checkpoint import BEST, AtomicCheckpointIO
from lit_seqlm.config import build
from lit_seqlm.errors import UserError
from lit_seqlm.hf.convert import READ, REPORT, make_folder
from lit_seqlm.hf.proteins.keys import MEGATRON, TIED
from lit_seqlm.hf.proteins.preset import config_for, conventions_of
from lit_seqlm.hf.proteins.report import ProteinReport
from lit_seqlm.hf.proteins.rows import BY_TOKEN, rows_of_ours
from lit_seqlm.hf.proteins.source import Source, read_source
from lit_seqlm.model.encoder import INIT_STD
from lit_seqlm.tokenizer.amino_acid import VOCABULARY

BESIDE = "beside.safetensors"
TOKENS = {
    "megatron": "31 tokens of ProteinLM in our order; its [unused1] stands at <nterm>, padding stays",
    "tape": "30 tokens of TAPE, which are ours; rows of <nterm> and <cterm> are drawn, and never predicted",
}


def import_protein(
    origin: str,
    output: Path,
    layout: str,
    final_ln: str,
    version: float | None,
    num_heads: int | None,
    seed: int,
) -> ProteinReport:
    """Read, check everything, and only then write ``best.ckpt`` and ``report.json``.

    Args:
        origin: a Megatron checkpoint (file, rank or folder of ranks), or TAPE's folder or file.
        output: the new folder.
        layout, final_ln, version, num_heads: see `read_source`.
        seed: what rows and an output head are drawn from, where the file lacks them.

    Raises:
        UserError: for what is not a whole ProteinLM or TAPE encoder, or does not go together.
    """
    if (output / BEST).exists():
        raise UserError(f"{output} holds {BEST} already. Give another --output, or remove it.")
    source = read_source(origin, layout, final_ln, version, num_heads)
    config = config_for(source, seed)
    with torch.device("meta"):
        model = build(config["model"], vocab_size=len(VOCABULARY))
    weights = {name: tensor.float() for name, tensor in source.weights.items()}
    _check(weights, model, source)
    has_head = BY_TOKEN[1] in weights
    weights = rows_of_ours(weights, source.layout, seed)
    if not has_head:
        weights |= _drawn_head(model, seed)
    weights[TIED] = weights["trunk.embedding.weight"]
    assert weights.keys() == model.state_dict().keys()
    report = _report(source, model, config["model"], has_head, seed)
    tokenizer = build(config["data"]["tokenizer"])
    checkpoint = {
        "state_dict": {f"model.{name}": tensor for name, tensor in weights.items()},
        "config": config,
        "tokenizer": tokenizer.state_dict(),
        "imported": asdict(report),
    }
    make_folder(output)
    if source.beside:
        save_file(source.beside, output / BESIDE)
    report.write(output / REPORT)
    AtomicCheckpointIO().save_checkpoint(checkpoint, output / BEST)  # last: it makes it whole
    return report


def _check(weights: Mapping[str, Tensor], model: nn.Module, source: Source) -> None:
    """Raise UserError for a tensor of another shape than its encoder's, or with values that are no numbers."""
    where = source.files[0]
    for name, own in model.state_dict().items():
        if name not in weights:
            continue
        shape = tuple(own.shape)
        if name in BY_TOKEN:
            shape = (source.sizes.vocab_size, *shape[1:])
        if tuple(weights[name].shape) != shape:
            raise UserError(
                f"{where}: {name} has shape {tuple(weights[name].shape)}, in a model of {source.sizes.hidden_size} "
                f"with {source.sizes.num_layers} layers it is {shape}. The file mixes models or is damaged."
            )
        if not bool(torch.isfinite(weights[name]).all()):
            raise UserError(f"{where}: {name} holds values that are not finite numbers.")


def _drawn_head(model: nn.Module, seed: int) -> dict[str, Tensor]:
    """An output head as it begins."""
    drawn = torch.Generator().manual_seed(seed)
    head = {}
    for name, own in model.state_dict().items():
        if name.startswith("output_embedding.") and name != TIED:
            head[name] = torch.full(own.shape, float(name.endswith("norm.weight")))
            if own.dim() == 2:
                head[name] = INIT_STD * torch.randn(own.shape, generator=drawn)
    return head


def _report(
    source: Source, model: nn.Module, options: dict[str, Any], has_head: bool, seed: int
) -> ProteinReport:
    report = ProteinReport(
        layout=source.layout,
        files={_name(path): pooch.file_hash(str(path)) for path in source.files},
        sizes=asdict(source.sizes),
        num_parameters=sum(parameter.numel() for parameter in model.parameters()),
        tensors={
            "in the file": source.num_read,
            "of ours": len(source.weights),
            "beside": len(source.beside),
        },
        output_head=READ if has_head else f"drawn from seed {seed}",
        conventions=source.said | conventions_of(options),
        tokens=TOKENS[source.layout],
        warnings=list(source.notes),
    )
    if source.beside:
        report.warnings.append(f"{', '.join(source.beside)}: kept in {BESIDE}.")
    if not has_head:
        report.warnings.append(
            "The file has no output head: this one is untrained. Embeddings and fine-tuning do not use it; "
            "predicting masked tokens does."
        )
    if source.layout == MEGATRON:
        report.warnings.append(
            "Pretraining never saw <sep>, so a sequence begins with <cls> and has no other end (tokenizer.ends=cls)."
        )
    return report


def _name(path: Path) -> str:
    return (
        f"{path.parent.name}/{path.name}" if path.parent.name.startswith("mp_rank_") else path.name
    )
