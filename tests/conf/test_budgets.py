"""No file and no function grows past what one reads in a sitting."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FILES = [
    ROOT / "run.py",
    *sorted((ROOT / "lit_seqlm").rglob("*.py")),
    *sorted((ROOT / "experiments").rglob("*.py")),
]
LINES = {"run.py": 30, "lit_seqlm/task/": 150, "lit_seqlm/model/": 300}
OTHER_FILE, FUNCTION = 250, 40


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_file_is_short(path: Path) -> None:
    name = str(path.relative_to(ROOT))
    budget = next((most for start, most in LINES.items() if name.startswith(start)), OTHER_FILE)
    assert len(path.read_text().splitlines()) <= budget


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_function_is_short(path: Path) -> None:
    """Its docstring does not count: shapes, sources and errors need their room."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.FunctionDef):
            first = node.body[1 if ast.get_docstring(node) and len(node.body) > 1 else 0]
            signature = node.body[0].lineno - node.lineno
            assert signature + node.end_lineno - first.lineno + 1 <= FUNCTION, node.name


def test_a_top_folders_page_is_short() -> None:
    for page in ROOT.glob("*/README.md"):
        assert len(page.read_text().splitlines()) <= 40, page
