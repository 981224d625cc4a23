"""Where the compiled programs of ``native/`` are on this host."""

import os
from pathlib import Path

from stoker.core.errors import StokerError

PROGRAMS = ("stoker-supervisor", "stoker-jail", "stoker-init")


class NativeMissing(StokerError):
    """The compiled programs are not there."""


def native_directory() -> Path:
    """The folder of the compiled programs: STOKER_NATIVE_DIR, the installed package, or the checkout.

    Raises:
        NativeMissing: saying where it looked and how to build them.
    """
    package = Path(__file__).resolve().parent.parent
    named = os.environ.get("STOKER_NATIVE_DIR")
    candidates = [Path(named)] if named else [package / "_native", package.parent.parent / "native" / "bin"]
    for candidate in candidates:
        if all((candidate / program).exists() for program in PROGRAMS):
            return candidate
    looked = ", ".join(str(candidate) for candidate in candidates)
    raise NativeMissing(f"stoker's native programs are not in {looked}; build them with: make -C native")


def zygote_module() -> Path | None:
    """The native module by which a Python runtime forks into sandboxes, where it is built.

    Raises:
        NativeMissing: the programs are not there.
    """
    module = native_directory() / "stoker-zygote.so"
    return module if module.exists() else None
