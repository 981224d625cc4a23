"""The client of Firecracker's API: its records are the description's, and no server can hurt it."""

import asyncio
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
import yaml

from stoker.sandbox.firecracker import records as fc
from stoker.sandbox.firecracker.api import FirecrackerApi
from stoker.sandbox.firecracker.faults import TooOld, VmmNonsense, VmmRefused, VmmTimeout, VmmUnreachable
from tests.unit.sandbox.firecracker_description import DEFINITIONS, STRICTER

Answer = Callable[[bytes, asyncio.StreamWriter], Awaitable[None]]


class Server:
    """Answers each request with what the test says; keeps what was asked."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.asked: list[bytes] = []
        self.answer: bytes | None = b"HTTP/1.1 204 \r\nServer: x\r\nConnection: keep-alive\r\n\r\n"

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while head := await reader.readuntil(b"\r\n\r\n"):
            lines = head.lower().split(b"\r\n")
            size = next((int(line[15:]) for line in lines if line.startswith(b"content-length:")), 0)
            self.asked.append(head + await reader.readexactly(size))
            if self.answer is not None:
                writer.write(self.answer)


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[Server]:
    made = Server(tmp_path / "api.sock")

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await made.serve(reader, writer)
        except asyncio.IncompleteReadError:
            writer.close()

    listening = await asyncio.start_unix_server(serve, made.path)
    yield made
    listening.close()


def _json(status: str, body: bytes) -> bytes:
    head = f"HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    return head.encode() + body


@pytest.mark.parametrize("name", sorted(DEFINITIONS))
def test_records_are_those_of_the_description(name: str) -> None:
    record, required, optional = DEFINITIONS[name]
    fields = msgspec.structs.fields(record)
    names = {field.encode_name for field in fields}
    assert names <= required | optional
    assert {field.encode_name for field in fields if field.required} - STRICTER == required


def test_the_description_itself_says_so() -> None:
    given = os.environ.get("STOKER_TEST_FIRECRACKER_OPENAPI")
    if not given:
        pytest.skip("Firecracker's OpenAPI file: name it in STOKER_TEST_FIRECRACKER_OPENAPI")
    definitions: dict[str, Any] = yaml.safe_load(Path(given).read_text())["definitions"]
    for name, (_, required, optional) in DEFINITIONS.items():
        assert set(definitions[name].get("required", ())) == required, name
        assert set(definitions[name]["properties"]) == required | optional, name


async def test_what_is_sent(server: Server) -> None:
    async with FirecrackerApi(server.path) as api:
        await api.put_machine_config(fc.MachineConfig(vcpu_count=2, mem_size_mib=512))
        await api.pause()
        await api.put_drive(
            fc.Drive(drive_id="code", is_root_device=False, path_on_host="/f1", is_read_only=True)
        )
    first, second, third = server.asked
    assert first.startswith(b"PUT /machine-config HTTP/1.1\r\n")
    assert first.endswith(b'\r\n\r\n{"vcpu_count":2,"mem_size_mib":512}')
    assert second.startswith(b"PATCH /vm ")
    assert second.endswith(b'{"state":"Paused"}')
    assert third.startswith(b"PUT /drives/code ")


async def test_refusals_carry_the_fault(server: Server) -> None:
    server.answer = _json("400 ", b'{"fault_message":"no kernel"}')
    async with FirecrackerApi(server.path) as api:
        with pytest.raises(VmmRefused, match="no kernel") as caught:
            await api.start()
    assert (caught.value.status, caught.value.fault) == (400, "no kernel")


async def test_a_fault_is_cut(server: Server) -> None:
    server.answer = _json("400 ", b'{"fault_message":"' + b"x" * 100_000 + b'"}')
    async with FirecrackerApi(server.path) as api:
        with pytest.raises(VmmRefused) as caught:
            await api.start()
    assert len(caught.value.fault) == 500


@pytest.mark.parametrize(
    "answer",
    [
        b"220 mail ESMTP\r\n\r\n",
        _json("200 OK", b"[]"),
        _json("200 OK", b'{"id":1}'),
        _json("200 OK", b"\xff\xfe"),
        _json("400 ", b"<html>"),
        _json("500 ", b"{}"),
        b"HTTP/1.1 200 OK\r\nX: " + b"a" * 10_000 + b"\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
    ],
)
async def test_nonsense_is_called_so(server: Server, answer: bytes) -> None:
    server.answer = answer
    async with FirecrackerApi(server.path) as api:
        with pytest.raises(VmmNonsense):
            await api.describe()


async def test_an_endless_answer_is_cut(server: Server) -> None:
    server.answer = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + b"fffff\r\n" + b" " * 0xFFFFF
    async with FirecrackerApi(server.path) as api:
        with pytest.raises(VmmNonsense):
            await api.describe()


async def test_a_silent_server_is_given_up(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stoker.sandbox.firecracker.api.CALL_TIMEOUT_S", 0.05)
    server.answer = None
    async with FirecrackerApi(server.path) as api:
        with pytest.raises(VmmTimeout):
            await api.describe()


async def test_nobody_there(tmp_path: Path) -> None:
    async with FirecrackerApi(tmp_path / "none.sock") as api:
        with pytest.raises(VmmUnreachable):
            await api.describe()


@pytest.mark.parametrize("text", ["", "../vm", "a/b", "ä", "a b", "a?x=1"])
async def test_ids_cannot_leave_their_path(server: Server, text: str) -> None:
    async with FirecrackerApi(server.path) as api:
        with pytest.raises(VmmRefused):
            await api.patch_drive(fc.DriveUpdate(drive_id=text))
    assert server.asked == []


async def test_an_old_firecracker_is_not_asked_for_what_is_new(server: Server) -> None:
    load = fc.SnapshotLoad(
        snapshot_path="/s",
        mem_backend=fc.MemoryBackend(backend_type=fc.BackendType.FILE, backend_path="/m"),
        vsock_override=fc.VsockOverride(uds_path="/v"),
    )
    async with FirecrackerApi(server.path, (1, 12, 1)) as api:
        with pytest.raises(TooOld, match=r"vsock_override needs Firecracker 1\.17"):
            await api.load_snapshot(load)
        with pytest.raises(TooOld, match=r"1\.14"):
            await api.put_serial(fc.Serial(serial_out_path="/x"))
        assert server.asked == []
        api.version = (1, 17, 0)
        await api.load_snapshot(load)
    assert b'"vsock_override":{"uds_path":"/v"}' in server.asked[0]


@pytest.mark.parametrize(("text", "version"), [("1.12.1", (1, 12, 1)), ("v1.17.0-dev", (1, 17, 0))])
async def test_versions(server: Server, text: str, version: fc.Version) -> None:
    server.answer = _json("200 OK", b'{"firecracker_version":"%s"}' % text.encode())
    async with FirecrackerApi(server.path) as api:
        assert await api.get_version() == version
        assert api.version == version


@pytest.mark.parametrize(
    ("text", "problem"), [("1.11.9", TooOld), ("1.x.1", VmmNonsense), ("9" * 99, VmmNonsense)]
)
async def test_versions_that_will_not_do(server: Server, text: str, problem: type[Exception]) -> None:
    server.answer = _json("200 OK", b'{"firecracker_version":"%s"}' % text.encode())
    async with FirecrackerApi(server.path) as api:
        with pytest.raises(problem):
            await api.get_version()
