"""Which records of a stream a mapping's filter criteria keep. Pure."""

import base64
import binascii
from collections.abc import Callable, Sequence
from typing import Any

from stoker.events.filters import compile_filters, compile_text_filter
from stoker.events.stream_events import KINESIS
from stoker.services.streams import StreamRecord

RecordTest = Callable[[StreamRecord], bool]


def compile_record_filter(kind: str, patterns: Sequence[str]) -> RecordTest | None:
    """Whether a record is kept; None: every one is.

    Patterns see a record of DynamoDB as the event has it. Of Kinesis they see its data, decoded from base64
    and where it is a JSON object as such, beside its other members (developer guide, filtering with Kinesis).
    """
    if kind == KINESIS:
        keeps = compile_text_filter(patterns, "data")
        if keeps is None:
            return None
        return lambda record: keeps(_flat(record.event), _text(record.event))
    test = compile_filters(patterns)
    return None if test is None else lambda record: test(record.event)


def _flat(event: dict[str, Any]) -> dict[str, Any]:
    return {**event, **event.get("kinesis", {})}


def _text(event: dict[str, Any]) -> str | None:
    try:
        return base64.b64decode(event["kinesis"]["data"], validate=True).decode()
    except (binascii.Error, UnicodeDecodeError):
        return None
