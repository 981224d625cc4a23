"""The host's resolvers, as resolv.conf names them now.

Knows resolv.conf(5) as far as `nameserver` goes, and never asks a resolver anything.
"""

import ipaddress
from pathlib import Path
from typing import Final

RESOLV_CONF: Final = Path("/etc/resolv.conf")
RESOLVERS_MAX: Final = 3
"""As many as glibc reads (MAXNS)."""
RESOLV_CONF_BYTES_MAX: Final = 64 * 1024
DEFAULT: Final = ("127.0.0.1",)
"""Where a file without a nameserver, or no file, sends glibc."""


def parse_resolv_conf(text: str) -> tuple[str, ...]:
    """Addresses of the resolvers in order; IPv6 ones may carry a scope (``fe80::1%eth0``)."""
    found: list[str] = []
    for line in text.splitlines():
        words = line.split()
        if len(words) >= 2 and words[0] == "nameserver" and _is_address(words[1]):
            found.append(words[1])
    return tuple(found[:RESOLVERS_MAX]) or DEFAULT


class Resolvers:
    """Reads the file again when it was changed or replaced: a laptop changes networks."""

    def __init__(self, path: Path = RESOLV_CONF) -> None:
        self._path = path
        self._seen: tuple[int, int, int] | None = None
        self._addresses = DEFAULT

    def current(self) -> tuple[str, ...]:
        """The addresses to ask, best first; never empty.

        Raises:
            OSError: the file is there and cannot be read.
        """
        try:
            status = self._path.stat()
        except FileNotFoundError:
            self._seen, self._addresses = None, DEFAULT
            return DEFAULT
        seen = (status.st_ino, status.st_mtime_ns, status.st_size)
        if seen != self._seen:
            with self._path.open("rb") as file:
                text = file.read(RESOLV_CONF_BYTES_MAX).decode("utf-8", "replace")
            self._seen, self._addresses = seen, parse_resolv_conf(text)
        return self._addresses


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True
