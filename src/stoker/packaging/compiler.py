"""Compiles Python sources one by one; its text is run by the interpreter of a runtime, not by Stoker's own.

Works with Python 3.8 and later, imports nothing of Stoker and trusts nothing it reads: it was confined before
it started. Standard input lists files below the working directory, numbered from 0. What compiles becomes
``OUT/<number>``, complete or not there at all; ``OUT/<number>.part`` says that the file was tried.
"""

import importlib.util
import marshal
import os
import sys
import warnings

UNCHECKED_HASH = 1
"""Flags of a ``.pyc`` that is used without a look at its source (PEP 552): the mounted tree never changes."""


def main() -> None:
    """``OUT FIRST MAX_BYTES MOUNT``: compile from number FIRST on until MAX_BYTES are written."""
    out, first, left_bytes, mount = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4]
    # What an import would print to the log, such as an unknown escape sequence, belongs to nobody here.
    warnings.simplefilter("ignore")
    sources = sys.stdin.buffer.read().split(b"\0")[:-1]
    for number in range(first, len(sources)):
        left_bytes -= _compile(os.fsdecode(sources[number]), os.path.join(out, str(number)), mount)
        if left_bytes < 0:
            return


def _compile(source: str, target: str, mount: str) -> int:
    """Returns the bytes written; 0 when the file does not compile, which its import will say."""
    part = os.open(target + ".part", os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        content = _compiled(source, os.path.join(mount, source))
        if os.write(part, content) != len(content):
            return 0
    except (Exception, RecursionError, MemoryError):
        return 0
    finally:
        os.close(part)
    os.rename(target + ".part", target)
    return len(content)


def _compiled(source: str, name: str) -> bytes:
    with open(os.open(source, os.O_RDONLY | os.O_NOFOLLOW), "rb") as stream:
        text = stream.read()
    code = compile(text, name, "exec", dont_inherit=True)
    head = importlib.util.MAGIC_NUMBER + UNCHECKED_HASH.to_bytes(4, "little")
    return head + importlib.util.source_hash(text) + marshal.dumps(code)


if __name__ == "__main__":
    main()
