"""One front-end process as the service sees it: started with a socket in hand, watched through its pidfd."""

import asyncio
import os
import socket
import subprocess
import sys

from stoker.app.frontends_listening import SharedAddress

COMMAND = (sys.executable, "-I", "-m", "stoker.app.frontends_main")
PASSED_ON = ("PATH", "HOME", "LANG", "LC_ALL", "TZ", "SSL_CERT_FILE", "TMPDIR")
"""All that a front end sees of the environment; what is secret in it stays here."""


class FrontEndProcess:
    """A child process. Never made by uvloop, which takes long to start one from a large process."""

    def __init__(self, process: "subprocess.Popen[bytes]") -> None:
        self._process = process
        self._pidfd = os.pidfd_open(process.pid)
        self._ended: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        asyncio.get_running_loop().add_reader(self._pidfd, self._reap)

    @property
    def pid(self) -> int:
        """Its number, while it lives and is not yet reaped."""
        return self._process.pid

    async def wait(self) -> int:
        """Its exit status (negative: a signal) once it has ended."""
        return await asyncio.shield(self._ended)

    def kill(self) -> None:
        """SIGKILL; nothing if it has ended."""
        if not self._ended.done():
            self._process.kill()

    def _reap(self) -> None:
        asyncio.get_running_loop().remove_reader(self._pidfd)
        os.close(self._pidfd)
        self._ended.set_result(self._process.wait())


def start_process(address: SharedAddress) -> tuple[FrontEndProcess, socket.socket]:
    """A front end that waits for its orders, and our end of the socket to it.

    The socket has no name and is nobody's but ours and the child's: holding it is the authority. Must run on
    the main thread, with whose end the kernel ends the child.
    """
    ours, theirs = socket.socketpair()
    try:
        listening = address.bind()
    except OSError:
        ours.close()
        theirs.close()
        raise
    descriptors = [each.fileno() for each in (theirs, *listening)]
    try:
        process = subprocess.Popen(
            [*COMMAND, str(os.getpid()), *map(str, descriptors)],
            stdin=subprocess.DEVNULL,
            env={name: os.environ[name] for name in PASSED_ON if name in os.environ},
            pass_fds=descriptors,
        )
    except OSError:
        ours.close()
        raise
    finally:
        for each in (theirs, *listening):
            each.close()
    return FrontEndProcess(process), ours
