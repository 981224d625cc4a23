"""Runtimes without a bootstrap of ours: a program of the function's own, and exec wrappers around ours."""

import shutil

import pytest

from stoker.runtimes import RuntimeCatalog
from stoker.runtimes.catalog import _WRAPPER_SCRIPT

SHELL_RUNTIME = """\
#!/bin/sh
# The custom runtime of AWS's tutorial.
set -eu
api="http://$AWS_LAMBDA_RUNTIME_API/2018-06-01/runtime/invocation"
while true; do
  event=$(curl -sS -D head.txt "$api/next")
  id=$(sed -n 's/^lambda-runtime-aws-request-id: *//Ip' head.txt | tr -d '\\r')
  curl -sS "$api/$id/response" -d "{\\"echo\\": $event, \\"handler\\": \\"$_HANDLER\\"}" >/dev/null
done
"""


async def test_shell_runtime_of_the_tutorial(running, tmp_path):
    if shutil.which("curl") is None:
        pytest.skip("curl is not installed")
    bootstrap = tmp_path / "bootstrap"
    bootstrap.write_text(SHELL_RUNTIME)
    bootstrap.chmod(0o755)
    plan = RuntimeCatalog().plan("provided.al2023", task=tmp_path)
    argv = [each.replace("/var/task", str(tmp_path)) for each in plan.argv]
    async with running(argv, tmp_path, handler="any.thing") as runtime:
        for number in range(3):
            while await runtime.events.get() != ("ready",):
                pass
            event = await runtime.invoke_raw(b'{"n": %d}' % number)
            while event == ("lost",):  # curl closes its connection after each request
                event = await runtime.events.get()
            assert event[0] == "response"
            assert event[2] == b'{"echo": {"n": %d}, "handler": "any.thing"}' % number


def wrapped(wrapper: str, argv: list[str]) -> list[str]:
    return ["/bin/sh", "-c", _WRAPPER_SCRIPT, "bootstrap", wrapper, *argv]


async def test_exec_wrapper_changes_the_environment(running, python_argv, tmp_path):
    """Recorded by AWS with such a wrapper for every managed runtime."""
    wrapper = tmp_path / "environment_wrapper"
    wrapper.write_text('#!/bin/sh\nexport WRAPPED=yes\nexec "$@"\n')
    wrapper.chmod(0o755)
    (tmp_path / "index.py").write_text("import os\ndef handler(e, c): return os.environ['WRAPPED']\n")
    async with running(wrapped(str(wrapper), python_argv), tmp_path) as runtime:
        await runtime.ready()
        assert await runtime.invoke({}) == "yes"


@pytest.mark.parametrize(
    ("mode", "status", "message"), [(None, 127, "does not exist"), (0o644, 126, "is not an executable")]
)
async def test_exec_wrapper_that_cannot_run(running, python_argv, tmp_path, mode, status, message):
    """Recorded by AWS: a missing wrapper is "Runtime exited with error: exit status 127"."""
    wrapper = tmp_path / "wrapper"
    if mode is not None:
        wrapper.write_text("")
        wrapper.chmod(mode)
    async with running(wrapped(str(wrapper), python_argv), tmp_path) as runtime:
        assert await runtime.output(exits=True) == f"{wrapper}: {message}\n"
        assert runtime.process.returncode == status
