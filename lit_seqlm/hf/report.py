"""What was read, what was made of it, and what a user should know before trusting it."""

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from lit_seqlm.results import write_atomically


@dataclass
class Report:
    """One conversion.

    Attributes:
        family: the layout read or written: ``official`` or ``hf``.
        source: name of the file read; its digest is `sha256`.
        sizes: hidden size, layers, heads and so on.
        num_parameters: of the encoder with its output head; omega is no parameter.
        tensors: how many of which kind were taken, and how many left out.
        omega: ``read from the file``, or ``drawn from seed ...``: then embeddings are not the published ones.
        output_head: in the same words.
        conventions: options that decide the numbers beside the weights.
        vocabulary: number of tokens, digest, and whether it is MoLFormer's own.
        warnings: one sentence each.
    """

    family: str
    source: str
    sha256: str
    sizes: dict[str, int]
    num_parameters: int
    tensors: dict[str, int]
    omega: str
    output_head: str
    conventions: dict[str, Any]
    vocabulary: dict[str, Any]
    warnings: list[str] = field(default_factory=list)

    def write(self, path: Path) -> None:
        write_atomically(path, json.dumps(asdict(self), indent=1) + "\n")

    def rows(self) -> list[tuple[str, str]]:
        """Name and value of each line of a table."""
        vocabulary = self.vocabulary
        own = "MoLFormer's own" if vocabulary["official"] else "not MoLFormer's own"
        return [
            ("layout", self.family),
            ("source", f"{self.source}, sha256 {self.sha256[:12]}"),
            ("sizes", listed(self.sizes)),
            ("parameters", f"{self.num_parameters:,}"),
            ("tensors", listed(self.tensors)),
            ("omega", self.omega),
            ("output head", self.output_head),
            ("conventions", listed(self.conventions)),
            (
                "vocabulary",
                f"{vocabulary['tokens']:,} tokens, sha256 {vocabulary['sha256'][:12]}, {own}",
            ),
        ]


def listed(values: dict[str, Any]) -> str:
    return ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in values.items())
