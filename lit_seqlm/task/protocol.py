"""How an evaluation read its streams, in words, for its card."""

from typing import Any

from lit_seqlm.cache.knn import KNNStore
from lit_seqlm.cache.memory import Memory
from lit_seqlm.task.report import BLOCK, FEW_DOCUMENTS, SAMPLES


def protocol(task: Any, datamodule: Any) -> dict[str, Any]:
    """Order, context, ends of lines, memories, what was tuned, new words, intervals."""
    length, stride = datamodule.eval_seq_len, datamodule.eval_stride
    carried = f"carried, segments of {length} tokens"
    cache = task.cache
    return {
        "order": "validation, then test; each one stream, batch 1, nothing reset within",
        "first_token": "context only: N - 1 predictions",
        "end_of_line": "<eos> after every line, scored as a word",
        "state": carried if stride is None else f"windows of {length} tokens by {stride}",
        "key": task.key,
        "memories": {name: _beginning(memory) for name, memory in cache.memories.items()},
        "adapted": cache.adapter.describe() if cache.adapter else "nothing",
        "tuned_on": _tuned(task),
        "new_words": task.new_words,
        "new_words_counted_on": _counted_on(task),
        "bootstrap": f"{SAMPLES} samples of documents, of blocks of {BLOCK} tokens under {FEW_DOCUMENTS} documents",
    }


def _beginning(memory: Memory) -> str:
    if isinstance(memory, KNNStore):
        return f"{len(memory.store):,} training states, the same for every stream"
    return "empty at each split's start; every token is scored, then remembered"


def _counted_on(task: Any) -> str | int:
    """What |V| the uniform share of new words rests on."""
    if task.new_words != "uniform":
        return "none"
    return task.num_words or "those of each split, known in advance"


def _tuned(task: Any) -> str:
    """What was chosen where."""
    if not task.cache.memories:
        return "nothing"
    if task.weights in ("em", "online"):
        settings = "settings on validation; " if task.has_grid else ""
        return f"{settings}weights on the past of the stream that is scored"
    chosen = task.weights in ("tuned", "gate") or task.has_grid
    return "validation alone" if chosen else "nothing: all values were given"
