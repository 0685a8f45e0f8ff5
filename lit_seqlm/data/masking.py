"""Which tokens a masked language model must find again, and what stands there instead."""

# B = sequences, T = tokens

from dataclasses import dataclass

import torch
from torch import Tensor

from lit_seqlm.errors import UserError


@dataclass(frozen=True)
class Vocabulary:
    """What masking needs to know of a vocabulary: its size, the mask's id, and the ids that are no content."""

    size: int
    mask_id: int
    special_ids: tuple[int, ...]
    pad_id: int = 0


class Masking:
    """Select tokens at random; most become the mask, some another token, some stay (Devlin et al. 2019, section 3.1).

    Args:
        rate: share of the content tokens that is selected.
        masked, replaced: shares of the selected that become the mask, or a random token; the others stay as they are.
        random_pool: what a random token is drawn from: ``content``, or ``all`` ids with the special ones, as
            MoLFormer's code does.
    """

    def __init__(self, rate: float, masked: float, replaced: float, random_pool: str):
        if not 0 < rate < 1:
            raise UserError(f"data.masking.rate={rate}: it must be above 0 and below 1.")
        if min(masked, replaced) < 0 or masked + replaced > 1:
            raise UserError(
                f"data.masking.masked={masked}, replaced={replaced}: both at least 0, and 1 together at most."
            )
        if random_pool not in ("content", "all"):
            raise UserError(f"data.masking.random_pool={random_pool}: choose content or all.")
        self.rate, self.masked, self.replaced, self.random_pool = (
            rate,
            masked,
            replaced,
            random_pool,
        )

    def __call__(
        self, tokens_BT: Tensor, vocabulary: Vocabulary, generator: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        """What the model reads (B, T), and which positions were selected (B, T): those alone are scored."""
        special = torch.tensor(vocabulary.special_ids)
        selected_BT = self.selected(
            tokens_BT, ~torch.isin(tokens_BT, special), vocabulary, generator
        )
        lot_BT = torch.rand(tokens_BT.shape, generator=generator)
        drawn_BT = self._random_tokens(tokens_BT, vocabulary, special, generator)
        masked_BT = selected_BT & (lot_BT < self.masked)
        replaced_BT = selected_BT & (lot_BT >= self.masked) & (lot_BT < self.masked + self.replaced)
        read_BT = tokens_BT.masked_fill(masked_BT, vocabulary.mask_id)
        return torch.where(replaced_BT, drawn_BT, read_BT), selected_BT

    def selected(
        self,
        tokens_BT: Tensor,
        content_BT: Tensor,
        vocabulary: Vocabulary,
        generator: torch.Generator,
    ) -> Tensor:
        """Each content token by itself, with probability `rate`."""
        return content_BT & (torch.rand(tokens_BT.shape, generator=generator) < self.rate)

    def _random_tokens(
        self, tokens_BT: Tensor, vocabulary: Vocabulary, special: Tensor, generator: torch.Generator
    ) -> Tensor:
        pool = torch.arange(vocabulary.size)
        if self.random_pool == "content":
            pool = pool[~torch.isin(pool, special)]
        return pool[torch.randint(len(pool), tokens_BT.shape, generator=generator)]


class CountedMasking(Masking):
    """As many tokens of each row as `rate` says, at least one: ``round(rate x length)`` (Xiao et al. 2021, code).

    The length counts all that is no padding, special tokens too, but those are never selected.

    Args:
        unit: what a row of packed sequences is to the count: ``row``, itself, as ProteinLM's code; ``sequence``, each
            of its sequences.
        rate, masked, replaced, random_pool: see `Masking`.
    """

    def __init__(self, rate: float, masked: float, replaced: float, random_pool: str, unit: str):
        super().__init__(rate, masked, replaced, random_pool)
        if unit not in ("row", "sequence"):
            raise UserError(f"data.masking.unit={unit}: choose row or sequence.")
        self.unit = unit

    def selected(
        self,
        tokens_BT: Tensor,
        content_BT: Tensor,
        vocabulary: Vocabulary,
        generator: torch.Generator,
    ) -> Tensor:
        lengths_B1 = (tokens_BT != vocabulary.pad_id).sum(1, keepdim=True)
        wanted_B1 = (self.rate * lengths_B1.double()).round().clamp(min=1)
        lots_BT = torch.rand(tokens_BT.shape, generator=generator)
        lots_BT = lots_BT.masked_fill(~content_BT, 2.0)  # behind all that may be selected
        ranks_BT = lots_BT.argsort(1).argsort(1)
        return content_BT & (ranks_BT < wanted_B1)
