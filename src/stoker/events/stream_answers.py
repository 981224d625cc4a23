"""What functions answer to batches of a stream: which record failed, the state of a window. Pure."""

from collections.abc import Sequence
from typing import Any, Final

import msgspec

from stoker.events.stream_shards import sequence_order

STATE_MAX_BYTES: Final = 1024 * 1024
"""Of a tumbling window's state; above it the window ends early (developer guide, tumbling windows)."""


def first_failed(payload: bytes, sequence_numbers: Sequence[str]) -> int | None:
    """The index of the first record that a function with ReportBatchItemFailures did not process; None: none.

    The lowest of those it names. What is malformed or names no record of the batch fails the whole batch;
    null, an empty object and an empty list are success (developer guide, batch item failures).
    """
    if payload.strip() in (b"", b"null", b'""'):
        return None
    try:
        answer = msgspec.json.decode(payload, type=_Answer)
    except (msgspec.DecodeError, RecursionError):
        return 0
    named = [one.item_identifier for one in answer.batch_item_failures or ()]
    if not named:
        return None
    places = {number: index for index, number in enumerate(sequence_numbers)}
    if any(name not in places for name in named):
        return 0
    return places[min(named, key=sequence_order)]


def window_state(payload: bytes) -> msgspec.Raw | None:
    """The state that a function with a tumbling window answered; None: it gave none, which is a failure."""
    try:
        answer = msgspec.json.decode(payload or b"null", type=_State)
        msgspec.json.decode(answer.state, type=dict[str, Any])
    except (msgspec.DecodeError, RecursionError):
        return None
    return answer.state


class _Failure(msgspec.Struct):
    item_identifier: str = msgspec.field(name="itemIdentifier")


class _Answer(msgspec.Struct):
    batch_item_failures: list[_Failure] | None = msgspec.field(name="batchItemFailures", default=None)


class _State(msgspec.Struct):
    state: msgspec.Raw
