"""Starts the processes that read what others wrote, each with a SOCK_SEQPACKET pair on its descriptor 0."""

import os
import signal
import socket
import subprocess
from collections.abc import Sequence
from typing import Final

_END_WAIT_S: Final = 1.0
"""Its socket is closed a moment before it can be waited for."""


def spawn(command: Sequence[str], **variables: str) -> tuple[subprocess.Popen[bytes], socket.socket]:
    """The process and our end, which does not block; it inherits no more of the environment than it needs.

    To be called in a thread: uvloop's own spawn blocks the loop for the time of a fork.

    Raises:
        OSError: it does not start; nothing is left.
    """
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with theirs:
        ours.setblocking(False)
        try:
            process = subprocess.Popen(
                command,
                stdin=theirs.fileno(),
                stdout=subprocess.DEVNULL,
                env={"PATH": os.defpath, "LC_ALL": "C.UTF-8", **variables},
                cwd="/",
            )
        except OSError:
            ours.close()
            raise
    return process, ours


def end_of(process: subprocess.Popen[bytes]) -> str:
    """What to say of a process whose socket ended; waits for it a moment."""
    try:
        status = process.wait(_END_WAIT_S)
    except subprocess.TimeoutExpired:
        return "closed its socket"
    if status == -signal.SIGSYS:
        return "was ended for a system call that it never needs: what it read may have taken it over"
    return f"died of signal {-status}" if status < 0 else f"died with status {status}"
