"""The proteins of a split, named on a command line as the program names its data."""

# V = vocabulary

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from hydra import compose, initialize_config_dir
from hydra.errors import HydraException
from omegaconf.errors import OmegaConfBaseException

from lit_seqlm.config import CONF, build, register
from lit_seqlm.data.proteins.cleaning import cleaned
from lit_seqlm.data.proteins.sources import read_records
from lit_seqlm.data.shards import ShardSource
from lit_seqlm.errors import UserError, did_you_mean
from lit_seqlm.tokenizer.amino_acid import RESIDUES, AminoAcidTokenizer


class ProteinSequences(Protocol):
    """Sequences that can be counted, and read as often as somebody likes; perhaps more than memory holds."""

    def __len__(self) -> int: ...

    def __iter__(self) -> Iterator[str]: ...


class ShardedProteins:
    """Proteins of a prepared corpus as letters again: in memory is one block.

    Args:
        split: one that the corpus has.
    """

    def __init__(self, source: ShardSource, split: str):
        self.source, self.split = source, split

    def __len__(self) -> int:
        return self.source.num_sequences(self.split)

    def __iter__(self) -> Iterator[str]:
        tokens = self.source.tokenizer_state()["vocabulary"]
        letters_V = np.array([ord(one) if one in RESIDUES else 0 for one in tokens], np.uint8)
        for ids in self.source.open(self.split, 0, 0, 0, 1):
            letters = letters_V[ids]
            yield letters[letters > 0].tobytes().decode("ascii")


def named_sequences(words: str) -> list[str]:
    """All of `named_proteins`, in memory."""
    return list(named_proteins(words))


def named_proteins(words: str) -> ProteinSequences:
    """Sequences of ``NAME:SPLIT``, of ``NAME:SPLIT,KEY=VALUE,...`` with options of ``data``, or of a file.

    `NAME` is an option of conf/data: ``swissprot_sample:test,source.split=swissprot_sample_random``. A key may begin
    with ``data.``, as messages have it.

    Raises:
        UserError: there is no such file, no such data of proteins, or no such split.
    """
    if Path(words).is_file():
        as_written = AminoAcidTokenizer("cls", "keep", False)
        return [record.sequence for record in cleaned(read_records(words), as_written, words, "")]
    name, _, rest = words.partition(":")
    split, *options = rest.split(",")
    known = sorted(path.stem for path in (CONF / "data").glob("[!_]*.yaml"))
    if name not in known:
        raise UserError(
            f"{words} is no file and no NAME:SPLIT of conf/data. {did_you_mean(name, known)}"
        )
    node = _composed(name, options, words)
    tokenizer = build(node["tokenizer"]) if "tokenizer" in node else None
    if not isinstance(tokenizer, AminoAcidTokenizer):
        raise UserError(f"{words}: data={name} has no proteins.")
    try:
        source = build(node["source"])
    except OmegaConfBaseException as error:  # what has no default was not said
        raise UserError(f"{words}: {str(error).splitlines()[0]}") from None
    return _of(source, split, tokenizer, words)


def _composed(name: str, options: list[str], words: str) -> Any:
    register()
    given = [f"data.{option.removeprefix('data.')}" for option in options]
    overrides = [f"data={name}", "paths.run_dir=.", *given]
    try:
        with initialize_config_dir(version_base="1.3", config_dir=str(CONF)):
            return compose("config", overrides=overrides).data
    except (HydraException, OmegaConfBaseException) as error:
        raise UserError(f"{words}: {str(error).splitlines()[0]}") from None


def _of(source: Any, split: str, tokenizer: AminoAcidTokenizer, words: str) -> ProteinSequences:
    splits = ("train", "valid", *getattr(source, "tests", ("test",)))
    if split not in splits:
        raise UserError(f"{words}: its splits are {', '.join(splits)}.")
    if isinstance(source, ShardSource):
        if source.kind != "protein":
            raise UserError(f"{words}: the corpus is of {source.kind}s.")
        return ShardedProteins(source, split)
    source.fetch()
    if hasattr(source, "sequences"):
        return list(source.sequences(split, tokenizer))
    return list(source.table(split, tokenizer).sequences)
