"""What is wrong with a request head, beyond what httptools refuses by itself. Pure."""

from typing import Final

from stoker.http.body import Headers
from stoker.http.limits import HEADER_OVERHEAD_BYTES
from stoker.http.messages import header_value

# Bits of the headers that matter for framing and security.
HOST: Final = 1
LENGTH: Final = 2
CODING: Final = 4
AUTHORIZATION: Final = 8
CONNECTION: Final = 16
EXPECT: Final = 32
WATCHED: Final = {
    b"host": HOST,
    b"content-length": LENGTH,
    b"transfer-encoding": CODING,
    b"authorization": AUTHORIZATION,
    b"connection": CONNECTION,
    b"expect": EXPECT,
}
ONCE: Final = HOST | LENGTH | CODING | AUTHORIZATION | EXPECT
UNUSUAL: Final = CODING | CONNECTION | EXPECT

METHODS: Final = frozenset((b"GET", b"HEAD", b"POST", b"PUT", b"DELETE", b"PATCH", b"OPTIONS"))


class Refused(Exception):
    """The input is answered with ``status`` and the connection ends."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status = status
        self.reason = reason


def field_bytes(headers: Headers) -> int:
    """The size that ``ServerLimits.max_header_bytes`` limits."""
    return sum(len(name) + len(value) + HEADER_OVERHEAD_BYTES for name, value in headers)


def framing_fault(headers: Headers, seen: int, *, old_peer: bool) -> Refused | None:
    """Transfer codings and expectations; ``seen`` holds header bits, ``old_peer`` means HTTP/1.0."""
    if seen & CODING:
        coding = header_value(headers, b"transfer-encoding") or b""
        if coding.lower() != b"chunked" or old_peer or seen & LENGTH:
            return Refused(400, "The Transfer-Encoding is not supported.")
    if seen & EXPECT:
        expected = header_value(headers, b"expect") or b""
        if expected.lower() != b"100-continue":
            return Refused(417, "The expectation cannot be met.")
    return None


def target_fault(method: bytes, target: bytes, headers: Headers) -> Refused | None:
    """A target that is no plain path: ``*`` goes with OPTIONS, an absolute one must name the same host."""
    if target == b"*" and method == b"OPTIONS":
        return None
    scheme, mark, rest = target.partition(b"://")
    if not mark or scheme.lower() not in (b"http", b"https") or b"#" in target:
        return Refused(400, "The request target is malformed.")
    # RFC 9112 3.2.2 lets the target win over Host; who sends two different names is up to something.
    authority = rest.partition(b"/")[0].partition(b"?")[0]
    host = header_value(headers, b"host") or authority
    if not authority or authority.lower() != host.lower():
        return Refused(400, "The request target and the Host header differ.")
    return None
