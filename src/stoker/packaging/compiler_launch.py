"""Confines itself and becomes the compiler: ``python -m stoker.packaging.compiler_launch``.

Run by Stoker's own interpreter; the runtime's, which it execs, keeps the confinement and has no say in it.
"""

import os
import sys
from pathlib import Path

from stoker.packaging.confinement import confine_compiler, step_back

EXIT_UNCONFINED = 77
"""The host has no Landlock: sources are then left to be compiled in their sandbox."""

NICENESS = 10


COMMANDS = {
    "python": ("compiler.py", ("-I", "-S", "-c")),
    # Compiling needs one thread, and Node's own parser finds what V8 leaves out of its caches.
    "nodejs": ("compiler_node.cjs", ("--v8-pool-size=0", "--expose-internals", "--no-warnings", "-e")),
}
"""Per language the compiler's text, and the interpreter's arguments before it."""


def main() -> None:
    """``INTERPRETER TREE OUT FIRST MAX_BYTES MOUNT LANGUAGE``, with the list of sources as standard input."""
    interpreter, tree, out, first, max_bytes, mount, language = sys.argv[1:]
    name, arguments = COMMANDS[language]
    script = Path(__file__).with_name(name).read_text("utf-8")
    step_back(NICENESS)
    os.chdir(tree)
    if not confine_compiler(interpreter, tree, out, threads=language == "nodejs"):
        sys.exit(EXIT_UNCONFINED)
    # OpenSSL's settings cannot be read here, and that ends Node.js; that there are none does not.
    environment = {"PATH": os.defpath, "LC_ALL": "C.UTF-8", "OPENSSL_CONF": "/usr/nowhere/openssl.cnf"}
    command = [interpreter, *arguments, script, out, first, max_bytes, mount]
    os.execve(interpreter, command, environment)  # noqa: S606 - no shell is the point


if __name__ == "__main__":
    main()
