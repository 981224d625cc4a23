"""What a folder is taken for: runtime, handler, and how its dependencies are installed."""

import sys
from pathlib import Path

import pytest

from stoker.cli.build import BuildPlan, detect, node_runtime, python_handler, python_runtime
from stoker.cli.dependencies import BuildError, install_node, python_command

OWN = f"python{sys.version_info.major}.{sys.version_info.minor}"
AVAILABLE = ("nodejs18.x", "nodejs20.x", "nodejs8.x", "provided.al2023", OWN)


@pytest.mark.parametrize(
    ("file", "text", "expected"),
    [
        (
            "lambda_function.py",
            "def lambda_handler(e, c): ...",
            BuildPlan(OWN, "lambda_function.lambda_handler"),
        ),
        ("app.py", "def first(): ...\ndef handler(e, c): ...", BuildPlan(OWN, "app.handler")),
        ("index.mjs", "", BuildPlan("nodejs20.x", "index.handler")),
        ("index.cjs", "", BuildPlan("nodejs20.x", "index.handler")),
        ("bootstrap", "#!/bin/sh", BuildPlan("provided.al2023", "bootstrap")),
    ],
)
def test_a_folder_says_what_it_is(tmp_path: Path, file: str, text: str, expected: BuildPlan) -> None:
    (tmp_path / file).write_text(text)
    assert detect(tmp_path, runtime=None, handler=None, available=AVAILABLE) == expected


def test_flags_win(tmp_path: Path) -> None:
    (tmp_path / "app.py").write_text("def handler(e, c): ...")
    assert detect(tmp_path, runtime="python3.9", handler=None, available=AVAILABLE) == BuildPlan(
        "python3.9", "app.handler"
    )
    assert detect(tmp_path, runtime=None, handler="app.other", available=AVAILABLE) == BuildPlan(
        OWN, "app.other"
    )


def test_a_folder_that_says_nothing(tmp_path: Path) -> None:
    with pytest.raises(BuildError, match="give --runtime and --handler"):
        detect(tmp_path, runtime="python3.9", handler=None, available=AVAILABLE)
    both = detect(tmp_path, runtime="python3.9", handler="a.b", available=AVAILABLE)
    assert both == BuildPlan("python3.9", "a.b")


def test_a_zip_needs_both_flags(tmp_path: Path) -> None:
    archive = tmp_path / "x.zip"
    archive.touch()
    with pytest.raises(BuildError, match="give --runtime and --handler"):
        detect(archive, runtime="python3.9", handler=None, available=AVAILABLE)


def test_the_service_decides_which_python() -> None:
    assert python_runtime(AVAILABLE) == OWN
    assert python_runtime(("python3.8", "python3.10", "python3.9", "nodejs20.x")) == "python3.10"
    assert python_runtime(()) == OWN


def test_the_newest_node_is_the_highest_number() -> None:
    assert node_runtime(("nodejs8.x", "nodejs20.x", "nodejs18.x")) == "nodejs20.x"


def test_handlers_are_found_as_functions_and_as_names() -> None:
    assert python_handler("import x\nhandler = x.wrap(f)") == "handler"
    assert python_handler("async def main(e, c): ...") == "main"
    assert python_handler("def handler(): ...\ndef lambda_handler(): ...") == "lambda_handler"
    assert python_handler("class A:\n    def handler(self): ...") == "lambda_handler"


def test_another_python_without_pip_takes_built_wheels_only() -> None:
    assert python_command("python3.13", None)[4:9] == [
        "--python-version",
        "3.13",
        "--implementation",
        "cp",
        "--only-binary=:all:",
    ]
    own = python_command("python3.13", "/usr/bin/python3.13")
    assert own[0] == "/usr/bin/python3.13"
    assert "--python-version" not in own


def test_a_broken_package_json_is_named(tmp_path: Path) -> None:
    (tmp_path / "package.json").write_text("{")
    with pytest.raises(BuildError, match=r"package\.json is not a JSON object"):
        install_node(tmp_path, quiet=True)
    (tmp_path / "package.json").write_text("[]")
    with pytest.raises(BuildError, match=r"package\.json is not a JSON object"):
        install_node(tmp_path, quiet=True)
