"""What each turn of the molecule benchmark does, and on which molecules."""

# B = sequences, T = tokens, N = sequences of a set, D = hidden size

import csv
import gzip
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from encoders import CLIP, LEARNING_RATE, OURS, WHOLE, Sizes, one_layer
from measure import Work
from torch import Tensor, nn

from lit_seqlm.data.batch import Batch
from lit_seqlm.data.bucketing import budget_batches, exact_length_batches
from lit_seqlm.data.token_table import TokenTable
from lit_seqlm.errors import UserError
from lit_seqlm.tokenizer.smiles import SmilesTokenizer

FILES = {
    "QM9": ("molecules/qm9/qm9_12tasks_with_split.csv.gz", "smiles"),
    "MOSES": ("molecules/moses/train.csv.gz", "SMILES"),
}
LAYER_WAYS = ("forward", "forward and backward")
WAYS = ("forward", "training step")
BATCH = 128  # sequences of a peer's batch
RATE, MASK_ID, PAD_ID, FIRST = 0.15, 3, 2, 5  # ids as in MoLFormer's vocabulary

Batches = list[np.ndarray]


def layer_work(name: str, model: str, length: int, num_sequences: int, way: str) -> Work:
    """One layer on noise: forward as in evaluation, or forward and backward with dropout."""
    torch.manual_seed(0)
    layer = one_layer(name, model, length)
    hidden_BTD = torch.randn(num_sequences, length, Sizes.of(model).hidden)
    if way == "forward":
        return _evaluation(layer.eval(), [hidden_BTD])
    layer.train()
    hidden_BTD.requires_grad_()
    towards_BTD = torch.randn_like(hidden_BTD)

    def work() -> None:
        hidden_BTD.grad = None
        layer.zero_grad()
        layer(hidden_BTD).backward(towards_BTD)

    return work


def model_work(name: str, model: str, table: TokenTable, rows: Batches, way: str) -> Work:
    """The whole model over some batches: hidden states, or steps of masked language modelling."""
    torch.manual_seed(0)
    whole = WHOLE[name](model)
    batches = list(_masked(table, rows))
    if way == "forward":
        return _evaluation(whole.eval(), batches)
    whole.train()
    optimizer = torch.optim.AdamW(whole.parameters(), lr=LEARNING_RATE)

    def work() -> None:
        for batch in batches:
            optimizer.zero_grad()
            whole.loss(batch).backward()  # type: ignore[operator]
            nn.utils.clip_grad_norm_(whole.parameters(), CLIP)
            optimizer.step()

    return work


def _evaluation(module: nn.Module, inputs: list[Tensor] | list[Batch]) -> Work:
    def work() -> None:
        with torch.inference_mode():
            for each in inputs:
                module(each)

    return work


def _masked(table: TokenTable, batches: Batches) -> Iterator[Batch]:
    generator = torch.Generator().manual_seed(0)
    for rows in batches:
        tokens_BT, valid_BT = table.pad(rows, PAD_ID)
        chosen_BT = torch.rand(tokens_BT.shape, generator=generator) < RATE
        chosen_BT = chosen_BT if valid_BT is None else chosen_BT & valid_BT
        chosen_BT[0, 1] = True
        yield Batch(tokens_BT.masked_fill(chosen_BT, MASK_ID), tokens_BT, chosen_BT, valid_BT)


def noise(num_sequences: int, length: int) -> tuple[TokenTable, Batches]:
    """One batch of random ids, all of one length."""
    ids = np.random.default_rng(0).integers(FIRST, 100, (num_sequences, length))
    return TokenTable.of(ids), [np.arange(num_sequences)]


def drawn(source: str, num_molecules: int) -> TokenTable:
    """A random part of a real set, in the order of its file."""
    strings = molecules(source)
    chosen = np.random.default_rng(0).choice(len(strings), num_molecules, replace=False)
    kept = [strings[index] for index in np.sort(chosen)]
    return fitted(kept).encode(kept)


def cut(name: str, source: str, lengths_N: np.ndarray, way: str) -> Batches:
    """Our batches, of one length (QM9) or under a budget (MOSES); a peer's, in the order of the file or shuffled."""
    rng = np.random.default_rng(0)
    if name == OURS and source == "QM9":
        return exact_length_batches(lengths_N, BATCH, rng)
    if name == OURS:
        budget = round(BATCH * float(lengths_N.mean()))
        return budget_batches(lengths_N, budget, len(lengths_N), rng, 1)
    order = np.arange(len(lengths_N)) if way == "forward" else rng.permutation(len(lengths_N))
    return [order[start : start + BATCH] for start in range(0, len(order), BATCH)]


def fitted(strings: list[str]) -> SmilesTokenizer:
    tokenizer = SmilesTokenizer(vocabulary=None, unknown="unk", isomeric=False, min_count=1)
    tokenizer.fit(tokenizer.count(strings))
    return tokenizer


def molecules(source: str, most: int | None = None) -> list[str]:
    """SMILES of a real set as its file has them.

    Raises:
        UserError: where the file is not there.
    """
    path, column = FILES[source]
    folder = os.environ.get("LIT_SEQLM_DATA", "")
    if not folder or not Path(folder, path).exists():
        raise UserError(
            f"{source}: there is no {path} under LIT_SEQLM_DATA={folder or '(unset)'}. "
            "Name the folder with the data, or leave out what reads it: --only layer,model"
        )
    with gzip.open(Path(folder, path), "rt") as file:
        rows = csv.DictReader(file)
        return [row[column] for row, _ in zip(rows, range(most or 10**9), strict=False)]
