"""What the protein benchmark compares: our packed encoder, and BERT and ESM of transformers, of one size.

All learn from the same proteins, 15 % of whose residues are masked, with the same clipping and AdamW, on as many
threads; none has dropout, as the options of conf/model say. What differs:

- Batches. Ours is one packed row, a peer's `PEER_BATCH` proteins, of as many tokens in the mean. A row ends before the
  protein that does not fit, so ours takes more optimizer steps over the same proteins, to its own loss.
- The loss. Ours computes logits at masked positions alone; the peers' classes at every position, padding included, and
  then leave out all but the same masked ones. That saves 2.6 % of the products of weights of `mlm_tiny`, 1.5 % of
  `mlm_small`.
- Norms. Ours stand before the two halves of a block, BERT's behind them. BERT adds a type to each token. ESM has
  learned positions here, as the others; ESM-2's rotary ones would cost it more.
"""

# B = sequences, T = tokens, N = masked positions

from collections.abc import Callable
from dataclasses import dataclass
from statistics import median
from typing import Any

import numpy as np
import torch
from encoders import CLIP, CONF, IGNORED, LEARNING_RATE, masked_targets
from hydra import compose, initialize_config_dir
from measure import Work, spread
from torch import Tensor, nn

from lit_seqlm.config import build, register
from lit_seqlm.data.batch import Batch
from lit_seqlm.data.bucketing import budget_batches
from lit_seqlm.data.masked_loader import Masker
from lit_seqlm.data.masking import CountedMasking, Vocabulary
from lit_seqlm.data.packed_loader import PackedMasker, pack
from lit_seqlm.data.token_table import TokenTable
from lit_seqlm.regularizer.none import NoRegularizer
from lit_seqlm.tokenizer.amino_acid import AminoAcidTokenizer

PACKED, PADDED, BERT, ESM, BERT_BY_LENGTH = (
    "ours, packed",
    "ours, padded by length",
    "transformers BERT",
    "transformers ESM",
    "transformers BERT, by length",
)
BY_LENGTH = (PADDED, BERT_BY_LENGTH)
PEER_BATCH = 16  # proteins of a peer's batch


def config(model: str) -> Any:
    register()
    with initialize_config_dir(version_base="1.3", config_dir=str(CONF)):
        return compose("config", overrides=[f"model={model}", "objective=masked_lm"])


class Ours(nn.Module):
    """This program's encoder and loss, as a training step of it has them."""

    def __init__(self, model: str):
        super().__init__()
        cfg = config(model)
        self.encoder = build(cfg.model, vocab_size=32)
        self.objective = build(cfg.objective)

    def loss(self, batch: Batch) -> Tensor:
        output = self.encoder(batch.tokens_BT, None, **batch.conditions())
        return self.objective(output, self.encoder.output_embedding, batch, NoRegularizer()).mean


class Peer(nn.Module):
    """A masked language model of transformers, with scaled dot products as its attention."""

    def __init__(self, model: nn.Module):
        super().__init__()
        self.model = model

    def loss(self, batch: Batch) -> Tensor:
        return self.model(
            batch.tokens_BT, attention_mask=batch.valid_BT, labels=masked_targets(batch)
        ).loss


def bert(model: str) -> Peer:
    from transformers import BertConfig, BertForMaskedLM

    return Peer(BertForMaskedLM(BertConfig(**_sizes(model), attn_implementation="sdpa")))


def esm(model: str) -> Peer:
    from transformers import EsmConfig, EsmForMaskedLM

    more = {"position_embedding_type": "absolute", "pad_token_id": 0, "mask_token_id": 1, "token_dropout": False,
            "emb_layer_norm_before": False}  # fmt: skip
    return Peer(EsmForMaskedLM(EsmConfig(**_sizes(model), **more, attn_implementation="sdpa")))


WHOLE: dict[str, Callable[[str], nn.Module]] = {
    PACKED: Ours,
    PADDED: Ours,
    BERT: bert,
    ESM: esm,
    BERT_BY_LENGTH: bert,
}


@dataclass
class Speed:
    """What a system does with its batches of some proteins in one turn.

    Attributes:
        tokens: that are none of padding.
        steps: of the optimizer, one a batch.
        masked: share of the tokens that a loss is of.
        padding: share of the positions that are none of a protein.
        logits: positions at which they are computed.
        tokens_per_second, low, high: the median, and the 10th to 90th percentile over turns.
    """

    what: str
    system: str
    tokens: int
    steps: int
    masked: float
    padding: float
    logits: int
    tokens_per_second: float
    low: float
    high: float

    @classmethod
    def of(cls, what: str, system: str, batches: list[Batch], seconds: list[float]) -> "Speed":
        """From seconds of all turns; the first one warms up."""
        tokens = sum(batch.num_tokens for batch in batches)
        positions = sum(batch.tokens_BT.numel() for batch in batches)
        masked = sum(int(batch.mask_BT.sum()) for batch in batches if batch.mask_BT is not None)
        rates = [tokens / turn for turn in seconds[1:]]
        return cls(
            what,
            system,
            tokens,
            len(batches),
            masked / tokens,
            1 - tokens / positions,
            masked if WHOLE[system] is Ours else positions,
            median(rates),
            *spread(rates),
        )


def training(name: str, model: str, table: TokenTable) -> Work:
    """Steps of masked language modelling over all sequences: loss, gradients, clipping, AdamW."""
    torch.manual_seed(0)
    whole = WHOLE[name](model).train()
    batches = batches_of(name, table)
    optimizer = torch.optim.AdamW(whole.parameters(), lr=LEARNING_RATE)

    def work() -> None:
        for batch in batches:
            optimizer.zero_grad()
            whole.loss(batch).backward()  # type: ignore[operator]
            nn.utils.clip_grad_norm_(whole.parameters(), CLIP)
            optimizer.step()

    return work


def batches_of(name: str, table: TokenTable) -> list[Batch]:
    """The same sequences for all, under one budget of tokens; a peer's as a loader hands them out, padded.

    By length, they are sorted before they are cut and padded, as `group_by_length` of transformers' trainer has it.
    """
    masking = CountedMasking(0.15, 0.8, 0.1, "content", "row")
    tokenizer = AminoAcidTokenizer("cls", "keep", False)
    known = Vocabulary(32, tokenizer.mask_id, tuple(tokenizer.special_ids), tokenizer.pad_id)
    rng, lengths = np.random.default_rng(0), table.lengths
    order, budget = rng.permutation(len(table)), round(PEER_BATCH * float(lengths.mean()))
    if name == PACKED:
        rows = pack(order, lengths, budget)
        masker = PackedMasker(masking, known, tokenizer.pad_id, 1)
        return [masker(table, [row], 0, number) for number, row in enumerate(rows)]
    if name in BY_LENGTH:
        batches = budget_batches(lengths, budget, len(table), rng, 1)
    else:
        batches = [order[start : start + PEER_BATCH] for start in range(0, len(order), PEER_BATCH)]
    plain = Masker(masking, known, tokenizer.pad_id, 1)
    return [plain(table, rows, 0, number) for number, rows in enumerate(batches)]


def _sizes(model: str) -> dict[str, Any]:
    cfg = config(model).model
    return {
        "vocab_size": cfg.vocab_multiple,
        "hidden_size": cfg.hidden_size,
        "num_hidden_layers": cfg.num_layers,
        "num_attention_heads": cfg.num_heads,
        "intermediate_size": cfg.feed_forward_size,
        "max_position_embeddings": cfg.max_len + 2,  # ESM counts from behind its padding id
        "hidden_dropout_prob": cfg.dropout,
        "attention_probs_dropout_prob": cfg.attention.dropout,
    }


assert IGNORED == -100, "what the peers leave out of a loss"
