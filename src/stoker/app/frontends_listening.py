"""One address for several processes: reserved by the service, listened on by each front end by itself."""

import contextlib
import socket


class SharedAddress:
    """``host:port``, bound once for each process (SO_REUSEPORT); the kernel spreads connections over them.

    The service holds the address without listening, so that nothing else can take it between two front ends.
    """

    def __init__(self, host: str, port: int) -> None:
        self._host = host
        self._port = port
        self._reserved: list[socket.socket] = []

    def reserve(self) -> None:
        """Take the address for this service. Raises OSError when somebody else has it."""
        try:
            for family, address in _resolved(self._host, self._port):
                self._reserved.append(_bound(family, address, share=False))
                # Only after the bind, which so fails if anybody has the address, sharing it or not; and let
                # nobody else bind it the way we just did, which left it open to whoever does not listen yet.
                self._reserved[-1].setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
                self._reserved[-1].setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 0)
        except BaseException:
            self.close()
            raise

    def bind(self) -> list[socket.socket]:
        """Sockets for one process; connections come once it listens on them."""
        return [_bound(reserved.family, reserved.getsockname(), share=True) for reserved in self._reserved]

    def close(self) -> None:
        """Let go of the address."""
        while self._reserved:
            self._reserved.pop().close()


def _resolved(host: str, port: int) -> list[tuple[int, tuple[object, ...]]]:
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    return list(dict.fromkeys((family, address) for family, _, _, _, address in found))


def _bound(family: int, address: object, *, share: bool) -> socket.socket:
    made = socket.socket(family, socket.SOCK_STREAM)
    with contextlib.ExitStack() as undo:
        undo.callback(made.close)
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if share:
            made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        if family == socket.AF_INET6:
            made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        made.bind(address)  # pyright: ignore[reportArgumentType]  (typeshed knows no common type)
        undo.pop_all()
    return made
