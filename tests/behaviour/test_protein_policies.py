"""What a command line says of the tokenizer, where the weights are another run's."""

import csv
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from hydra.core.global_hydra import GlobalHydra
from omegaconf import OmegaConf

from lit_seqlm.data.input_rows import InputRow
from lit_seqlm.data.proteins.rows import protein_rows
from lit_seqlm.errors import UserError
from lit_seqlm.recipe import _read_alike, take_ids
from lit_seqlm.tokenizer.amino_acid import VOCABULARY, AminoAcidTokenizer
from lit_seqlm.tokenizer.smiles import SmilesTokenizer
from lit_seqlm.tokenizer.word import WordTokenizer
from tests.behaviour.test_predict import run
from tests.behaviour.test_sites import made, training
from tests.made_sites import MadeSites

ROWS = {"plain": "ACDEFGHIK", "rare": "ACBDEFGHIK", "gap": "AC-DEFGHIK"}


class WrittenSites(MadeSites):
    """Its rows are cleaned as those of all proteins."""

    def rows(self, path: str, column: str | None, tokenizer: Any) -> Iterator[InputRow]:
        return protein_rows(path, column, tokenizer)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("policies")
    run(folder / "run", *training("chain", 1))
    yield folder / "run"
    GlobalHydra.instance().clear()


@pytest.mark.parametrize(
    ("said", "statuses"),
    [
        ([], ["ok", "ok", "illegal"]),
        (["data.tokenizer.ambiguous=drop"], ["ok", "ambiguous", "illegal"]),
        (["data.tokenizer.gapped=true"], ["ok", "ok", "ok"]),
    ],
)
def test_policies_are_the_command_lines(
    trained: Path, tmp_path: Path, said: list[str], statuses: list[str]
) -> None:
    rows, output = tmp_path / "rows.fasta", tmp_path / "out.csv"
    rows.write_text("".join(f">{name}\n{sequence}\n" for name, sequence in ROWS.items()))
    source = f"data.source._target_={__name__}.WrittenSites"
    run(tmp_path / "run", *made("chain"), source, "task=annotate", f"init_from={trained}", f"task.input={rows}",
        f"task.output={output}", "logger=none", *said)  # fmt: skip
    with output.open(newline="") as file:
        assert [line["status"] for line in csv.DictReader(file)] == statuses


def test_ends_that_the_weights_have_not_seen_are_refused(trained: Path, tmp_path: Path) -> None:
    with pytest.raises(
        UserError, match=r"ends=cls_sep: init_from=.*Say data\.tokenizer\.ends=cls\."
    ):
        run(
            tmp_path / "run",
            *training("chain", 1),
            f"init_from={trained}",
            "data.tokenizer.ends=cls_sep",
        )


def test_one_policy_that_is_said_leaves_the_others_as_the_weights_have_them(tmp_path: Path) -> None:
    """Ends too, which would otherwise be refused as the config's."""
    learnt = ["data.tokenizer.ambiguous=to_x", "data.tokenizer.ends=cls_sep"]
    run(tmp_path / "origin", *training("chain", 1, *learnt))
    task = training("chain", 1, f"init_from={tmp_path / 'origin'}")
    run(tmp_path / "gapped", *task, "data.tokenizer.gapped=true")
    (path,) = (tmp_path / "gapped" / "checkpoints").glob("*.ckpt")
    kept = torch.load(path, weights_only=False)
    policies = {"ends": "cls_sep", "ambiguous": "to_x", "gapped": True}
    for told in (kept["config"]["data"]["tokenizer"], kept["tokenizer"]):
        assert {key: told[key] for key in policies} == policies
    target = "_target_:lit_seqlm.tokenizer.amino_acid.AminoAcidTokenizer"
    whole = f"data.tokenizer={{{target},ends:cls,ambiguous:keep,gapped:false}}"
    with pytest.raises(UserError, match=r"Say data\.tokenizer\.ends=cls_sep"):
        run(tmp_path / "whole", *task, whole)


def test_what_is_said_of_molecules_leaves_the_rest_to_the_state() -> None:
    """A vocabulary's file need not be on this machine: its tokens are in the state."""
    smiles = {"_target_": "lit_seqlm.tokenizer.smiles.SmilesTokenizer", "isomeric": False}
    own, theirs = {**smiles, "vocabulary": None}, {**smiles, "vocabulary": "gone.txt"}
    cfg = OmegaConf.create({"init_from": "x", "data": {"tokenizer": {**own, "unknown": "pad"}}})
    before = OmegaConf.to_container(cfg)
    origin = {"data": {"tokenizer": {**theirs, "unknown": "unk"}}}
    _read_alike(cfg, origin, {"data.tokenizer.unknown": "pad"})
    assert OmegaConf.to_container(cfg) == before
    _read_alike(cfg, origin, {})
    assert OmegaConf.to_container(cfg.data) == origin["data"]


def test_ids_are_the_other_runs() -> None:
    """And of molecules and texts all that their tokenizers keep, as ever."""
    theirs = {
        "vocabulary": [*VOCABULARY, "<family>"],
        "ends": "cls",
        "ambiguous": "keep",
        "gapped": False,
    }
    proteins = AminoAcidTokenizer("cls", "to_x", True)
    take_ids(proteins, theirs, "init_from=x")
    assert proteins.state_dict() == theirs | {"ambiguous": "to_x", "gapped": True}
    with pytest.raises(UserError, match="of another kind"):
        take_ids(proteins, {"vocabulary": ["a", "b"]}, "init_from=x")
    molecules = SmilesTokenizer(None, unknown="pad", isomeric=False, min_count=1)
    take_ids(molecules, {"vocabulary": ["<pad>", "C"], "isomeric": True}, "init_from=x")
    assert molecules.state_dict() == {"vocabulary": ["<pad>", "C"], "isomeric": True}
    words = WordTokenizer(lowercase=False, max_size=None, min_count=1)
    take_ids(words, {"vocabulary": ["<eos>", "a"]}, "init_from=x")
    assert words.state_dict() == {"vocabulary": ["<eos>", "a"]}
