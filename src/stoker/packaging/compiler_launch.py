"""Confines itself and becomes the compiler: ``python -m stoker.packaging.compiler_launch``.

Run by Stoker's own interpreter; the runtime's, which it execs, keeps the confinement and has no say in it.
"""

import os
import sys
from pathlib import Path

from stoker.packaging.confinement import confine_compiler

EXIT_UNCONFINED = 77
"""The host has no Landlock: sources are then left to be compiled in their sandbox."""

NICENESS = 10


def main() -> None:
    """``INTERPRETER TREE OUT FIRST MAX_BYTES MOUNT``, with the list of sources as standard input."""
    interpreter, tree, out, *rest = sys.argv[1:]
    script = Path(__file__).with_name("compiler.py").read_text("utf-8")
    os.nice(NICENESS)
    os.chdir(tree)
    if not confine_compiler(interpreter, tree, out):
        sys.exit(EXIT_UNCONFINED)
    environment = {"PATH": os.defpath, "LC_ALL": "C.UTF-8"}
    os.execve(interpreter, [interpreter, "-I", "-S", "-c", script, out, *rest], environment)  # noqa: S606 - no shell is the point


if __name__ == "__main__":
    main()
