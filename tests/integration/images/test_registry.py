"""Our client against Debian's docker-registry, with skopeo as the one who knows the truth."""

import hashlib
import json
import os
from pathlib import Path

import pytest

from stoker.packaging.oci.references import parse_reference
from stoker.packaging.oci.registry.access import RegistrySettings
from stoker.packaging.oci.registry.source import RegistrySource
from stoker.services.images import ImageRefused
from tests.images.layers import File
from tests.images.layout import blob_path, write_image, write_index
from tests.images.registries import (
    PASSWORD,
    USER,
    Certificates,
    Registry,
    basic_auth,
    docker_config,
    running_registry,
    running_token_service,
)

LAYER = {"etc/motd": "hello", "bin/app": File(b"#!/bin/sh\n", mode=0o755)}
BASIC = f"{USER}:{PASSWORD}"


def plain() -> RegistrySource:
    return RegistrySource(RegistrySettings())


async def pulled(source: RegistrySource, uri: str, folder: Path, architecture: str = "x86_64") -> str:
    """Pull everything and return the manifest's digest; the layers were checked on the way."""
    manifest = await source.manifest(parse_reference(uri), architecture)
    assert "sha256:" + hashlib.sha256(manifest.content).hexdigest() == manifest.digest
    for number, layer in enumerate(manifest.layers):
        file = folder / f"{manifest.digest[7:19]}-{number}"
        await source.blob(manifest, layer.blob, file)
        with file.open("rb") as stream:
            assert "sha256:" + hashlib.file_digest(stream, "sha256").hexdigest() == layer.blob.digest
    return manifest.digest


async def refused(source: RegistrySource, uri: str, architecture: str = "x86_64") -> ImageRefused:
    with pytest.raises(ImageRefused) as problem:
        await source.manifest(parse_reference(uri), architecture)
    assert PASSWORD not in str(problem.value)
    return problem.value


async def test_digests_are_the_ones_that_skopeo_sees(
    registry: Registry, layout: Path, tmp_path: Path
) -> None:
    write_image(layout, [LAYER, {"b": os.urandom(200_000)}], {"Cmd": ["app.handler"]})
    digest = registry.push(layout, "team/app")
    source = plain()
    assert await pulled(source, f"{registry.host}/team/app", tmp_path) == digest
    assert await pulled(source, f"{registry.host}/team/app@{digest}", tmp_path / "..") == digest


@pytest.mark.parametrize("style", ["v2s2", "oci"])
async def test_docker_and_oci_manifests(registry: Registry, layout: Path, tmp_path: Path, style: str) -> None:
    write_image(layout, [LAYER])
    digest = registry.push(layout, f"style-{style}", "latest", "--format", style)
    assert await pulled(plain(), f"{registry.host}/style-{style}", tmp_path) == digest


async def test_an_index_gives_each_architecture_its_image(
    registry: Registry, layout: Path, tmp_path: Path
) -> None:
    amd64 = write_image(layout, [LAYER], tag=None)
    arm64 = write_image(layout, [LAYER, {"arm": "1"}], tag=None, architecture="arm64", variant="v8")
    write_index(layout, {"amd64": amd64, "arm64/v8": arm64})
    registry.push(layout, "multi", "latest", "--all")
    uri = f"{registry.host}/multi"
    assert await pulled(plain(), uri, tmp_path) == amd64
    assert await pulled(plain(), uri, tmp_path, "arm64") == arm64
    assert await pulled(plain(), f"{uri}@{amd64}", tmp_path / "..") == amd64
    assert (await refused(plain(), f"{uri}@{amd64}", "arm64")).kind == "architecture"


async def test_an_image_of_another_architecture_is_refused(registry: Registry, layout: Path) -> None:
    write_image(layout, [LAYER], architecture="arm64")
    registry.push(layout, "arm")
    problem = await refused(plain(), f"{registry.host}/arm")
    assert problem.kind == "architecture"
    assert "arm64" in str(problem)


async def test_a_tag_that_moves_is_noticed(registry: Registry, layout: Path) -> None:
    source, reference = plain(), parse_reference(f"{registry.host}/moving:latest")
    write_image(layout, [LAYER])
    first = registry.push(layout, "moving")
    assert (await source.manifest(reference, "x86_64")).digest == first
    assert (await source.manifest(reference, "x86_64")).digest == first
    write_image(layout, [LAYER, {"new": "1"}])
    second = registry.push(layout, "moving")
    assert (await source.manifest(reference, "x86_64")).digest == second != first


async def test_what_is_not_there(registry: Registry, layout: Path) -> None:
    write_image(layout, [LAYER])
    digest = registry.push(layout, "there")
    assert (await refused(plain(), f"{registry.host}/there:other")).kind == "missing"
    assert (await refused(plain(), f"{registry.host}/nowhere")).kind == "missing"
    other = digest[:-4] + ("0000" if not digest.endswith("0000") else "1111")
    assert (await refused(plain(), f"{registry.host}/there@{other}")).kind == "missing"


async def test_basic_auth(layout: Path, tmp_path: Path) -> None:
    with running_registry(htpasswd=True) as registry:
        write_image(layout, [LAYER])
        _push_with_password(registry, layout)
        digest = registry.inspect("app", "latest", "--creds", BASIC)
        uri = f"{registry.host}/app"
        good = RegistrySettings(config_file=docker_config(tmp_path, {registry.host: basic_auth()}))
        assert await pulled(RegistrySource(good), uri, tmp_path) == digest
        wrong = docker_config(tmp_path, {registry.host: basic_auth(password="wrong")})
        for settings in (RegistrySettings(), RegistrySettings(config_file=wrong)):
            assert (await refused(RegistrySource(settings), uri)).kind == "denied"


async def test_a_login_counts_at_once(layout: Path, tmp_path: Path) -> None:
    with running_registry(htpasswd=True) as registry:
        write_image(layout, [LAYER])
        _push_with_password(registry, layout)
        config = docker_config(tmp_path, {})
        source = RegistrySource(RegistrySettings(config_file=config))
        assert "has none" in str(await refused(source, f"{registry.host}/app"))
        config.write_text(json.dumps({"auths": {registry.host: basic_auth()}}))
        assert await pulled(source, f"{registry.host}/app", tmp_path)


async def test_tls_with_an_authority_of_our_own(
    certificates: Certificates, layout: Path, tmp_path: Path
) -> None:
    with running_registry(tls=certificates) as registry:
        write_image(layout, [LAYER])
        digest = registry.push(layout, "app")
        uri = f"{registry.host}/app"
        trusting = RegistrySource(RegistrySettings(ca_file=certificates.authority))
        assert await pulled(trusting, uri, tmp_path) == digest
        problem = await refused(plain(), uri)
        assert problem.kind == "unreachable"
        assert "certificate" in str(problem)


async def test_tokens_for_those_with_credentials(
    certificates: Certificates, layout: Path, tmp_path: Path
) -> None:
    with running_token_service(certificates) as tokens, running_registry(token=tokens) as registry:
        write_image(layout, [LAYER])
        _push_with_password(registry, layout)
        uri = f"{registry.host}/app"
        trusted = {"ca_file": certificates.authority}
        basic = docker_config(tmp_path, {registry.host: basic_auth()})
        refresh = docker_config(tmp_path, {registry.host: {"identitytoken": "refresh-me"}})
        for number, config in enumerate((basic, refresh)):
            tokens.asked.clear()
            (tmp_path / str(number)).mkdir()
            source = RegistrySource(RegistrySettings(config_file=config, **trusted))
            assert await pulled(source, uri, tmp_path / str(number))
            # One token serves the manifest, the configuration and the layers.
            assert len(tokens.asked) == 1
            assert tokens.asked[0]["query"]["scope"] == ["repository:app:pull"]
        assert (await refused(RegistrySource(RegistrySettings(**trusted)), uri)).kind == "denied"
        wrong = docker_config(tmp_path, {registry.host: basic_auth(password="wrong")})
        assert (
            await refused(RegistrySource(RegistrySettings(config_file=wrong, **trusted)), uri)
        ).kind == "denied"


async def test_anonymous_tokens(certificates: Certificates, layout: Path, tmp_path: Path) -> None:
    with (
        running_token_service(certificates, anonymous=True) as tokens,
        running_registry(token=tokens) as registry,
    ):
        write_image(layout, [LAYER])
        _push_with_password(registry, layout)
        source = RegistrySource(RegistrySettings(ca_file=certificates.authority))
        assert await pulled(source, f"{registry.host}/app", tmp_path)
        assert {each["authorization"] for each in tokens.asked[-1:]} == {None}


async def test_a_download_that_is_cancelled_leaves_nothing(
    registry: Registry, layout: Path, tmp_path: Path
) -> None:
    import asyncio

    write_image(layout, [{"big": os.urandom(30_000_000)}], compression="none")
    registry.push(layout, "big")
    source = plain()
    manifest = await source.manifest(parse_reference(f"{registry.host}/big"), "x86_64")
    arrived = asyncio.Event()
    loop = asyncio.get_running_loop()
    into = tmp_path / "blob"
    download = asyncio.create_task(
        source.blob(manifest, manifest.layers[0].blob, into, lambda _: loop.call_soon_threadsafe(arrived.set))
    )
    await arrived.wait()
    download.cancel()
    with pytest.raises(asyncio.CancelledError):
        await download
    for _ in range(100):
        if not into.exists():
            break
        await asyncio.sleep(0.02)
    assert not into.exists()


async def test_a_host_that_is_not_there_is_named() -> None:
    problem = await refused(plain(), "127.0.0.1:1/app")
    assert problem.kind == "unreachable"
    assert "127.0.0.1:1" in str(problem)
    assert "refused" in str(problem)


async def test_only_registries_that_are_allowed(registry: Registry) -> None:
    source = RegistrySource(RegistrySettings(allowed=frozenset({"registry.example.com"})))
    assert (await refused(source, f"{registry.host}/app")).kind == "denied"


async def test_progress_adds_up(registry: Registry, layout: Path, tmp_path: Path) -> None:
    write_image(layout, [{"big": os.urandom(3_000_000)}])
    registry.push(layout, "progress")
    source = plain()
    manifest = await source.manifest(parse_reference(f"{registry.host}/progress"), "x86_64")
    told: list[int] = []
    await source.blob(manifest, manifest.layers[0].blob, tmp_path / "blob", told.append)
    assert sum(told) == manifest.transfer_bytes == (tmp_path / "blob").stat().st_size
    assert blob_path(layout, manifest.layers[0].blob.digest).read_bytes() == (tmp_path / "blob").read_bytes()


def _push_with_password(registry: Registry, layout: Path) -> None:
    registry.push_only(layout, "app", "latest", "--dest-creds", BASIC)
