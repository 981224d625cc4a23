"""The Python bootstrap beside AWS's own client (awslambdaric from PyPI): same answers, same logs, byte for byte.

awslambdaric is installed into pytest's cache folder, never into the project's environment.
"""

import asyncio
import importlib
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stoker.runtimes.interpreters import BOOTSTRAPS


class Point(NamedTuple):
    """What simplejson turns into an object and json into an array."""

    x: int
    y: str


@pytest.fixture(scope="session")
def awslambdaric(request) -> Path:
    folder = request.config.cache.mkdir("awslambdaric")
    if not (folder / "awslambdaric").is_dir():
        result = subprocess.run(
            [sys.executable, "-m", "pip", "install", "-q", "--target", str(folder), "awslambdaric>=4.2"],
            capture_output=True,
            timeout=100,
            check=False,
        )
        if result.returncode != 0:
            pytest.skip(f"awslambdaric cannot be installed from PyPI: {result.stderr.decode()[-300:]}")
    return folder


SCENARIOS = {
    "echo": ("def handler(e, c): return e", '{"a": [1, 2.5, null, true, "\u00fc\u2028"]}'),
    "none": ("def handler(e, c): pass", "{}"),
    "text": ('def handler(e, c): return "gr\\u00fcn \\u2028 \\x7f \\n"', "{}"),
    "decimal": (
        "from decimal import Decimal as D\ndef handler(e, c): return [D('1.10'), D('NaN'), D(3)]",
        "{}",
    ),
    "numbers": ("def handler(e, c): return [1e400, -1e400, float('nan'), 10**30, 1.0, True]", "{}"),
    "namedtuple": (
        "import collections\nP = collections.namedtuple('P', 'x y')\n"
        "def handler(e, c): return {'p': P(1, (2, 3)), 'l': [P('a', None)]}",
        "{}",
    ),
    "bytes_inside": ("def handler(e, c): return {'b': b'raw \\xc3\\xbc'}", "{}"),
    "bytes": ("def handler(e, c): return b'\\x00\\xff'", "{}"),
    "bad_bytes_inside": ("def handler(e, c): return {'b': b'\\xff'}", "{}"),
    "keys": ("def handler(e, c): return {1: 'i', None: 'n', True: 't', 2.5: 'f', b'b': 'b'}", "{}"),
    "bad_key": ("def handler(e, c): return {(1, 2): 'x'}", "{}"),
    "set": ("def handler(e, c): return {1, 2}", "{}"),
    "object": ("class A: pass\ndef handler(e, c): return {'x': A()}", "{}"),
    "datetime": ("import datetime\ndef handler(e, c): return datetime.date(2024, 1, 2)", "{}"),
    "circular": ("x = []\nx.append(x)\ndef handler(e, c): return x", "{}"),
    "subclasses": (
        "import enum\nclass S(str): pass\nclass I(enum.IntEnum):\n    A = 3\nclass D(dict): pass\n"
        "def handler(e, c): return D(s=S('x'), i=I.A, t=(1, 2))",
        "{}",
    ),
    "raise": ("def handler(e, c):\n    raise ValueError('bad \u00fc')", "{}"),
    "raise_deep": (
        "def a():\n    b()\ndef b():\n    return {}['k']\ndef handler(e, c):\n\n    a()",
        "{}",
    ),
    "raise_from": (
        "def handler(e, c):\n    try:\n        1 / 0\n    except Exception as x:\n        raise KeyError('k') from x",
        "{}",
    ),
    "raise_empty": ("def handler(e, c): raise Exception", "{}"),
    "not_callable": ("handler = 5", "{}"),
    "wrong_arity": ("def handler(): pass", "{}"),
    "recursion": ("def handler(e, c): return handler(e, c)", "{}"),
    "logging": (
        "import logging\ndef handler(e, c):\n    logging.warning('w %s', 1)\n    logging.info('hidden')\n"
        "    logging.getLogger('x').error('multi\\nline')\n    c.log('raw')\n    print('end')",
        "{}",
    ),
    "logging_exception": (
        "import logging\ndef handler(e, c):\n    try:\n        1 / 0\n    except Exception:\n"
        "        logging.exception('oops')",
        "{}",
    ),
    "context_repr": ("def handler(e, c): return [repr(c), repr(c.identity)]", "{}"),
    "missing_module": ("import nowhere\n", "{}"),
    "raise_at_import": ("import json\njson.loads('x')\n", "{}"),
    "syntax": ("def handler(e, c:\n    pass\n", "{}"),
    "indent": ("def handler(e, c):\n  x = 1\n   y = 2\n", "{}"),
    "no_handler": ("x = 1", "{}"),
    "exit_at_import": ("import sys\nsys.exit(3)", "{}"),
    "exit_in_handler": ("import sys\ndef handler(e, c): sys.exit(4)", "{}"),
    "os_exit": ("import os\ndef handler(e, c): os._exit(5)", "{}"),
    "stderr": ("import sys\ndef handler(e, c):\n    sys.stderr.write('e')\n    sys.stdout.write('o')", "{}"),
}
ENVIRONMENTS = {
    "text": {},
    "ascii": {"AWS_EXECUTION_ENV": "AWS_Lambda_python3.12"},
    "json": {"AWS_LAMBDA_LOG_FORMAT": "JSON", "AWS_LAMBDA_LOG_LEVEL": "INFO"},
    "level": {"AWS_LAMBDA_LOG_LEVEL": "ERROR"},
}
FRAMED = ("raise", "logging", "logging_exception", "raise_at_import")


def _normal(text: str) -> str:
    """Without what may differ: times, the runtimes' own files and lines, how deep a recursion got."""
    text = re.sub(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{3})?Z", "TIME", text)
    text = re.sub(r'[^" ]*/(awslambdaric|stoker_runtime)/bootstrap\.py(\\?"), line \d+', r"RUNTIME\2", text)
    return re.sub(r"repeated \d+ more", "repeated N more", text)


async def _first_event(runtime) -> tuple:
    """The first event, or that the process ended without one."""
    event = asyncio.ensure_future(runtime.events.get())
    ended = asyncio.ensure_future(runtime.process.wait())
    await asyncio.wait([event, ended], return_when=asyncio.FIRST_COMPLETED)
    if not event.done():
        await asyncio.sleep(0.05)
    ended.cancel()
    return event.result() if event.done() else ("lost",)


async def observe(running, argv, folder, environment, payload, *, telemetry) -> dict:
    """Everything that can be seen of one start and one invocation."""
    async with running(argv, folder, environment=environment, telemetry=telemetry) as runtime:
        first = await _first_event(runtime)
        seen = [first]
        if first == ("ready",):
            seen.append(await runtime.invoke_raw(payload.encode()))
        if seen[-1][0] == "error":
            seen[-1] = (
                "error",
                _normal(seen[-1][3].decode()),
            )  # AWS's client does not repeat the type in a header
        ended = seen[-1][0] in ("lost", "init_error")
        if not ended:
            assert await runtime.events.get() == ("ready",)
        output = await runtime.output(exits=ended)
        frames = runtime.telemetry() if telemetry else []
        return {
            "events": seen,
            "output": _normal(output),
            "status": runtime.process.returncode,
            "frames": [(r.level, r.is_json, _normal(r.message.decode())) for r in frames],
        }


JSON_VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text()
    | st.decimals()
    | st.text().map(str.encode)
    | st.builds(Point, st.integers(), st.text()),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.tuples(inner, inner)
        | st.dictionaries(st.text() | st.integers() | st.none() | st.floats(), inner, max_size=4)
    ),
    max_leaves=12,
)


@pytest.mark.parametrize("runtime", ["AWS_Lambda_python3.11", "AWS_Lambda_python3.13"])
def test_json_of_any_value_is_the_same(awslambdaric, monkeypatch, runtime):
    monkeypatch.setenv("AWS_EXECUTION_ENV", runtime)
    monkeypatch.syspath_prepend(str(awslambdaric))
    monkeypatch.syspath_prepend(str(BOOTSTRAPS / "python"))
    ours = importlib.import_module("stoker_runtime.marshal")
    theirs = importlib.import_module("awslambdaric.lambda_runtime_marshaller")

    @given(JSON_VALUES)
    def same(value):
        expected = theirs.to_json(value)
        assert ours.to_json(value) == expected
        # NaN is not equal to itself, so what was read is compared as it is written.
        assert ours.to_json(ours.loads(expected.encode())) == theirs.to_json(json.loads(expected))

    same()


CASES = [
    *[(name, "text", False) for name in SCENARIOS],
    *[(name, "ascii", False) for name in ("echo", "text", "raise", "bytes_inside", "keys", "subclasses")],
    *[(name, kind, False) for name in FRAMED for kind in ("json", "level")],
    *[(name, kind, True) for name in FRAMED for kind in ("text", "json", "level")],
]


@pytest.mark.parametrize(("scenario", "kind", "telemetry"), CASES)
async def test_same_as_aws(running, python_argv, awslambdaric, tmp_path, scenario, kind, telemetry):
    code, payload = SCENARIOS[scenario]
    (tmp_path / "index.py").write_text(code)
    environment = {"PYTHONDONTWRITEBYTECODE": "1", **ENVIRONMENTS[kind]}
    ours = await observe(running, python_argv, tmp_path, environment, payload, telemetry=telemetry)
    theirs = await observe(
        running,
        [python_argv[0], "-m", "awslambdaric", "index.handler"],
        tmp_path,
        {**environment, "PYTHONPATH": str(awslambdaric)},
        payload,
        telemetry=telemetry,
    )
    assert ours == theirs
