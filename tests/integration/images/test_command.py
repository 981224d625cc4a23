"""``stoker image ...`` as a process, over the admin socket of a service in this one."""

import asyncio
import gzip
import json
import os
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from stoker.app.admin_server import AdminServer
from stoker.app.image_admin import LocalImageAdmin
from stoker.core.access import Access
from stoker.store.opening import open_metadata_database
from stoker.store.records import SqlRecords
from tests.images.layers import File
from tests.images.layout import layout_archive, write_image
from tests.integration.images.reading_store import Imports

LAYERS = [{"etc/motd": "hello"}, {"bin/app": File(os.urandom(3_000_000), mode=0o755)}]
CONFIG = {"Cmd": ["app.handler"], "Env": ["A=1"]}


class NoAdmin:
    """What is asked beside images."""

    def access(self) -> Access:
        raise NotImplementedError

    host = sandboxes = keys = rotate_keys = retire_keys = access


class Running:
    def __init__(self, data: Path, imports: Imports) -> None:
        self.data = data
        self.imports = imports

    async def stoker(self, *arguments: object, given: bytes | None = None) -> tuple[int, str, str]:
        """Exit code, standard output and standard error."""
        command = [
            sys.executable,
            "-m",
            "stoker.cli.main",
            "image",
            *map(str, arguments),
            "--data",
            str(self.data),
        ]
        process = await asyncio.create_subprocess_exec(
            *command,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        out, err = await process.communicate(given)
        assert process.returncode is not None
        return process.returncode, out.decode(), err.decode()

    @property
    def spooled(self) -> list[str]:
        return os.listdir(self.data / "spool")


@pytest.fixture
async def running(tmp_path: Path) -> AsyncIterator[Running]:
    data = tmp_path / "data"
    for folder in ("run", "spool", "blobs"):
        (data / folder).mkdir(parents=True)
    database = await open_metadata_database(data, "")
    imports = Imports(SqlRecords(database), data / "blobs")
    images = LocalImageAdmin(imports.importer, imports.names, data / "spool")
    admin: Any = NoAdmin()
    server = AdminServer(admin, images, frozenset({os.getuid()}))
    await server.start(data / "run" / "admin.sock")
    yield Running(data, imports)
    await server.close()
    await database.close()


async def test_a_folder_a_tar_a_packed_tar_and_standard_input(running: Running, tmp_path: Path) -> None:
    digest = write_image(tmp_path / "layout", LAYERS, CONFIG)
    tar = layout_archive(tmp_path / "layout", tmp_path / "image.tar")
    packed = tmp_path / "image.tar.gz"
    packed.write_bytes(gzip.compress(tar.read_bytes(), 1))
    for number, path in enumerate((tmp_path / "layout", tar, packed, "-")):
        given = tar.read_bytes() if path == "-" else None
        code, out, err = await running.stoker("import", path, f"app:{number}", "--json", given=given)
        assert code == 0, err
        assert json.loads(out)["digests"] == {"x86_64": digest}
        assert await running.imports.resolve(f"local/app:{number}") == digest
    assert running.spooled == []


async def test_listing_inspecting_and_removing(running: Running, tmp_path: Path) -> None:
    assert "no image" in (await running.stoker("list"))[2]
    digest = write_image(tmp_path / "layout", LAYERS, CONFIG)
    code, _, err = await running.stoker("import", tmp_path / "layout", "team/app:1")
    assert code == 0
    assert digest in err
    code, out, _ = await running.stoker("list")
    assert "local/team/app:1" in out
    assert digest[:19] in out
    inspected = json.loads((await running.stoker("inspect", "team/app:1"))[1])["x86_64"]
    assert inspected["digest"] == digest
    assert inspected["configuration"]["config"] == CONFIG
    assert (await running.stoker("remove", "team/app:1"))[0] == 0
    assert json.loads((await running.stoker("list", "--json"))[1]) == []
    code, _, err = await running.stoker("remove", "team/app:1")
    assert code == 1
    assert "team/app:1" in err


@pytest.mark.parametrize(
    ("content", "name", "says"),
    [
        (b"hello" * 1000, "app", "no tar"),
        (b"\0" * 10240, "app", "neither"),
        (b"\x1f\x8b" + b"x" * 1000, "app", "unpacked"),
        (b"\xfd7zXZ\0" + b"x" * 1000, "app", "unpack the archive first"),
        (b"x" * 5_000_000, "App", "'App'"),
        (b"x", "app:", "tag"),
    ],
)
async def test_what_is_refused_says_why_and_leaves_nothing(
    running: Running, tmp_path: Path, content: bytes, name: str, says: str
) -> None:
    (tmp_path / "archive").write_bytes(content)
    code, _, err = await running.stoker("import", tmp_path / "archive", name)
    assert code == 1
    assert says in err
    assert "Traceback" not in err
    assert running.spooled == []
    assert await running.imports.names.names() == []


async def test_a_folder_that_is_no_layout(running: Running, tmp_path: Path) -> None:
    code, _, err = await running.stoker("import", tmp_path, "app")
    assert code == 1
    assert "index.json" in err


async def test_a_client_that_goes_away_leaves_nothing(running: Running) -> None:
    reader, writer = await asyncio.open_unix_connection(running.data / "run" / "admin.sock")
    writer.write(b"POST /image?name=app HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n")
    for _ in range(40):
        writer.write(b"10000\r\n" + b"\0" * 65536 + b"\r\n")
    await writer.drain()
    assert (await reader.readline()).startswith(b"HTTP/1.1 200")
    writer.close()
    await asyncio.sleep(0.3)
    descriptors = [os.readlink(f"/proc/self/fd/{name}") for name in os.listdir("/proc/self/fd")
                   if os.path.lexists(f"/proc/self/fd/{name}")]  # fmt: skip
    assert not [path for path in descriptors if "/spool/" in path]
