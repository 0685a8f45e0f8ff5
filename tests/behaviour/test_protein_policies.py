"""What a command line says of the tokenizer, where the weights are another run's."""

import csv
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hydra.core.global_hydra import GlobalHydra

from lit_seqlm.data.input_rows import InputRow
from lit_seqlm.data.proteins.rows import protein_rows
from lit_seqlm.errors import UserError
from lit_seqlm.recipe import take_ids
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
