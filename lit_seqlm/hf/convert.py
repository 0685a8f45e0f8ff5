"""Published weights into a folder that `init_from=` and `lit_seqlm.load` accept."""

import logging
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from lit_seqlm.checkpoint import BEST, AtomicCheckpointIO
from lit_seqlm.config import build
from lit_seqlm.errors import UserError
from lit_seqlm.hf.keys import HUGGING_FACE, to_ours
from lit_seqlm.hf.preset import config_for, conventions_of
from lit_seqlm.hf.report import Report
from lit_seqlm.hf.settings import check_sizes, own_part
from lit_seqlm.hf.sizes import Sizes, check_is_encoder, check_tensors, sizes_of
from lit_seqlm.hf.source import Source, read_source
from lit_seqlm.hf.vocabulary import check_tokens
from lit_seqlm.tokenizer.smiles_vocabulary import digest, is_official, read_vocabulary

log = logging.getLogger(__name__)

REPORT, PROPERTY_HEAD = "report.json", "property_head.safetensors"
READ = "read from the file"


def import_weights(
    origin: str, vocabulary: str | None, output: Path, family: str, seed: int
) -> Report:
    """Read, check everything, and only then write ``best.ckpt`` and ``report.json``.

    Args:
        origin: IBM's .ckpt file, a .safetensors file, or a Hugging Face folder.
        vocabulary: file of the tokens; null takes the one beside the weights.
        family: ``auto``, ``official`` or ``hf``.
        seed: what omega and the output head are drawn from, where the file lacks them.

    Raises:
        UserError: for what is not a whole MoLFormer, or does not go together.
    """
    if (output / BEST).exists():
        raise UserError(f"{output} holds {BEST} already. Give another --output, or remove it.")
    source = read_source(origin, family)
    where = str(source.path)
    check_is_encoder(source.tensors, source.family, where)
    weights = {
        name: tensor.float()
        for name, tensor in to_ours(source.tensors, source.family, where).items()
    }
    sizes = sizes_of(weights, source.hints, where)
    check_sizes(source.settings, sizes, source.path)
    check_tensors(weights, sizes, where)
    tokens, warnings = _vocabulary(vocabulary, source, sizes)
    config = config_for(source.family, sizes, source.settings, seed)
    head = {name: weights.pop(name) for name in list(weights) if name.startswith("head.")}
    state, drawn = _completed(weights, config["model"], sizes, seed)
    report = _report(source, sizes, weights, drawn, config["model"], tokens, seed)
    report.tensors["property head"] = len(head)
    report.warnings = warnings + _cautions(source, drawn, head)
    isomeric = bool(own_part(source.settings).get("isomeric", False))
    checkpoint = {
        "state_dict": {f"model.{name}": tensor for name, tensor in state.items()},
        "config": config,
        "tokenizer": {"vocabulary": tokens, "isomeric": isomeric},
        "imported": asdict(report),
    }
    make_folder(output)
    if head:
        save_file(head, output / PROPERTY_HEAD)
    report.write(output / REPORT)
    AtomicCheckpointIO().save_checkpoint(
        checkpoint, output / BEST
    )  # last: it makes the folder whole
    return report


def make_folder(folder: Path) -> None:
    """Raise UserError where it cannot be."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(
            f"cannot write to {folder} ({error.strerror}). Give another --output."
        ) from None


def _vocabulary(given: str | None, source: Source, sizes: Sizes) -> tuple[list[str], list[str]]:
    """Tokens in the order of their ids, and what the user should know about them."""
    path = given or (str(source.vocabulary) if source.vocabulary else None)
    if path is None:
        raise UserError(
            f"{source.path} has no list of tokens beside it, and its rows mean nothing without. "
            "Say --vocabulary FILE with MoLFormer's bert_vocab.txt or the vocab.json of its Hugging Face folder."
        )
    tokens = read_vocabulary(path)
    return tokens, check_tokens(tokens, sizes.vocab_size, source.settings, path)


def _completed(
    weights: Mapping[str, Tensor], model: dict[str, Any], sizes: Sizes, seed: int
) -> tuple[dict[str, Tensor], list[str]]:
    """All tensors of our encoder, and the names of those that the file lacks: drawn from the seed."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        encoder = build(model, vocab_size=sizes.vocab_size)
    own = encoder.state_dict()
    drawn = [name for name in own if name not in weights]
    encoder.load_state_dict({**own, **weights}, strict=True)
    return {**own, **weights}, drawn


def _report(
    source: Source,
    sizes: Sizes,
    weights: Mapping[str, Tensor],
    drawn: list[str],
    model: dict[str, Any],
    tokens: list[str],
    seed: int,
) -> Report:
    omegas = [name for name in weights if name.endswith("omega")]
    heads = [name for name in weights if name.startswith("output_embedding.")]
    made = f"drawn from seed {seed}"
    has_omega = not any(name.endswith("omega") for name in drawn)
    return Report(
        family=source.family,
        source=source.path.name,
        sha256=source.sha256,
        sizes=asdict(sizes),
        num_parameters=sizes.num_parameters(),
        tensors={
            "in the file": len(source.tensors),
            "of ours": len(weights),
            "omega": len(omegas),
            "output head": len(heads),
        },
        omega=READ if has_omega else made,
        output_head=READ if heads else made,
        conventions=conventions_of(model),
        vocabulary={
            "tokens": len(tokens),
            "sha256": digest(tokens),
            "official": is_official(tokens),
        },
    )


def _cautions(source: Source, drawn: list[str], head: Mapping[str, Tensor]) -> list[str]:
    cautions = []
    missing = [name for name in drawn if name.endswith("omega")]
    if missing:
        cautions.append(
            f"OMEGA IS NOT IN THE FILE: {len(missing)} layers drew their own, so embeddings are NOT the published "
            "ones. Fine-tuning can make up for it; a frozen probe cannot."
        )
    if any(name.startswith("output_embedding.") for name in drawn):
        cautions.append(
            "The file has no output head: this one is untrained. Embeddings and fine-tuning do not use it; "
            "predicting masked tokens does."
        )
    if head:
        cautions.append(f"The file's property head is kept apart, in {PROPERTY_HEAD}.")
    if source.family == HUGGING_FACE and not source.settings:
        cautions.append("There is no config.json beside the weights: its usual values were taken.")
    return cautions
