"""What a prepared corpus is: written last, so that a folder with it is complete."""

import json
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lit_seqlm.data.chemistry.canonical import version
from lit_seqlm.data.prepare.options import Options
from lit_seqlm.data.prepare.write import BLOCK
from lit_seqlm.data.shards import FORMAT, MANIFEST
from lit_seqlm.tokenizer.smiles_vocabulary import digest, is_official

COUNTS = "token_counts.json"
DROPPED = "dropped.csv.gz"


def describe(
    options: Options,
    inputs: Mapping[str, str | None],
    num_rows: int,
    dropped: Counter[str],
    splits: Mapping[str, Mapping[str, Any]],
    vocabulary: list[str],
) -> dict[str, Any]:
    """The manifest without the files' digests.

    Args:
        inputs: names and digests; a stream has none.
        splits: for each its molecules, its tokens, and how many molecules have which length.
    """
    return {
        "format": FORMAT,
        "inputs": [{"name": name, "sha256": sha256} for name, sha256 in inputs.items()],
        "rows": num_rows,
        "splits": splits,
        "dropped": dict(sorted(dropped.items())),
        "canonical": {"rdkit": version(), "isomeric": options.isomeric},
        "limits": {"min_len": options.min_len, "max_len": options.max_len},
        "holdout": {"share": options.holdout, "at_most": options.max_holdout},
        "vocabulary": {
            "size": len(vocabulary),
            "sha256": digest(vocabulary),
            "official": is_official(vocabulary),
            "min_count": options.min_count if options.vocabulary is None else None,
        },
        "block": BLOCK,
        "shard_molecules": options.shard_molecules,
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
