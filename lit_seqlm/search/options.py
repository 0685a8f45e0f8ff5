"""The options of a store, checked when it is made."""

from dataclasses import dataclass

from lit_seqlm.errors import UserError, did_you_mean
from lit_seqlm.search.drift import HELD_OUT
from lit_seqlm.search.eviction import make_eviction
from lit_seqlm.search.neighbours import METRICS

KINDS = ("exact", "faiss_flat", "ivf_flat", "ivfpq", "hnsw")
TRAINED = ("ivf_flat", "ivfpq")
REBUILDS = ("doublings", "drift", "never")
CODEWORDS = 256  # of a one-byte code: fewer points cannot train it


@dataclass(frozen=True)
class StoreOptions:
    """See `Store`.

    Raises:
        UserError: for unknown words, numbers below 1, and combinations that cannot work.
    """

    metric: str
    kind: str
    num_lists: int
    num_probes: int
    code_bytes: int | None
    capacity: int | None
    evict: str
    refine: bool
    rebuild: str
    first_build: int
    probe: int
    seed: int

    def __post_init__(self) -> None:
        self._check_word("metric", self.metric, METRICS)
        self._check_word("kind", self.kind, KINDS)
        self._check_word("rebuild", self.rebuild, REBUILDS)
        make_eviction(self.evict, self.capacity, self.seed)
        for name in ("num_lists", "num_probes", "code_bytes", "first_build"):
            if (getattr(self, name) or 0) < 1 and getattr(self, name) is not None:
                raise UserError(
                    f"cache.store.{name}={getattr(self, name)}: at least 1. Try cache.store.{name}=1."
                )
        if self.probe < 0:
            raise UserError(f"cache.store.probe={self.probe}: 0 or more. Try cache.store.probe=64.")
        self._check_together()

    @staticmethod
    def _check_word(name: str, word: str, words: tuple[str, ...]) -> None:
        if word not in words:
            raise UserError(f"there is no cache.store.{name}={word}. {did_you_mean(word, words)}")

    @property
    def trained(self) -> bool:
        """Does this index need training?"""
        return self.kind in TRAINED

    def _check_together(self) -> None:
        if self.kind == "hnsw" and self.evict != "none":
            raise UserError(
                f"cache.store.kind=hnsw cannot forget a state, and cache.store.evict={self.evict} asks for it. "
                "Try cache.store.evict=none cache.store.capacity=null, or another cache.store.kind."
            )
        if self.trained and not self.refine and self.rebuild != "never":
            raise UserError(
                f"cache.store.rebuild={self.rebuild} trains again on the states themselves, and "
                "cache.store.refine=false keeps only their codes. "
                "Try cache.store.rebuild=never, or cache.store.refine=true."
            )
        points = min(self.first_build, self.capacity or self.first_build)
        if self.rebuild == "drift":
            points -= -(-points // HELD_OUT)
        if self.rebuild == "drift" and self.trained and not points:
            raise UserError(
                "cache.store.rebuild=drift leaves every 16th state out of training, and there is only 1. "
                "Try cache.store.first_build=10000."
            )
        if self.kind == "ivfpq" and points < CODEWORDS:
            raise UserError(
                f"cache.store.kind=ivfpq would be trained on {points} states ("
                f"cache.store.first_build={self.first_build}, cache.store.capacity={self.capacity}), "
                f"fewer than the {CODEWORDS} words of a code. "
                "Try cache.store.first_build=10000, or cache.store.kind=exact for a small memory."
            )
