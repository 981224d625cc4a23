"""A small real DNS server for tests: every name is one address; names starting with `big` only fit TCP."""

import contextlib
import socket
import struct
import threading
import time

ADDRESS = "203.0.113.9"


def answer(query: bytes, *, truncate: bool) -> bytes:
    """An A record for the question, nothing for other types; or the truncated bit alone."""
    end = query.index(b"\0", 12) + 5
    question = query[12:end]
    is_a = question[-4:-2] == b"\0\x01"
    flags = 0x8380 if truncate else 0x8180
    count = 1 if is_a and not truncate else 0
    header = query[:2] + struct.pack(">HHHHH", flags, 1, count, 0, 0)
    record = b"\xc0\x0c" + struct.pack(">HHIH", 1, 1, 60, 4) + socket.inet_aton(ADDRESS)
    return header + question + record * count


def name_of(query: bytes) -> str:
    """The first label of the question."""
    return query[13 : 13 + query[12]].decode("ascii", "replace")


class FakeResolver:
    """Serves UDP and TCP until closed. Remembers the ids and ports that queries came with."""

    def __init__(self, address: str, port: int) -> None:
        self.seen: list[tuple[bytes, int]] = []
        self.tcp_connections = 0
        self._udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._udp.bind((address, port))
        self.port = self._udp.getsockname()[1]
        self._tcp = socket.create_server((address, self.port))
        for loop in (self._serve_udp, self._serve_tcp):
            threading.Thread(target=loop, daemon=True).start()

    def close(self) -> None:
        self._udp.close()
        self._tcp.close()

    def _serve_udp(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                query, peer = self._udp.recvfrom(65535)
                self.seen.append((query[:2], peer[1]))
                name = name_of(query)
                if name.startswith("silent"):
                    continue
                if name.startswith("forged"):  # as one who does not know the id would
                    wrong = bytes(byte ^ 0xFF for byte in query[:2])
                    self._udp.sendto(wrong + answer(query, truncate=True)[2:], peer)
                self._udp.sendto(answer(query, truncate=name.startswith("big")), peer)

    def _serve_tcp(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._tcp.accept()
                self.tcp_connections += 1
                threading.Thread(target=self._serve_stream, args=(client,), daemon=True).start()

    def _serve_stream(self, client: socket.socket) -> None:
        with client, contextlib.suppress(OSError, struct.error):
            stream = client.makefile("rwb")
            while True:
                (length,) = struct.unpack(">H", stream.read(2))
                query = stream.read(length)
                if name_of(query).startswith("silent"):
                    time.sleep(30)
                reply = answer(query, truncate=False)
                stream.write(struct.pack(">H", len(reply)) + reply)
                stream.flush()


def question(name: str, message_id: bytes = b"\x12\x34") -> bytes:
    """An A query."""
    labels = b"".join(bytes([len(part)]) + part.encode() for part in name.split("."))
    return message_id + struct.pack(">HHHHH", 0x0100, 1, 0, 0, 0) + labels + b"\0\0\x01\0\x01"
