"""What a relay needs of a DNS message: its id, and whether it asks or answers (RFC 1035, 4.1.1).

Pure. Never looks at names or records, so there is nothing in them to get wrong.
"""

from typing import Final

HEADER_BYTES: Final = 12
MESSAGE_BYTES_MAX: Final = 65535
LENGTH_BYTES: Final = 2
"""Over TCP a message comes after its length (RFC 1035, 4.2.2)."""
ID_BYTES: Final = 2
_ANSWER_BIT: Final = 0x80
_KEPT_BITS: Final = 0x79
"""Opcode and recursion desired, which an answer repeats."""
_SERVER_FAILURE: Final = 2


def is_query(message: bytes) -> bool:
    """Long enough to be one, and no answer: two relays must not talk to each other for ever."""
    return len(message) >= HEADER_BYTES and not message[2] & _ANSWER_BIT


def is_answer(message: bytes, message_id: bytes) -> bool:
    """Whether it answers the query that was sent with this id."""
    return (
        len(message) >= HEADER_BYTES and bool(message[2] & _ANSWER_BIT) and message[:ID_BYTES] == message_id
    )


def with_id(message: bytes, message_id: bytes) -> bytes:
    """The same message under another id."""
    return message_id + message[ID_BYTES:]


def server_failure(query: bytes) -> bytes:
    """SERVFAIL with the query's own question, never longer than the query: no amplifier."""
    flags = bytes((query[2] & _KEPT_BITS | _ANSWER_BIT, _SERVER_FAILURE))
    return query[:ID_BYTES] + flags + query[ID_BYTES + len(flags) :]


def framed(message: bytes) -> bytes:
    """The message as TCP carries it."""
    return len(message).to_bytes(LENGTH_BYTES, "big") + message
