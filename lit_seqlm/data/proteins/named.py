"""The proteins of a split, named on a command line as the program names its data."""

from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from hydra.errors import HydraException
from omegaconf.errors import OmegaConfBaseException

from lit_seqlm.config import CONF, build, register
from lit_seqlm.data.proteins.cleaning import cleaned
from lit_seqlm.data.proteins.sources import read_records
from lit_seqlm.errors import UserError, did_you_mean
from lit_seqlm.tokenizer.amino_acid import AminoAcidTokenizer


def named_sequences(words: str) -> list[str]:
    """Sequences of ``NAME:SPLIT``, of ``NAME:SPLIT,KEY=VALUE,...`` with options of ``data``, or of a file.

    `NAME` is an option of conf/data: ``swissprot_sample:test,source.split=swissprot_sample_random``.

    Raises:
        UserError: there is no such file, no such data of proteins, or no such split.
    """
    if Path(words).is_file():
        as_written = AminoAcidTokenizer("cls", "keep", False)
        return [record.sequence for record in cleaned(read_records(words), as_written, words)]
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
    return _of(build(node["source"]), split, tokenizer, words)


def _composed(name: str, options: list[str], words: str) -> Any:
    register()
    overrides = [f"data={name}", "paths.run_dir=.", *(f"data.{option}" for option in options)]
    try:
        with initialize_config_dir(version_base="1.3", config_dir=str(CONF)):
            return compose("config", overrides=overrides).data
    except (HydraException, OmegaConfBaseException) as error:
        raise UserError(f"{words}: {str(error).splitlines()[0]}") from None


def _of(source: Any, split: str, tokenizer: AminoAcidTokenizer, words: str) -> list[str]:
    splits = ("train", "valid", *getattr(source, "tests", ("test",)))
    if split not in splits:
        raise UserError(f"{words}: its splits are {', '.join(splits)}.")
    source.fetch()
    if hasattr(source, "sequences"):
        return list(source.sequences(split, tokenizer))
    return list(source.table(split, tokenizer).sequences)
