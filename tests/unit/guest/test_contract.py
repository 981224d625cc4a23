"""The contract in Python is the one in C, and nothing that a guest sends gets further than its decoders."""

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stoker.sandbox.guest import contract
from stoker.sandbox.guest.contract import Answer, FrameKind, GuestBroken, Order, Place

HEADER = (Path(__file__).parents[3] / "native" / "guest" / "contract.h").read_text()


def _defined(name: str) -> int:
    match = re.search(rf"#define {name} \(?(\w+)( \* 1024u)?", HEADER)
    assert match, name
    return int(match[1].removesuffix("u"), 0) * (1024 if match[2] else 1)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("GUEST_VERSION", contract.VERSION),
        ("GUEST_MAGIC", contract.MAGIC),
        ("GUEST_PORT_CONTROL", contract.PORT_CONTROL),
        ("GUEST_PORT_OUTPUT", contract.PORT_OUTPUT),
        ("GUEST_PORT_TELEMETRY", contract.PORT_TELEMETRY),
        ("GUEST_PORT_RUNTIME", contract.PORT_RUNTIME),
        ("GUEST_PORT_SERVICE", contract.PORT_SERVICE),
        ("GUEST_CONNECTIONS_MAX", contract.CONNECTIONS_MAX),
        ("GUEST_BODY_BYTES_MAX", contract.BODY_BYTES_MAX),
        ("GUEST_REPLY_BYTES_MAX", contract.REPLY_BYTES_MAX),
        ("GUEST_CHANNELS_MAX", contract.CHANNELS_MAX),
        ("GUEST_FRAME_BYTES_MAX", contract.FRAME_BYTES_MAX),
        ("GUEST_WINDOW_BYTES", contract.WINDOW_BYTES),
    ],
)
def test_numbers_are_the_same_on_both_sides(name: str, value: int) -> None:
    assert _defined(name) == value


@pytest.mark.parametrize(
    ("prefix", "kinds"),
    [("GUEST_", Order), ("GUEST_", Answer), ("GUEST_", Place), ("GUEST_FRAME_", FrameKind)],
)
def test_kinds_are_the_same_on_both_sides(prefix: str, kinds: type[Order]) -> None:
    for kind in kinds:
        assert re.search(rf"\b{prefix}{kind.name} = {kind.value},", HEADER), kind


def test_a_record_comes_back_whole_however_it_was_cut() -> None:
    record = contract.RECORD.pack(contract.MAGIC, Answer.HELD, 7, 3) + b"abc"
    buffer = bytearray()
    for byte in record[:-1]:
        buffer.append(byte)
        assert contract.take_record(buffer) is None
    buffer += record[-1:] + b"rest"
    assert contract.take_record(buffer) == contract.Record(Answer.HELD, 7, b"abc")
    assert buffer == b"rest"


@given(st.binary(max_size=400))
def test_whatever_a_guest_sends_is_a_record_or_refused(data: bytes) -> None:
    buffer = bytearray(data)
    try:
        record = contract.take_record(buffer)
        for decode in (contract.decode_hello, contract.decode_done, contract.decode_memory):
            decode(record.body if record else data)
    except GuestBroken:
        return


def test_an_older_guest_is_told_apart() -> None:
    body = b"\2\0\0\0" + bytes(84)
    with pytest.raises(GuestBroken, match="build the guest again"):
        contract.decode_hello(body)
