"""What the cache benchmark compares: memories that are full, a model beside them, and the plain pointer."""

# N = tokens, C = centres, D = hidden size, W = window, V = words

import torch
import torch.nn.functional as F
from rich.progress import track
from torch import Tensor

from lit_seqlm.cache.local import LocalCache
from lit_seqlm.cache.unbounded import UnboundedCache
from lit_seqlm.data.batch import Batch
from lit_seqlm.model.lstm import LSTMLanguageModel
from lit_seqlm.objective.causal_lm import CausalLM
from lit_seqlm.regularizer.none import NoRegularizer
from lit_seqlm.search.store import Store

SIZE, WORDS, WINDOW, CHUNK, THETA = 256, 10_000, 10_000, 512, 0.662
CENTRES, SPREAD, BLOCK = 2_000, 0.5, 50_000
NEIGHBOURS, LISTS, PROBES, CODE_BYTES, TRAINED_ON = (
    1024,
    4096,
    8,
    64,
    200_000,
)  # the index is the paper's


class States:
    """Blocks of states and words that are the same for every reader."""

    def __init__(self) -> None:
        self.centres_CD = torch.randn(CENTRES, SIZE, generator=torch.Generator().manual_seed(0))

    def block(self, number: int, rows: int) -> tuple[Tensor, Tensor]:
        generator = torch.Generator().manual_seed(number + 1)
        centre_N = torch.randint(CENTRES, (rows,), generator=generator)
        noise_ND = SPREAD * torch.randn(rows, SIZE, generator=generator)
        return self.centres_CD[centre_N] + noise_ND, (centre_N * 5 + torch.arange(rows) % 5) % WORDS


class Static:
    """Forward pass and next-word loss of a small LSTM language model, as evaluation does it."""

    def __init__(self) -> None:
        torch.manual_seed(0)
        self.model = LSTMLanguageModel(WORDS, SIZE, 1, 0.0, "tied", None, None).eval()
        self.objective, self.tokens_1T = (
            CausalLM(0.0, "fused"),
            torch.randint(WORDS, (1, CHUNK + 1)),
        )

    def __call__(self, length: int) -> tuple[Tensor, Tensor, Tensor]:
        batch = Batch(self.tokens_1T[:, :length], self.tokens_1T[:, 1 : length + 1])
        output = self.model(batch.tokens_BT, None)
        loss = self.objective(output, self.model.output_embedding, batch, NoRegularizer())
        return output.raw_BTD[0], loss.targets_N, -loss.clean_nll_N


class Plain:
    """The pointer of the widely used LSTM code: all V probabilities of the cache, from a one-hot history of W x V, for
    every token. The history is made beforehand, so its growth costs nothing here."""

    def __init__(self, keys_WD: Tensor, words_W: Tensor, length: int):
        self.keys_KD = torch.cat([keys_WD, torch.zeros(length, SIZE)])
        self.history_KV = torch.zeros(len(words_W) + length, WORDS)
        self.history_KV[: len(words_W)] = F.one_hot(words_W, WORDS).float()

    def step(self, hidden_ND: Tensor, words_N: Tensor, static_N: Tensor) -> Tensor:
        found = []
        for row, (hidden_D, word) in enumerate(zip(hidden_ND, words_N, strict=True)):
            window = slice(row, row + WINDOW)
            weight_W1 = torch.softmax(THETA * (self.keys_KD[window] @ hidden_D), dim=0)[:, None]
            prob_V = (weight_W1.expand_as(self.history_KV[window]) * self.history_KV[window]).sum(0)
            found.append(prob_V[word].log())
            self.keys_KD[WINDOW + row] = hidden_D
            self.history_KV[WINDOW + row, word] = 1
        return torch.stack(found)


def local_cache(size: int = WINDOW) -> LocalCache:
    memory = LocalCache(0.1, size, THETA, "none", "immediate", {})
    memory.reset(WORDS)
    memory.step(*States().block(0, size), torch.zeros(size))
    return memory


def paper_cache(refine: bool, num_states: int) -> UnboundedCache:
    """4,096 lists, 8 probes, k = 1,024, and codes of 64 bytes, with so many states in it."""
    store = Store(
        kind="ivfpq", metric="l2", num_lists=LISTS, num_probes=PROBES, code_bytes=CODE_BYTES, capacity=None,
        evict="none", refine=refine, rebuild="never", first_build=min(num_states, TRAINED_ON), probe=0, seed=0,
    )  # fmt: skip
    memory = UnboundedCache(0.1, NEIGHBOURS, "gaussian", "kth", 1.0, 1.0, "l2", store, 1024, {})
    memory.reset(WORDS)
    states = States()
    for number in track(range(-(-num_states // BLOCK)), description=f"{num_states:,} states"):
        rows = min(BLOCK, num_states - number * BLOCK)
        hidden_ND, words_N = states.block(number, rows)
        memory.store.insert(memory.normalizer(hidden_ND), words_N, torch.zeros(rows))
    return memory
