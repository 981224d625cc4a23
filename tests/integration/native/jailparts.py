"""The jail's C parts as a library in this process, and rooms: forked processes in namespaces of their own.

A room does one named thing at a time on request; it is how a test looks at the world from inside a sandbox.
"""

import contextlib
import ctypes
import json
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

SOURCES = Path(__file__).resolve().parents[3] / "native" / "jail"
FLAGS = ["-std=c17", "-O2", "-Wall", "-Wextra", "-Werror", "-Wshadow", "-fstack-protector-strong"]
CLONE_NEWNS, CLONE_NEWUSER, CLONE_NEWNET = 0x00020000, 0x10000000, 0x40000000
MS_BIND, MS_REC, MS_PRIVATE = 4096, 16384, 1 << 18
LIBC = ctypes.CDLL(None, use_errno=True)


def missing_programs(*names: str) -> list[str]:
    return [name for name in names if shutil.which(name, path="/usr/sbin:/usr/bin:/sbin:/bin") is None]


def build_library(parts: list[str], into: Path) -> Path:
    """Compile parts of the jail, as it is compiled, into one shared library."""
    library = into / f"lib{parts[0]}.so"
    sources = [str(SOURCES / f"{part}.c") for part in parts]
    subprocess.run(["cc", *FLAGS, "-fPIC", "-shared", "-o", str(library), *sources], check=True)
    return library


def checked(result: int) -> int:
    if result < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return result


def unshare(flags: int) -> None:
    checked(LIBC.unshare(flags))


def mount(source: str, target: str, flags: int) -> None:
    checked(LIBC.mount(source.encode(), target.encode(), None, ctypes.c_ulong(flags), None))


class Room:
    """A forked process that enters namespaces and answers requests until it is closed."""

    def __init__(self, enter: Callable[[], None], actions: dict[str, Callable[..., Any]]) -> None:
        self._here, there = socket.socketpair()
        self.pid = os.fork()
        if self.pid == 0:
            self._here.close()
            self._serve(there, enter, actions)
        there.close()
        self._answers = self._here.makefile("rb")
        self.ask("ready")

    def ask(self, action: str, *arguments: Any) -> Any:
        self._here.sendall(json.dumps([action, *arguments]).encode() + b"\n")
        line = self._answers.readline()
        if not line:
            raise RuntimeError(f"the room died during {action}")
        answer = json.loads(line)
        if "failed" in answer:
            raise RuntimeError(answer["failed"])
        return answer["value"]

    def close(self) -> None:
        # Said, not only hung up: later rooms hold copies of this descriptor.
        with contextlib.suppress(OSError):
            self._here.sendall(b"\n")
        self._answers.close()
        self._here.close()
        os.waitpid(self.pid, 0)

    @staticmethod
    def _serve(
        there: socket.socket, enter: Callable[[], None], actions: dict[str, Callable[..., Any]]
    ) -> None:
        try:
            enter()
            actions = {"ready": lambda: True, **actions}
            for line in iter(there.makefile("rb").readline, b"\n"):
                if not line:
                    break
                name, *arguments = json.loads(line)
                try:
                    answer = {"value": actions[name](*arguments)}
                except Exception as error:
                    answer = {"failed": repr(error)}
                there.sendall(json.dumps(answer).encode() + b"\n")
        except BaseException as error:
            sys.stderr.write(f"room: {error!r}\n")
        finally:
            os._exit(0)
