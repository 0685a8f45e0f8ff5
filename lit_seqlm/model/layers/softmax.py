"""Output embeddings: dense, mixture of softmaxes, adaptive; one interface, so one adversary.

.nll(hidden_BTD, targets_BT, mask_BT, regularizer) -> (sum, clean_nll_N)    for training
.log_prob(hidden_ND) -> log_prob_NV                                         for caches, generation
.weight, .bias                                                              V x D and V
"""

# B = sequences, T = tokens, N = positions that count, K = experts
# D = hidden size, E = size of the output embedding, V = vocabulary

from collections.abc import Iterator, Sequence
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lit_seqlm.errors import UserError
from lit_seqlm.model.layers.dropout import LockedDropout
from lit_seqlm.model.layers.margin import Margin, dense_nll, margined_nll, select


class OneSoftmax(nn.Module):
    """softmax(W h + b) over the whole vocabulary; a subclass makes `weight` and `bias`."""

    weight: Tensor
    bias: Tensor

    def transformed(self, hidden_ND: Tensor) -> Tensor:
        """What the matrix W reads, of positions that count."""
        return hidden_ND

    def nll(
        self,
        hidden_BTD: Tensor,
        targets_BT: Tensor,
        mask_BT: Tensor | None,
        regularizer: Margin,
        label_smoothing: float = 0.0,
        path: str = "fused",
    ) -> tuple[Tensor, Tensor]:
        hidden_ND = self.transformed(select(hidden_BTD, mask_BT))
        targets_N = select(targets_BT, mask_BT)
        return dense_nll(
            hidden_ND, self.weight, self.bias, targets_N, regularizer, label_smoothing, path
        )

    def log_prob(self, hidden_ND: Tensor) -> Tensor:
        return F.linear(self.transformed(hidden_ND), self.weight, self.bias).log_softmax(-1)


class DenseSoftmax(OneSoftmax):
    """softmax(W h + b). Tied when given the input embedding (Press and Wolf 2017)."""

    def __init__(self, vocab_size: int, size: int, tied_to: nn.Embedding | None = None):
        super().__init__()
        self.weight = (
            nn.Parameter(torch.empty(vocab_size, size)) if tied_to is None else tied_to.weight
        )
        self.bias = nn.Parameter(torch.zeros(vocab_size))
        if tied_to is None:
            nn.init.uniform_(self.weight, -0.1, 0.1)


class MixtureOfSoftmaxes(nn.Module):
    """p = sum_k pi_k softmax(W h_k + b), h_k = lockdrop(tanh(U_k h + c_k)).

    Yang et al. 2018, section 2.4. Sums are taken over log-probabilities; the official log(p + 1e-8)
    adds mass to every word.
    """

    def __init__(
        self,
        vocab_size: int,
        hidden_size: int,
        num_experts: int,
        dropout: float,
        tied_to: nn.Embedding,
    ):
        super().__init__()
        size = tied_to.embedding_dim
        self.num_experts = num_experts
        self.prior = nn.Linear(hidden_size, num_experts, bias=False)
        self.latent = nn.Linear(hidden_size, num_experts * size)
        self.dropout = LockedDropout(dropout)
        self.weight = tied_to.weight
        self.bias = nn.Parameter(torch.zeros(vocab_size))

    def experts(self, hidden_BTD: Tensor) -> tuple[Tensor, Tensor]:
        """Latents (..., K, E), dropped alike at every step, and log mixture weights (..., K)."""
        latent = self.dropout(torch.tanh(self.latent(hidden_BTD)))
        log_prior = self.prior(hidden_BTD).log_softmax(-1)
        return latent.unflatten(-1, (self.num_experts, -1)), log_prior

    def nll(
        self,
        hidden_BTD: Tensor,
        targets_BT: Tensor,
        mask_BT: Tensor | None,
        regularizer: Margin,
        label_smoothing: float = 0.0,
        path: str = "fused",
    ) -> tuple[Tensor, Tensor]:
        latent_BTKE, log_prior_BTK = self.experts(hidden_BTD)
        return margined_nll(
            select(latent_BTKE, mask_BT),
            select(log_prior_BTK, mask_BT),
            self.weight,
            self.bias,
            select(targets_BT, mask_BT),
            regularizer,
            label_smoothing,
            path,
        )

    def log_prob(self, hidden_ND: Tensor) -> Tensor:
        latent_NKE, log_prior_NK = self.experts(hidden_ND)
        log_prob_NKV = F.linear(latent_NKE, self.weight, self.bias).log_softmax(-1)
        return torch.logsumexp(log_prior_NK[..., None] + log_prob_NKV, dim=-2)


class AdaptiveSoftmax(nn.Module):
    """Frequent words and one entry per tail cluster first, then the words within a cluster.

    Grave et al., ICML 2017. Word ids must be ranked by frequency. With `tied_to`, every cluster
    reads full rows of the input embedding and adds nothing but one vector and one bias per tail
    cluster, as AWD-LSTM's code does.
    """

    def __init__(
        self,
        vocab_size: int,
        size: int,
        cutoffs: Sequence[int],
        tied_to: nn.Embedding | None = None,
    ):
        super().__init__()
        if list(cutoffs) != sorted(set(cutoffs)) or not 0 < cutoffs[0] <= cutoffs[-1] < vocab_size:
            raise UserError(
                f"model.cutoffs={list(cutoffs)} must rise strictly between 0 and the vocabulary, "
                f"{vocab_size}"
            )
        self.bounds = [0, *cutoffs, vocab_size]
        self.weight = (
            nn.Parameter(torch.empty(vocab_size, size)) if tied_to is None else tied_to.weight
        )
        self.bias = nn.Parameter(torch.zeros(vocab_size))
        self.cluster_weight = nn.Parameter(torch.zeros(len(cutoffs), size))
        self.cluster_bias = nn.Parameter(torch.zeros(len(cutoffs)))
        if tied_to is None:
            nn.init.uniform_(self.weight, -0.1, 0.1)

    def nll(
        self,
        hidden_BTD: Tensor,
        targets_BT: Tensor,
        mask_BT: Tensor | None,
        regularizer: Margin,
        label_smoothing: float = 0.0,
        path: str = "fused",
    ) -> tuple[Tensor, Tensor]:
        if label_smoothing:
            raise UserError(
                "objective.label_smoothing is not defined for an adaptive softmax: set it to 0, or model.cutoffs=null"
            )
        hidden_ND, targets_N = select(hidden_BTD, mask_BT), select(targets_BT, mask_BT)
        head_size = self.bounds[1]
        head_weight, head_bias = self._head()
        cluster_N = torch.bucketize(
            targets_N, torch.tensor(self.bounds[1:], device=targets_N.device), right=True
        )
        head_targets_N = torch.where(cluster_N == 0, targets_N, head_size + cluster_N - 1)
        # In the head a tail word's target is its cluster: margined only where the scope says so.
        whole = regularizer.adaptive_scope == "both"
        head_margin = regularizer if whole else _TargetsBelow(regularizer, head_size)
        total, clean_nll_N = dense_nll(
            hidden_ND, head_weight, head_bias, head_targets_N, head_margin, 0.0, path
        )
        clean_nll_N = clean_nll_N.clone()
        for index, (low, weight, bias) in enumerate(self._tails(), start=1):
            rows = (cluster_N == index).nonzero().squeeze(1)
            if len(rows) == 0:
                continue
            tail_sum, tail_nll = dense_nll(
                hidden_ND[rows], weight, bias, targets_N[rows] - low, regularizer, 0.0, path
            )
            total = total + tail_sum
            clean_nll_N[rows] += tail_nll
        return total, clean_nll_N

    def log_prob(self, hidden_ND: Tensor) -> Tensor:
        head_size = self.bounds[1]
        head_NV = F.linear(hidden_ND, *self._head()).log_softmax(-1)
        parts = [head_NV[..., :head_size]]
        for index, (_, weight, bias) in enumerate(self._tails()):
            tail_NV = F.linear(hidden_ND, weight, bias).log_softmax(-1)
            parts.append(tail_NV + head_NV[..., head_size + index, None])
        return torch.cat(parts, dim=-1)

    def _tails(self) -> Iterator[tuple[int, Tensor, Tensor]]:
        """First word, rows and biases of each cluster behind the head."""
        for low, high in pairwise(self.bounds[1:]):
            yield low, self.weight[low:high], self.bias[low:high]

    def _head(self) -> tuple[Tensor, Tensor]:
        head_size = self.bounds[1]
        weight = torch.cat([self.weight[:head_size], self.cluster_weight])
        return weight, torch.cat([self.bias[:head_size], self.cluster_bias])


def output_softmax(embedding: nn.Embedding, tying: str, cutoffs: Sequence[int] | None) -> nn.Module:
    """A softmax over an input embedding's words, dense or adaptive; ``tied`` shares its matrix."""
    if tying not in ("tied", "untied"):
        raise UserError(f"model.embedding={tying}: choose tied or untied")
    vocab_size, size = embedding.num_embeddings, embedding.embedding_dim
    tied_to = embedding if tying == "tied" else None
    if cutoffs:
        return AdaptiveSoftmax(vocab_size, size, cutoffs, tied_to)
    return DenseSoftmax(vocab_size, size, tied_to)


class _TargetsBelow:
    """A regularizer's margin for the targets below `limit`; none for the others."""

    def __init__(self, regularizer: Margin, limit: int):
        self.regularizer, self.limit = regularizer, limit
        self.adaptive_scope = regularizer.adaptive_scope

    def target_margin(self, hidden_ND: Tensor, target_rows_ND: Tensor, targets_N: Tensor) -> Tensor:
        margin_N = self.regularizer.target_margin(hidden_ND, target_rows_ND, targets_N)
        return margin_N * (targets_N < self.limit)

    def target_rise(self, hidden_ND: Tensor, target_rows_ND: Tensor) -> Tensor:
        return self.regularizer.target_rise(hidden_ND, target_rows_ND)

    def augment(self, hidden_ND: Tensor, weight_VD: Tensor) -> tuple[Tensor, Tensor]:
        return self.regularizer.augment(hidden_ND, weight_VD)
