"""Archives as skopeo, umoci and buildah write them, and what is imported from them."""

import asyncio
import gzip
import hashlib
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from stoker.packaging.oci import documents
from stoker.packaging.oci.archive import ImageArchive
from stoker.packaging.oci.references import parse_local_name, parse_reference
from stoker.packaging.oci.source import ImageManifest
from stoker.services.images import ImageRefused
from stoker.store.opening import open_metadata_database
from stoker.store.records import SqlRecords
from tests.images.layers import File
from tests.images.layout import layout_archive, write_image, write_index
from tests.images.registries import program
from tests.integration.images.reading_store import Imports

LAYERS = [{"etc/motd": "hello"}, {"bin/app": File(b"#!/bin/sh\n", mode=0o755), "data": os.urandom(100_000)}]
CONFIG = {"Cmd": ["app.handler"], "Env": ["A=1"]}


def run(*command: object) -> bytes:
    return subprocess.run([str(part) for part in command], check=True, capture_output=True, timeout=60).stdout


class OpenArchive:
    """An archive read from a file, closed with the test."""

    def __init__(self, file: Path) -> None:
        self.descriptor = os.open(file, os.O_RDONLY)
        self.archive = ImageArchive(self.descriptor)
        self.archive.read()

    def manifest(self, name: str | None = None, architecture: str = "x86_64") -> ImageManifest:
        image = self.archive.select(name)
        return self.archive.manifest(parse_local_name("a").at(image.digest), architecture)

    def layers(self, manifest: ImageManifest, folder: Path) -> list[str]:
        """The diff ids of the layers as they are copied out."""
        found = []
        for number, layer in enumerate(manifest.layers):
            file = folder / f"{manifest.digest[7:15]}-{number}"
            self.archive.copy(layer.blob, file)
            content = file.read_bytes()
            tar = gzip.decompress(content) if layer.compression == "gzip" else content
            found.append("sha256:" + hashlib.sha256(tar).hexdigest())
        return found


def test_a_layout_in_a_tar(tmp_path: Path) -> None:
    digest = write_image(tmp_path / "layout", LAYERS, CONFIG)
    opened = OpenArchive(layout_archive(tmp_path / "layout", tmp_path / "image.tar"))
    manifest = opened.manifest()
    assert manifest.digest == digest
    assert opened.layers(manifest, tmp_path) == [layer.diff_id for layer in manifest.layers]


@pytest.mark.parametrize("kind", ["oci-archive", "docker-archive"])
def test_archives_of_skopeo(tmp_path: Path, kind: str) -> None:
    write_image(tmp_path / "layout", LAYERS, CONFIG)
    file = tmp_path / "image.tar"
    run(
        program("skopeo"),
        "--insecure-policy",
        "copy",
        "-q",
        f"oci:{tmp_path / 'layout'}:latest",
        f"{kind}:{file}:app:1",
    )
    opened = OpenArchive(file)
    manifest = opened.manifest()
    original = OpenArchive(layout_archive(tmp_path / "layout", tmp_path / "layout.tar")).manifest()
    assert opened.layers(manifest, tmp_path) == [layer.diff_id for layer in original.layers]
    if kind == "oci-archive":
        raw = run(program("skopeo"), "inspect", "--raw", f"oci-archive:{file}")
        assert documents.digest_of(raw) == manifest.digest


def test_a_layout_of_umoci(tmp_path: Path) -> None:
    umoci = program("umoci")
    layout, added = tmp_path / "layout", tmp_path / "file"
    added.write_text("by umoci")
    run(umoci, "init", "--layout", layout)
    run(umoci, "new", "--image", f"{layout}:app")
    run(umoci, "insert", "--rootless", "--image", f"{layout}:app", added, "/file")
    run(
        umoci,
        "config",
        "--image",
        f"{layout}:app",
        "--config.cmd",
        "app.handler",
        "--os",
        "linux",
        "--architecture",
        "amd64",
    )
    opened = OpenArchive(layout_archive(layout, tmp_path / "image.tar"))
    manifest = opened.manifest("app")
    assert b"app.handler" in manifest.config_content
    assert opened.layers(manifest, tmp_path) == [layer.diff_id for layer in manifest.layers]


def test_an_image_of_buildah(tmp_path: Path) -> None:
    buildah = program("buildah")
    if os.geteuid() != 0:
        pytest.skip("buildah from scratch needs root here")
    storage = ("--storage-driver", "vfs", "--root", tmp_path / "store", "--runroot", tmp_path / "run")
    (tmp_path / "file").write_text("by buildah")
    container = run(buildah, *storage, "from", "scratch").decode().strip()
    run(buildah, *storage, "copy", container, tmp_path / "file", "/file")
    run(buildah, *storage, "config", "--cmd", "app.handler", "--arch", "amd64", container)
    layout = tmp_path / "layout"
    run(buildah, *storage, "commit", "-q", container, f"oci:{layout}:app")
    opened = OpenArchive(layout_archive(layout, tmp_path / "image.tar"))
    manifest = opened.manifest()
    assert opened.layers(manifest, tmp_path) == [layer.diff_id for layer in manifest.layers]


def test_one_of_several_images_has_to_be_named(tmp_path: Path) -> None:
    first = write_image(tmp_path / "layout", LAYERS[:1], tag="one")
    write_image(tmp_path / "layout", LAYERS, tag="two")
    opened = OpenArchive(layout_archive(tmp_path / "layout", tmp_path / "image.tar"))
    assert opened.manifest("one").digest == first
    with pytest.raises(ImageRefused, match="one, two"):
        opened.manifest()
    with pytest.raises(ImageRefused, match="one, two"):
        opened.manifest("three")


@pytest.fixture
async def imports(tmp_path: Path) -> Any:
    database = await open_metadata_database(tmp_path, "")
    (tmp_path / "blobs").mkdir()
    yield Imports(SqlRecords(database), tmp_path / "blobs")
    await database.close()


async def test_an_imported_image_has_a_name(imports: Imports, tmp_path: Path) -> None:
    digest = write_image(tmp_path / "layout", LAYERS, CONFIG)
    file = layout_archive(tmp_path / "layout", tmp_path / "image.tar")
    name = parse_local_name("team/app:1")
    imported = await imports.importer.take_in(file, name)
    assert [(image.architecture, image.digest) for image in imported.images] == [("x86_64", digest)]
    assert imports.store.admitted == [("000000000000", digest)]
    assert await imports.resolve("local/team/app:1") == digest
    assert await imports.resolve(f"local/team/app@{digest}") == digest
    assert await imports.names.roots() == {("000000000000", digest)}
    assert [str(reference) for reference, _ in await imports.names.names()] == ["local/team/app:1"]
    with pytest.raises(ImageRefused, match="arm64") as refused:
        await imports.resolve("local/team/app:1", "arm64")
    assert refused.value.kind == "architecture"
    assert await imports.names.remove(name)
    assert not await imports.names.remove(name)
    assert await imports.names.roots() == set()
    with pytest.raises(ImageRefused) as refused:
        await imports.resolve("local/team/app:1")
    assert refused.value.kind == "missing"


async def test_every_architecture_that_lambda_knows_is_imported(imports: Imports, tmp_path: Path) -> None:
    layout = tmp_path / "layout"
    amd64 = write_image(layout, LAYERS, tag=None)
    arm64 = write_image(layout, LAYERS[:1], tag=None, architecture="arm64", variant="v8")
    riscv = write_image(layout, LAYERS[:1], tag=None, architecture="riscv64")
    write_index(layout, {"riscv64": riscv, "arm64/v8": arm64, "amd64": amd64})
    await imports.importer.take_in(layout_archive(layout, tmp_path / "image.tar"), parse_local_name("app"))
    assert await imports.resolve("local/app") == amd64
    assert await imports.resolve("local/app:latest", "arm64") == arm64
    assert {digest for _, digest in imports.store.admitted} == {amd64, arm64}


async def test_importing_again_moves_the_name(imports: Imports, tmp_path: Path) -> None:
    name = parse_local_name("app")
    for content in ("one", "two"):
        digest = write_image(tmp_path / content, [{"a": content}])
        await imports.importer.take_in(layout_archive(tmp_path / content, tmp_path / f"{content}.tar"), name)
        assert await imports.resolve("local/app") == digest
    assert len(await imports.names.names()) == 1


async def test_two_imports_of_one_image_do_not_end_each_other(imports: Imports, tmp_path: Path) -> None:
    digest = write_image(tmp_path / "layout", LAYERS)
    file = layout_archive(tmp_path / "layout", tmp_path / "image.tar")
    first, second = OpenArchive(file).archive, OpenArchive(file).archive
    imports.names.open(digest, first)
    imports.names.open(digest, second)
    imports.names.close(second)
    manifest = await imports.names.manifest(parse_reference(f"local/a@{digest}"), None)
    await imports.names.blob(manifest, manifest.layers[0].blob, tmp_path / "layer")
    assert (tmp_path / "layer").stat().st_size == manifest.layers[0].blob.size_bytes
    imports.names.close(first)
    with pytest.raises(ImageRefused) as refused:
        await imports.names.blob(manifest, manifest.layers[0].blob, tmp_path / "again")
    assert refused.value.kind == "missing"


async def test_a_refused_archive_changes_nothing(imports: Imports, tmp_path: Path) -> None:
    layout = tmp_path / "layout"
    digest = write_image(layout, LAYERS)
    file = layout_archive(layout, tmp_path / "image.tar")
    await imports.importer.take_in(file, parse_local_name("app"))
    whole = file.read_bytes()
    (tmp_path / "short.tar").write_bytes(whole[: len(whole) // 2])
    flipped = bytearray(whole)
    flipped[whole.index(b"\x1f\x8b", 2000) + 300] ^= 1
    (tmp_path / "flipped.tar").write_bytes(bytes(flipped))
    (tmp_path / "none.tar").write_bytes(b"\0" * 10240)
    (tmp_path / "text.tar").write_bytes(b"hello" * 1000)
    for damaged in ("short", "flipped", "none", "text"):
        with pytest.raises(ImageRefused) as refused:
            await imports.importer.take_in(tmp_path / f"{damaged}.tar", parse_local_name("app"))
        assert refused.value.kind in ("invalid", "missing"), damaged
        assert await imports.resolve("local/app") == digest


async def test_a_cancelled_import_lets_go_of_the_archive(imports: Imports, tmp_path: Path) -> None:
    layout = tmp_path / "layout"
    write_image(layout, [{"big": os.urandom(60_000_000)}], compression="none")
    file = layout_archive(layout, tmp_path / "image.tar")
    task = asyncio.create_task(imports.importer.take_in(file, parse_local_name("app")))
    await asyncio.sleep(0.05)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    opened = [
        os.readlink(f"/proc/self/fd/{fd}")
        for fd in os.listdir("/proc/self/fd")
        if os.path.lexists(f"/proc/self/fd/{fd}")
    ]
    assert str(file) not in opened
    assert await imports.names.names() == []
