"""Asks one of the host's resolvers one question, over UDP or TCP.

Each question has a random id and, from the kernel, a random port of its own, as an answer forged from outside
would have to guess both. Knows no sandboxes.
"""

import asyncio
import secrets
import socket
from typing import Final

from stoker.sandbox.dns_messages import (
    ID_BYTES,
    LENGTH_BYTES,
    MESSAGE_BYTES_MAX,
    framed,
    is_answer,
    with_id,
)

DNS_PORT: Final = 53
STRAYS_MAX: Final = 16
"""Messages that do not answer the question before the resolver is given up."""


class ResolverFailed(Exception):
    """The resolver talks, but not about the question."""


async def ask_by_datagram(address: str, port: int, query: bytes) -> bytes:
    """The answer under the query's own id. The caller sets the deadline.

    Raises:
        OSError: the resolver is not there.
        ResolverFailed: only strays came.
    """
    loop = asyncio.get_running_loop()
    message_id = secrets.token_bytes(ID_BYTES)
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as asking:
        asking.setblocking(False)
        asking.connect((address, port))  # others' datagrams do not arrive any more
        asking.send(with_id(query, message_id))
        for _ in range(STRAYS_MAX):
            answer = await loop.sock_recv(asking, MESSAGE_BYTES_MAX)
            if is_answer(answer, message_id):
                return with_id(answer, query[:ID_BYTES])
    raise ResolverFailed(address)


async def ask_by_stream(address: str, port: int, query: bytes) -> bytes:
    """The same over a TCP connection of its own.

    Raises:
        OSError: the resolver is not there.
        ResolverFailed: it hung up, or only strays came.
    """
    message_id = secrets.token_bytes(ID_BYTES)
    reader, writer = await asyncio.open_connection(address, port)
    try:
        writer.write(framed(with_id(query, message_id)))
        for _ in range(STRAYS_MAX):
            answer = await read_message(reader)
            if answer is None:
                break
            if is_answer(answer, message_id):
                return with_id(answer, query[:ID_BYTES])
    finally:
        writer.transport.abort()
    raise ResolverFailed(address)


async def read_message(reader: asyncio.StreamReader) -> bytes | None:
    """The next message of a stream, None at its end or when it is cut off."""
    try:
        length = int.from_bytes(await reader.readexactly(LENGTH_BYTES), "big")
        return await reader.readexactly(length)
    except asyncio.IncompleteReadError:
        return None
