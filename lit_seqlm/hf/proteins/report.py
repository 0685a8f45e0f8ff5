"""What was read, what was made of it, and what a user should know before trusting it."""

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from lit_seqlm.hf.report import listed
from lit_seqlm.results import write_atomically


@dataclass
class ProteinReport:
    """One conversion of a protein model.

    Attributes:
        layout: the layout read or written: ``megatron`` or ``tape``.
        files: digest of each file read, by its name.
        sizes: hidden size, layers, heads and so on; `vocab_size` are rows of the layout's embedding.
        num_parameters: of our model.
        tensors: how many are in the file, of ours, and kept beside.
        output_head: ``read from the file``, or ``drawn from seed ...``.
        conventions: options that decide the numbers beside the weights.
        tokens: what became of the rows of the embedding.
        warnings: one sentence each.
    """

    layout: str
    files: dict[str, str]
    sizes: dict[str, int]
    num_parameters: int
    tensors: dict[str, int]
    output_head: str
    conventions: dict[str, Any]
    tokens: str
    warnings: list[str] = field(default_factory=list)

    def write(self, path: Path) -> None:
        write_atomically(path, json.dumps(asdict(self), indent=1) + "\n")

    def rows(self) -> list[tuple[str, str]]:
        """Name and value of each line of a table."""
        digests = ", ".join(f"{name}, sha256 {digest[:12]}" for name, digest in self.files.items())
        return [
            ("layout", self.layout),
            ("source", digests),
            ("sizes", listed(self.sizes)),
            ("parameters", f"{self.num_parameters:,}"),
            ("tensors", listed(self.tensors)),
            ("output head", self.output_head),
            ("conventions", listed(self.conventions)),
            ("tokens", self.tokens),
        ]
