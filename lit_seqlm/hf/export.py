"""A run's encoder as a Hugging Face folder: tensors, settings and vocabulary, no code."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pooch
from safetensors.torch import save
from torch import Tensor

from lit_seqlm.checkpoint import find_checkpoint, model_weights, read_checkpoint
from lit_seqlm.errors import UserError
from lit_seqlm.head.molformer import MolformerHead
from lit_seqlm.hf.convert import REPORT
from lit_seqlm.hf.keys import HUGGING_FACE, OMEGA, from_ours
from lit_seqlm.hf.preset import conventions_of
from lit_seqlm.hf.report import Report
from lit_seqlm.hf.settings import SETTINGS, about, option, settings_of
from lit_seqlm.hf.sizes import Sizes, sizes_of
from lit_seqlm.hf.source import WEIGHT_FILES
from lit_seqlm.results import write_atomically
from lit_seqlm.tokenizer.smiles_vocabulary import digest, is_official

VOCABULARY, LINES = "vocab.json", "bert_vocab.txt"
LAYOUT = {"positions": "rotary", "kernel": "relu_features", "activation": "gelu"}
OWN = "the run's own"
UNWRITTEN = "scale."  # how predictions become physical units: the layout has no place for it


def export_run(origin: str, output: Path) -> Report:
    """Write ``model.safetensors``, ``config.json``, ``vocab.json``, ``bert_vocab.txt`` and ``report.json``.

    The weights are the run's best, bit for bit. Without a property head the names are those of
    `MolformerForMaskedLM`, with one those of `MolformerForSequenceClassification`.

    Raises:
        UserError: for a run whose model is no encoder with rotary linear attention, and for a
        folder that holds something already.
    """
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise UserError(f"{output} is there already. Give another --output, or remove it.")
    path = find_checkpoint(origin, said="")
    checkpoint = read_checkpoint(path)
    model, weights = checkpoint["config"]["model"], model_weights(checkpoint)
    _check(model, str(path))
    _check_head(checkpoint["config"].get("head"), str(path))
    scaled = [name for name in weights if name.startswith(UNWRITTEN)]
    weights = {name: tensor for name, tensor in weights.items() if name not in scaled}
    sizes = _sizes(weights, str(path))
    theirs = from_ours(weights, HUGGING_FACE, sizes.head_size)
    tokens = checkpoint["tokenizer"]["vocabulary"]
    outputs = weights["head.out.weight"].shape[0] if "head.out.weight" in weights else 0
    settings = settings_of(model, sizes, outputs, about(checkpoint["tokenizer"]))
    report = _report(path, sizes, weights, model, tokens)
    if scaled:
        report.warnings.append(
            "Scales of the targets have no place in this layout: its predictions are standardised ones."
        )
    _write(output, theirs, settings, tokens, report)
    return report


def _sizes(weights: Mapping[str, Tensor], where: str) -> Sizes:
    if OMEGA.ours.format(i=0) not in weights:
        raise UserError(
            f"{where}: its model has no {OMEGA.ours.format(i=0)}. Only an encoder with linear attention and "
            "kernel=relu_features has a place in MoLFormer's layout."
        )
    return sizes_of(weights, {}, where)


def _check(model: Mapping[str, Any], where: str) -> None:
    """Raise UserError for options that the layout cannot say."""
    for name, known in LAYOUT.items():
        found = option(model, name)
        if found not in (known, None):
            raise UserError(
                f"{where}: its model has {name}={found}; MoLFormer's layout means {name}={known}, and other code "
                "would read these weights wrongly."
            )


def _check_head(head: Mapping[str, Any] | None, where: str) -> None:
    """Raise UserError for a property head that the layout cannot say: it would be read as another one."""
    if not head:
        return
    kind, pooling = str(head["_target_"]).rpartition(".")[2], head.get("pooling")
    if kind != MolformerHead.__name__ or pooling != "mean":
        raise UserError(
            f"{where}: its head is {kind} with pooling={pooling}; MoLFormer's layout has MolformerHead with "
            "pooling=mean alone. Export the pretrained run, or fine-tune with head=molformer."
        )


def _report(
    path: Path,
    sizes: Sizes,
    weights: Mapping[str, Tensor],
    model: Mapping[str, Any],
    tokens: list[str],
) -> Report:
    has_head = "output_embedding.weight" in weights
    report = Report(
        family=HUGGING_FACE,
        source=path.name,
        sha256=pooch.file_hash(str(path)),
        sizes=dict(vars(sizes)),
        num_parameters=sum(w.numel() for name, w in weights.items() if "omega" not in name),
        tensors={"of ours": len(weights)},
        omega=OWN,
        output_head=OWN if has_head else "none",
        conventions=conventions_of(model),
        vocabulary={
            "tokens": len(tokens),
            "sha256": digest(tokens),
            "official": is_official(tokens),
        },
    )
    if report.conventions.get("guard") == "add":
        report.warnings.append(
            "The Hugging Face code guards its denominators by max(z, eps), this run by z + eps: numbers there "
            "differ by about eps. config.json keeps the run's choice for an import into this program."
        )
    return report


def _write(
    folder: Path,
    theirs: dict[str, Tensor],
    settings: dict[str, Any],
    tokens: list[str],
    report: Report,
) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write_atomically(folder / SETTINGS, json.dumps(settings, indent=2) + "\n")
        numbered = {token: number for number, token in enumerate(tokens)}
        write_atomically(folder / VOCABULARY, json.dumps(numbered, ensure_ascii=False) + "\n")
        write_atomically(folder / LINES, "".join(f"{token}\n" for token in tokens))
        report.write(folder / REPORT)
        partial = folder / f".{WEIGHT_FILES[0]}"
        partial.write_bytes(save(theirs, metadata={"format": "pt"}))
        partial.replace(folder / WEIGHT_FILES[0])  # last: it makes the folder whole
    except OSError as error:
        raise UserError(f"cannot write to {folder} ({error}). Give another --output.") from None
