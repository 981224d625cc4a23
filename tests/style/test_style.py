"""Remarks that were made twice and are checks now."""

import ast
import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
GENERATED = {f"src/stoker/services/{name}_types.py" for name in ("lambda", "logs", "iam", "sts")}
LINES_MAX = 400
FUNCTION_LINES_MAX = 60
BARRED_NAMES = re.compile(r"(^|_)(utils?|helpers?|common|misc)(_|$)")


def tracked(*suffixes: str) -> list[str]:
    listed = subprocess.run(
        ["git", "-c", f"safe.directory={ROOT}", "ls-files"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    names = listed.stdout.split() or [str(path.relative_to(ROOT)) for path in _walk()]
    return [name for name in names if name.endswith(suffixes) and name not in GENERATED]


def _walk() -> list[Path]:
    return [
        path
        for folder in ("src", "native", "tests", "bench", "examples")
        for path in (ROOT / folder).rglob("*")
    ]


CODE = tracked(".py", ".c", ".h", ".mjs", ".cjs")


def test_there_is_code_to_look_at() -> None:
    assert len(CODE) > 100


@pytest.mark.parametrize("name", [name for name in CODE if not name.startswith("tests/")])
def test_files_are_short(name: str) -> None:
    assert len((ROOT / name).read_text().splitlines()) <= LINES_MAX


@pytest.mark.parametrize("name", [name for name in CODE if name.startswith("src/") and name.endswith(".py")])
def test_modules_and_functions(name: str) -> None:
    tree = ast.parse((ROOT / name).read_text())
    docstring = ast.get_docstring(tree)
    assert docstring, "says what lives here"
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            length = (node.end_lineno or node.lineno) - node.lineno + 1
            assert length <= FUNCTION_LINES_MAX, f"{node.name} has {length} lines"


@pytest.mark.parametrize("name", CODE)
def test_no_drawer_for_odds_and_ends(name: str) -> None:
    assert not BARRED_NAMES.search(Path(name).stem)


def test_every_decision_has_a_page_in_order() -> None:
    pages = sorted(path.name for path in (ROOT / "docs" / "adr").glob("[0-9]*.md"))
    assert [int(page[:4]) for page in pages] == list(range(1, len(pages) + 1))
    for page in pages:
        text = (ROOT / "docs" / "adr" / page).read_text()
        assert "**Decision.**" in text or page.startswith("0003"), page


def test_the_lock_file_names_no_registry() -> None:
    text = (ROOT / "requirements.lock").read_text()
    assert "://" not in text
    assert "--hash=sha256:" in text
