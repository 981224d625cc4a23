"""Starts the processes that read what others wrote, each with a SOCK_SEQPACKET pair on its descriptor 0."""

import os
import socket
import subprocess
from collections.abc import Sequence


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
