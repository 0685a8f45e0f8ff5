"""A run's encoder as TAPE's bert-base has it: tensors and settings, no code."""

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pooch
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from lit_seqlm.checkpoint import find_checkpoint, model_weights, read_checkpoint
from lit_seqlm.errors import UserError
from lit_seqlm.hf.convert import REPORT
from lit_seqlm.hf.export import OWN
from lit_seqlm.hf.proteins.convert import BESIDE
from lit_seqlm.hf.proteins.keys import BEGIN, DECODER, POOLER, TAPE, TIED, TOKEN_TYPES, from_ours
from lit_seqlm.hf.proteins.preset import conventions_of
from lit_seqlm.hf.proteins.report import ProteinReport
from lit_seqlm.hf.proteins.rows import TAPE_ROWS, rows_of_theirs
from lit_seqlm.hf.proteins.source import Sizes, sizes_of
from lit_seqlm.hf.proteins.tape import FIXED, NUMBERS, SETTINGS, SIZES, WEIGHTS
from lit_seqlm.hf.settings import option
from lit_seqlm.results import write_atomically
from lit_seqlm.tokenizer.amino_acid import VOCABULARY

LAYOUT = {"norm": "post", "positions": "absolute", "activation": "gelu", "pad_handling": "mask"}


def export_protein(origin: str, output: Path) -> ProteinReport:
    """Write ``pytorch_model.bin``, ``config.json`` and ``report.json``.

    The weights are the run's best, bit for bit; a pooler that was kept beside them when they were imported is
    written again. A head goes its own way: it is left out, with the output head that such a run lacks.

    Raises:
        UserError: for a run whose model is not TAPE's, and for a folder that holds something already.
    """
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise UserError(f"{output} is there already. Give another --output, or remove it.")
    path = find_checkpoint(origin, said="")
    checkpoint = read_checkpoint(path)
    model, weights = checkpoint["config"]["model"], model_weights(checkpoint)
    _check(model, checkpoint["tokenizer"].get("vocabulary"), str(path))
    kept = rows_of_theirs(
        {name: tensor for name, tensor in weights.items() if _has_place(name) and name != TIED}
    )
    sizes = sizes_of(kept, model["num_heads"], str(path))
    theirs = from_ours(kept, TAPE) | _pooler(path)
    words = BEGIN[0].tape
    theirs[TOKEN_TYPES] = torch.zeros(1, sizes.hidden_size)
    if TIED in weights:
        theirs[DECODER] = theirs[words]
    report = _report(path, sizes, kept, model)
    if any(not _has_place(name) for name in weights):
        report.warnings.append("The run's head has no place in this layout and was left out.")
    _write(output, theirs, _settings(model, sizes), report)
    return report


def _has_place(name: str) -> bool:
    return name.startswith(("trunk.", "output_embedding."))


def _check(model: Mapping[str, Any], tokens: list[str] | None, where: str) -> None:
    """Raise UserError for what the layout cannot say, and other code would read wrongly."""
    for name, known in LAYOUT.items():
        found = model.get(name)
        if found != known:
            raise UserError(
                f"{where}: its model has {name}={found}; TAPE's layout means {name}={known}. Such a run comes from "
                "model=tape_bert_base."
            )
    if tokens != VOCABULARY:
        raise UserError(
            f"{where}: its tokens are not amino acids as tokenizer=amino_acid has them."
        )


def _pooler(checkpoint: Path) -> dict[str, Tensor]:
    """What an import kept beside the weights."""
    path = checkpoint.with_name(BESIDE)
    if not path.is_file():
        return {}
    try:
        beside = load_file(path)
    except (SafetensorError, OSError) as error:
        raise UserError(f"{path} is not a readable .safetensors file ({error}).") from None
    return {name: beside[name] for name in POOLER if name in beside}


def _settings(model: Mapping[str, Any], sizes: Sizes) -> dict[str, Any]:
    numbers = {theirs: option(model, ours[0]) for theirs, ours in NUMBERS.items()}
    numbers["attention_probs_dropout_prob"] = model["attention"]["dropout"]
    return {
        "base_model": "transformer",
        **FIXED,
        **{theirs: getattr(sizes, ours) for theirs, ours in SIZES.items()},
        **numbers,
        "type_vocab_size": 1,
        "initializer_range": 0.02,
    }


def _report(
    path: Path, sizes: Sizes, kept: Mapping[str, Tensor], model: dict[str, Any]
) -> ProteinReport:
    has_head = any(name.startswith("output_embedding.") for name in kept)
    return ProteinReport(
        layout=TAPE,
        files={path.name: pooch.file_hash(str(path))},
        sizes=asdict(sizes),
        num_parameters=sum(tensor.numel() for tensor in kept.values()),
        tensors={"of ours": len(kept)},
        output_head=OWN if has_head else "none",
        conventions=conventions_of(model),
        tokens=f"the {TAPE_ROWS} of TAPE; rows of <nterm>, <cterm> and padding are left out",
        warnings=["Token types are one row of zeros: ours has none."],
    )


def _write(
    folder: Path, theirs: dict[str, Tensor], settings: dict[str, Any], report: ProteinReport
) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write_atomically(folder / SETTINGS, json.dumps(settings, indent=2) + "\n")
        report.write(folder / REPORT)
        partial = folder / f".{WEIGHTS}"
        # TAPE is older than torch's zip files
        torch.save(theirs, partial, _use_new_zipfile_serialization=False)
        partial.replace(folder / WEIGHTS)  # last: it makes the folder whole
    except (OSError, RuntimeError) as error:
        raise UserError(f"cannot write to {folder} ({error}). Give another --output.") from None
