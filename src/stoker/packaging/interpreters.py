"""The interpreters on this host for which code is compiled ahead, and what their compiled code belongs to.

Blocks: to be asked in a thread, or for what was asked before.
"""

import os
import re
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Final

from stoker.packaging.bytecode_tree import Dialect
from stoker.packaging.compile_job import CompilingFailed

_PROBE_TIMEOUT_S: Final = 10.0
_PROBE: Final = "import sys, importlib.util as u; print(sys.implementation.cache_tag, u.MAGIC_NUMBER.hex())"
_PROBED: Final = re.compile(r"([a-z0-9-]{1,40}) ([0-9a-f]{8})\n")


class Interpreters:
    """``find`` gives the program that runs a runtime, None where nothing is compiled; asked once for each."""

    def __init__(self, find: Callable[[str], Path | None]) -> None:
        self._find = find
        self._known: dict[str, Path | None] = {}
        self._dialects: dict[Path, Dialect] = {}

    def of(self, runtime: str) -> Path | None:
        """The program of a runtime."""
        if runtime not in self._known:
            self._known[runtime] = self._find(runtime)
        return self._known[runtime]

    def dialect(self, interpreter: Path) -> Dialect:
        """What byte-code of a Python belongs to.

        Raises:
            CompilingFailed: it does not run.
        """
        if interpreter not in self._dialects:
            self._dialects[interpreter] = _probe(interpreter)
        return self._dialects[interpreter]


def is_node(runtime: str) -> bool:
    return runtime.startswith("nodejs")


def is_python(runtime: str | None) -> bool:
    return runtime is not None and runtime.startswith("python")


def _probe(interpreter: Path) -> Dialect:
    try:
        answer = subprocess.run(
            [str(interpreter), "-I", "-S", "-c", _PROBE],
            capture_output=True,
            text=True,
            timeout=_PROBE_TIMEOUT_S,
            env={"PATH": os.defpath},
            check=True,
        ).stdout
    except subprocess.SubprocessError as problem:
        raise CompilingFailed(f"{interpreter} does not run: {problem}") from problem
    match = _PROBED.fullmatch(answer)
    if match is None:
        raise CompilingFailed(f"{interpreter} does not say what its byte-code is")
    return Dialect(match[1], bytes.fromhex(match[2]))
