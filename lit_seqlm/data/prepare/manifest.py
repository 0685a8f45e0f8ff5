"""What a prepared corpus is: written last, so that a folder with it is complete."""

import json
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lit_seqlm.data.prepare.options import CorpusOptions
from lit_seqlm.data.prepare.write import BLOCK
from lit_seqlm.data.shards import FORMAT, MANIFEST

COUNTS = "token_counts.json"
DROPPED = "dropped.csv.gz"


def describe(
    options: CorpusOptions,
    inputs: Mapping[str, str | None],
    num_rows: int,
    dropped: Counter[str],
    changed: Counter[str],
    splits: Mapping[str, Mapping[str, Any]],
    vocabulary: list[str],
) -> dict[str, Any]:
    """The manifest without the files' digests.

    Args:
        inputs: names and digests; a stream has none.
        changed: how many rows were made to fit, and by what.
        splits: for each its sequences, its tokens, and how many sequences have which length.
    """
    kind = options.kind
    return {
        "format": FORMAT,
        "inputs": [{"name": name, "sha256": sha256} for name, sha256 in inputs.items()],
        "rows": num_rows,
        "splits": splits,
        "dropped": dict(sorted(dropped.items())),
        **({"changed": dict(sorted(changed.items()))} if changed else {}),
        **kind.described(),
        "limits": {"min_len": options.min_len, "max_len": options.max_len},
        "holdout": options.hold_out.described(),
        "vocabulary": kind.vocabulary_described(vocabulary),
        "block": BLOCK,
        f"shard_{kind.nouns}": options.shard_size,
    }


def as_json(content: Any) -> str:
    return json.dumps(content, indent=1, ensure_ascii=False) + "\n"


def write_manifest(folder: Path, content: dict[str, Any], digests: Mapping[str, str]) -> None:
    """Add size and digest of each file, and write."""
    files = {
        name: {"bytes": (folder / name).stat().st_size, "sha256": sha256}
        for name, sha256 in sorted(digests.items())
    }
    text = as_json({**content, "files": files})
    (folder / MANIFEST).write_text(text, encoding="utf-8")
