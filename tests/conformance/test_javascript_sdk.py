"""The AWS SDK for JavaScript drives the whole life of a function."""

import json
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.running import PYTHON_RUNTIME, ROLE, RunningStoker, python_zip

HERE = Path(__file__).parent / "javascript"

pytestmark = pytest.mark.skipif(
    shutil.which("node") is None or shutil.which("npm") is None, reason="no node or npm on this host"
)


@pytest.mark.timeout(300)
def test_the_whole_life_of_a_function(stoker: RunningStoker, tmp_path: Path) -> None:
    if not (HERE / "node_modules" / "@aws-sdk" / "client-lambda").exists():
        subprocess.run(["npm", "ci", "--no-audit", "--no-fund", "--loglevel=error"], cwd=HERE, check=True)
    first, second = tmp_path / "first.zip", tmp_path / "second.zip"
    first.write_bytes(python_zip("def lambda_handler(event, context):\n    return event\n"))
    second.write_bytes(python_zip("def lambda_handler(event, context):\n    return 'new'\n"))
    done = subprocess.run(
        ["node", "life.mjs", str(first), str(second), PYTHON_RUNTIME, ROLE],
        cwd=HERE,
        env=stoker.client_environment(),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == {
        "state": "Pending",
        "result": {"n": 1},
        "log": True,
        "updated": "new",
        "gone": "ResourceNotFoundException",
    }
