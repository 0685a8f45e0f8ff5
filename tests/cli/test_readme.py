"""What the READMEs tell a newcomer to type composes, and what they claim is in the result files."""

import re
import shlex
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir

from lit_seqlm.config import register

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
COMMANDS = re.findall(r"^python run\.py(.*?)(?:#.*)?$", README, re.MULTILINE)


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_composes(command: str) -> None:
    overrides = [word for word in shlex.split(command) if word != "-m"]
    single = [
        re.sub(r",.*", "", word) if "," in word and "[" not in word else word for word in overrides
    ]
    register()
    with initialize_config_dir(version_base="1.3", config_dir=str(ROOT / "conf")):
        assert compose("config", overrides=single).name


def test_there_are_commands() -> None:
    assert len(COMMANDS) >= 7


def test_every_make_target_exists() -> None:
    makefile = (ROOT / "Makefile").read_text()
    for target in re.findall(r"make (\w+)", README):
        assert f"\n{target}:" in makefile, target


@pytest.mark.parametrize("page", [*sorted(ROOT.glob("*/README.md")), ROOT / "README.md"], ids=str)
def test_links_lead_somewhere(page: Path) -> None:
    for link in re.findall(r"\]\((?!http)([^)#]+)\)", page.read_text()):
        assert (page.parent / link).exists(), link


def test_numbers_stand_in_a_rendered_page() -> None:
    """Each number of "What is reproduced" is one that `reproduce.py render` wrote from result files."""
    section = README.split("## What is reproduced")[1].split("\n## ")[0]
    rendered = (ROOT / "experiments/wang2019_adversarial/README.md").read_text()
    numbers = re.findall(
        r"-?\d+\.\d+", " ".join(line for line in section.splitlines() if line.startswith("|"))
    )
    assert numbers, "the section shows results"
    for number in numbers:
        assert number in rendered, f"{number} is in README.md and in no rendered table"
