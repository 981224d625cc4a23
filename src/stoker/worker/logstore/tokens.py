"""Where reading goes on: a position among events of merged streams, as text that clients hand back. Pure."""

import re
import zlib

import msgspec

from stoker.services.logs import InvalidToken

_WIDTHS = (15, 10, 13, 18)
"""Digits of time, stream, segment and offset: 56 together, as CloudWatch's event ids have."""

_TOKEN = re.compile(r"([fb])/(\d{15})(\d{10})(\d{13})(\d{18})", re.ASCII)


class Position(msgspec.Struct, frozen=True):
    """The place of one event in the order of all: by time, then stream, then place in the stream."""

    timestamp_ms: int
    stream_id: int = 0
    segment: int = 0
    offset: int = 0

    @property
    def event_id(self) -> str:
        """56 digits whose order is the order of events."""
        values = (max(self.timestamp_ms, 0), self.stream_id, self.segment, self.offset)
        return "".join(f"{value:0{width}d}" for value, width in zip(values, _WIDTHS, strict=True))


def stream_id(name: str) -> int:
    """Tells the streams of a group apart; equal ids would only share their order."""
    return zlib.crc32(name.encode("utf-8", "surrogatepass"))


def encode(direction: str, position: Position) -> str:
    """``f/…`` or ``b/…`` and an event id: read on after, or before, this position."""
    return f"{direction}/{position.event_id}"


def decode(token: str) -> tuple[str, Position]:
    """Direction and position.

    Raises:
        InvalidToken: it was made up.
    """
    match = _TOKEN.fullmatch(token)
    if match is None:
        raise InvalidToken(token)
    direction, *values = match.groups()
    return direction, Position(*(int(value) for value in values))
