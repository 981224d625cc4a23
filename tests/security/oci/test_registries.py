"""Registries that lie, lead elsewhere, never end or never begin; none gets a credential that is not its own."""

import asyncio
import base64
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from stoker.packaging.oci import documents
from stoker.packaging.oci.references import parse_reference
from stoker.packaging.oci.registry import client, connections, download
from stoker.packaging.oci.registry import source as registry_source
from stoker.packaging.oci.registry.access import RegistrySettings
from stoker.packaging.oci.registry.connections import AddressRefused, Watch
from stoker.packaging.oci.registry.source import RegistrySource
from stoker.services.images import ImageRefused
from tests.images.registries import basic_auth, docker_config
from tests.security.oci.hostile import LAYER, Asked, Hostile, descriptor, hostile_registry

SECRET = "a password: with a colon"
BASIC = basic_auth(password=SECRET)


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Back-off and deadlines of a test, not of a network."""
    monkeypatch.setattr(client, "BACK_OFF_FIRST_S", 0.001)
    for module in (client, download, registry_source):
        monkeypatch.setattr(module, "SMALL_WITHIN_S", 1.5)


@pytest.fixture
def hostile() -> Iterator[Hostile]:
    with hostile_registry() as running:
        yield running


def source(tmp_path: Path | None = None, *hosts: str) -> RegistrySource:
    config = docker_config(tmp_path, dict.fromkeys(hosts, BASIC)) if tmp_path else None
    return RegistrySource(RegistrySettings(config_file=config))


async def refused(hostile: Hostile, puller: RegistrySource | None = None) -> ImageRefused:
    with pytest.raises(ImageRefused) as problem:
        await (puller or source()).manifest(parse_reference(f"{hostile.host}/a"), "x86_64")
    assert SECRET not in str(problem.value)
    assert base64.b64encode(SECRET.encode()).decode()[:8] not in str(problem.value)
    assert len(str(problem.value)) < 600
    return problem.value


async def pull(hostile: Hostile, into: Path) -> None:
    puller = source()
    manifest = await puller.manifest(parse_reference(f"{hostile.host}/a"), "x86_64")
    await puller.blob(manifest, manifest.layers[0].blob, into)


async def pull_refused(hostile: Hostile, tmp_path: Path) -> ImageRefused:
    with pytest.raises(ImageRefused) as problem:
        await pull(hostile, tmp_path / "blob")
    assert not (tmp_path / "blob").exists()
    return problem.value


def carried(hostile: Hostile) -> list[str]:
    """Every Authorization header that the server was sent."""
    return [asked.headers["authorization"] for asked in hostile.asked if "authorization" in asked.headers]


async def test_the_kit_serves_a_good_image(hostile: Hostile, tmp_path: Path) -> None:
    hostile.image()
    await pull(hostile, tmp_path / "blob")
    assert (tmp_path / "blob").read_bytes() == LAYER


# --- bytes that are not what was announced ---


async def test_other_bytes_of_the_right_length(hostile: Hostile, tmp_path: Path) -> None:
    _, layer = hostile.image()
    hostile.on(layer, lambda asked: asked.send(200, b"x" + LAYER[1:]))
    assert (await pull_refused(hostile, tmp_path)).kind == "invalid"


@pytest.mark.parametrize("body", [LAYER[:-1], LAYER + b"x", b""])
async def test_another_length(hostile: Hostile, tmp_path: Path, body: bytes) -> None:
    _, layer = hostile.image()
    hostile.on(layer, lambda asked: asked.send(200, body))
    assert (await pull_refused(hostile, tmp_path)).kind == "invalid"


async def test_a_body_without_end_is_read_no_further_than_it_may_be(hostile: Hostile, tmp_path: Path) -> None:
    _, layer = hostile.image()

    def endless(asked: Asked) -> None:
        asked.raw(b"HTTP/1.1 200 X\r\ntransfer-encoding: chunked\r\n\r\n")
        while not asked.server.stopped.is_set():
            asked.raw(b"10000\r\n" + b"x" * 65536 + b"\r\n")

    hostile.on(layer, endless)
    assert (await pull_refused(hostile, tmp_path)).kind == "invalid"
    assert hostile.sent_bytes < 20_000_000


async def test_a_manifest_without_end(hostile: Hostile) -> None:
    def endless(asked: Asked) -> None:
        asked.raw(b"HTTP/1.1 200 X\r\ntransfer-encoding: chunked\r\n\r\n")
        while not asked.server.stopped.is_set():
            asked.raw(b"10000\r\n" + b" " * 65536 + b"\r\n")

    hostile.on("/manifests/latest", endless)
    assert (await refused(hostile)).kind == "too_big"
    assert hostile.sent_bytes < 20_000_000


async def test_a_header_that_names_another_digest(hostile: Hostile) -> None:
    hostile.image()
    good = hostile.answers["/manifests/latest"]
    other = "sha256:" + "0" * 64

    def lie(asked: Asked) -> None:
        send, asked.send = asked.send, lambda *a, **k: send(*a, **k, docker_content_digest=other)  # type: ignore[method-assign]
        good(asked)

    hostile.on("/manifests/latest", lie)
    assert (await refused(hostile)).kind == "invalid"


async def test_a_manifest_that_is_not_what_its_digest_says(hostile: Hostile) -> None:
    hostile.image()
    digest = "sha256:" + "1" * 64
    hostile.on(digest, hostile.answers["/manifests/latest"])
    with pytest.raises(ImageRefused, match="not sha256:1111") as problem:
        await source().manifest(parse_reference(f"{hostile.host}/a@{digest}"), "x86_64")
    assert problem.value.kind == "invalid"


# --- breaking off, and going on ---


async def test_a_download_that_breaks_off_is_gone_on_with(hostile: Hostile, tmp_path: Path) -> None:
    _, layer = hostile.image()
    ranges: list[str | None] = []

    def in_pieces(asked: Asked) -> None:
        ranges.append(asked.headers.get("range"))
        start = int((ranges[-1] or "bytes=0-")[6:-1])
        piece = LAYER[start : start + 40_000]
        status = f"206 X\r\ncontent-range: bytes {start}-{len(LAYER) - 1}/{len(LAYER)}" if start else "200 X"
        asked.raw(f"HTTP/1.1 {status}\r\ncontent-length: {len(LAYER) - start}\r\n\r\n".encode() + piece)
        asked.cut()

    hostile.on(layer, in_pieces)
    await pull(hostile, tmp_path / "blob")
    assert (tmp_path / "blob").read_bytes() == LAYER
    assert ranges[0] is None
    assert ranges[1] == "bytes=40000-"


async def test_a_server_that_knows_no_ranges_starts_over(hostile: Hostile, tmp_path: Path) -> None:
    _, layer = hostile.image()
    tries = 0

    def whole_at_last(asked: Asked) -> None:
        nonlocal tries
        tries += 1
        asked.raw(f"HTTP/1.1 200 X\r\ncontent-length: {len(LAYER)}\r\n\r\n".encode())
        asked.raw(LAYER if tries == 3 else LAYER[: 30_000 * tries])
        if tries < 3:
            asked.cut()

    hostile.on(layer, whole_at_last)
    await pull(hostile, tmp_path / "blob")
    assert (tmp_path / "blob").read_bytes() == LAYER


async def test_another_range_than_asked_for(hostile: Hostile, tmp_path: Path) -> None:
    _, layer = hostile.image()

    def wrong(asked: Asked) -> None:
        if "range" in asked.headers:
            asked.send(206, LAYER[10:], content_range=f"bytes 10-{len(LAYER) - 1}/{len(LAYER)}")
        else:
            asked.raw(f"HTTP/1.1 200 X\r\ncontent-length: {len(LAYER)}\r\n\r\n".encode() + LAYER[:50_000])
            asked.cut()

    hostile.on(layer, wrong)
    assert (await pull_refused(hostile, tmp_path)).kind == "invalid"


async def test_breaking_off_for_ever_ends(hostile: Hostile, tmp_path: Path) -> None:
    _, layer = hostile.image()

    def never(asked: Asked) -> None:
        asked.raw(f"HTTP/1.1 200 X\r\ncontent-length: {len(LAYER)}\r\n\r\n".encode() + LAYER[:1000])
        asked.cut()

    hostile.on(layer, never)
    assert (await pull_refused(hostile, tmp_path)).kind == "unreachable"
    assert len(hostile.asked) < 100


@pytest.mark.parametrize("status", [429, 500, 503])
async def test_what_passes_is_tried_again(hostile: Hostile, tmp_path: Path, status: int) -> None:
    _, layer = hostile.image()
    good, tries = hostile.answers[layer], 0

    def at_last(asked: Asked) -> None:
        nonlocal tries
        tries += 1
        if tries < 4:
            asked.send(status, retry_after="0")
        else:
            good(asked)

    hostile.on(layer, at_last)
    await pull(hostile, tmp_path / "blob")
    assert tries == 4


async def test_what_does_not_pass_ends(hostile: Hostile) -> None:
    hostile.on("/manifests/latest", lambda asked: asked.send(503))
    problem = await refused(hostile)
    assert problem.kind == "unreachable"
    assert "503" in str(problem)
    assert len(hostile.paths()) == client.ATTEMPTS_MAX


# --- leading elsewhere ---


async def test_redirects_carry_no_credentials(hostile: Hostile, tmp_path: Path) -> None:
    with hostile_registry() as elsewhere:
        _, layer = hostile.image()
        elsewhere.on("/blob", lambda asked: asked.send(200, LAYER))

        def guarded(inner: Any) -> Any:
            def answer(asked: Asked) -> None:
                if "authorization" in asked.headers:
                    inner(asked)
                else:
                    asked.send(401, www_authenticate='Basic realm="x"')

            return answer

        hostile.answers = {end: guarded(inner) for end, inner in hostile.answers.items()}
        hostile.on(layer, guarded(lambda asked: asked.send(307, location=f"http://{elsewhere.host}/blob")))
        puller = source(tmp_path, hostile.host, elsewhere.host)
        manifest = await puller.manifest(parse_reference(f"{hostile.host}/a"), "x86_64")
        await puller.blob(manifest, manifest.layers[0].blob, tmp_path / "blob")
        assert (tmp_path / "blob").read_bytes() == LAYER
        assert carried(hostile)
        assert elsewhere.paths() == ["/blob"]
        assert carried(elsewhere) == []


@pytest.mark.parametrize(
    ("location", "kind"),
    [
        ("/v2/a/manifests/latest", "invalid"),
        ("http://registry.example.com/", "denied"),
        ("http://169.254.169.254/latest/meta-data/", "denied"),
        ("http://user:password@127.0.0.1:1/", "invalid"),
        ("file:///etc/passwd", "denied"),
        ("ftp://127.0.0.1/", "denied"),
        ("gopher://127.0.0.1:1/", "denied"),
        ("//", "invalid"),
        ("http://", "invalid"),
        ("http://[::1", "invalid"),
        ("", "invalid"),
        ("/" + "x" * 20_000, "invalid"),
    ],
)
async def test_where_nobody_is_led(hostile: Hostile, location: str, kind: str) -> None:
    hostile.on("/manifests/latest", lambda asked: asked.send(302, location=location))
    assert (await refused(hostile)).kind in (kind, "invalid")
    assert len(hostile.paths()) <= 7


class _Peer:
    def __init__(self, address: str) -> None:
        self.address = address

    def getpeername(self) -> tuple[str, int]:
        return self.address, 443


@pytest.mark.parametrize(
    "address", ["169.254.169.254", "fe80::1%eth0", "::ffff:169.254.169.254", "224.0.0.1", "0.0.0.0", "::"]
)
def test_addresses_that_no_registry_has(address: str) -> None:
    peer: Any = _Peer(address)
    with pytest.raises(AddressRefused):
        Watch(1.0)._check(peer)


def test_only_a_registry_of_this_machine_leads_to_this_machine() -> None:
    near: Any = _Peer("127.0.0.1")
    far: Any = _Peer("93.184.216.34")
    watch = Watch(1.0)
    watch._check(far)
    watch.first_hop_done()
    with pytest.raises(AddressRefused):
        watch._check(near)
    watch.begin_hops()
    watch._check(near)
    watch.first_hop_done()
    watch._check(near)


# --- tokens ---


@pytest.mark.parametrize(
    ("realm", "kind"),
    [
        ("http://ELSEWHERE/token", "denied"),
        ("http://registry.example.com/token", "denied"),
        ("http://u:p@HERE/token", "invalid"),
        ("file:///etc/passwd", "invalid"),
        ("", "invalid"),
        ("https://" + "x" * 5000, "invalid"),
    ],
)
async def test_token_services_that_get_no_credentials(
    hostile: Hostile, tmp_path: Path, realm: str, kind: str
) -> None:
    with hostile_registry() as elsewhere:
        named = realm.replace("ELSEWHERE", elsewhere.host).replace("HERE", hostile.host)
        hostile.on(
            "/manifests/latest", lambda asked: asked.send(401, www_authenticate=f'Bearer realm="{named}"')
        )
        assert (await refused(hostile, source(tmp_path, hostile.host))).kind == kind
        assert elsewhere.asked == []
        assert carried(hostile) == []


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        ({"body": b"x" * 100_000}, "too_big"),
        ({"body": b"[" * 10_000}, "invalid"),
        ({"body": b"{}"}, "denied"),
        ({"body": json.dumps({"token": "a\r\nX-Injected: 1"}).encode()}, "invalid"),
        ({"status": 302, "location": "http://ELSEWHERE/token"}, "invalid"),
        ({"status": 401}, "denied"),
        ({"status": 500}, "unreachable"),
    ],
)
async def test_answers_of_token_services(
    hostile: Hostile, tmp_path: Path, answer: dict[str, Any], kind: str
) -> None:
    with hostile_registry() as elsewhere:
        challenge = f'Bearer realm="http://{hostile.host}/token",service="x"'
        hostile.on("/manifests/latest", lambda asked: asked.send(401, www_authenticate=challenge))
        status, body = answer.pop("status", 200), answer.pop("body", b"")
        headers = {name: text.replace("ELSEWHERE", elsewhere.host) for name, text in answer.items()}
        hostile.on("/token", lambda asked: asked.send(status, body, **headers))
        assert (await refused(hostile, source(tmp_path, hostile.host))).kind == kind
        assert elsewhere.asked == []


async def test_a_registry_that_is_never_content(hostile: Hostile, tmp_path: Path) -> None:
    hostile.on("/manifests/latest", lambda asked: asked.send(401, www_authenticate='Basic realm="x"'))
    assert (await refused(hostile, source(tmp_path, hostile.host))).kind == "denied"
    assert len(hostile.paths()) == 2


async def test_what_a_registry_says_is_not_repeated(hostile: Hostile, tmp_path: Path) -> None:
    def echo(asked: Asked) -> None:
        if "authorization" not in asked.headers:
            asked.send(401, www_authenticate='Basic realm="x"')
            return
        said = {"code": asked.headers["authorization"], "message": SECRET}
        asked.send(403, json.dumps({"errors": [said]}).encode())

    hostile.on("/manifests/latest", echo)
    assert (await refused(hostile, source(tmp_path, hostile.host))).kind == "denied"
    assert carried(hostile)


# --- bombs ---


async def test_indexes_in_indexes_end(hostile: Hostile) -> None:
    content = b'{"schemaVersion":2,"manifests":[]}'
    for _ in range(6):
        inner = content
        digest = documents.digest_of(inner)
        hostile.on(
            digest, lambda asked, inner=inner: asked.send(200, inner, content_type=documents.OCI_INDEX)
        )
        entry = descriptor(documents.OCI_INDEX, inner)
        content = json.dumps({"schemaVersion": 2, "manifests": [entry]}).encode()
    hostile.manifest(content, content_type=documents.OCI_INDEX)
    assert (await refused(hostile)).kind in ("invalid", "architecture")
    assert len(hostile.paths()) <= 4


@pytest.mark.parametrize(
    "content",
    [
        json.dumps(
            {"schemaVersion": 2, "manifests": [descriptor(documents.OCI_MANIFEST, b"")] * 20_000}
        ).encode(),
        b'{"manifests":' + b"[" * 1_000_000,
        b'{"config":' + b'{"a":' * 500_000,
        b'{"a":"' + b"\\u0000" * 500_000 + b'"}',
        b"{" + b",".join(b'"k%d":0' % number for number in range(200_000)) + b"}",
        b'{"schemaVersion":' + b"9" * 100_000 + b"}",
    ],
)
async def test_bombs_of_json(hostile: Hostile, content: bytes) -> None:
    hostile.manifest(content)
    began_s = time.process_time()
    assert (await refused(hostile)).kind in ("invalid", "too_big", "media_type")
    assert time.process_time() - began_s < 2.0


async def test_headers_without_end(hostile: Hostile) -> None:
    def endless(asked: Asked) -> None:
        asked.raw(b"HTTP/1.1 200 X\r\n")
        for _ in range(5000):
            asked.raw(b"x-a: " + b"y" * 1000 + b"\r\n")

    hostile.on("/manifests/latest", endless)
    assert (await refused(hostile)).kind == "unreachable"


# --- slowness ---


def dribble(*start: bytes, piece: bytes = b"x") -> Any:
    def answer(asked: Asked) -> None:
        asked.raw(b"".join(start))
        while not asked.server.stopped.wait(0.1):
            asked.raw(piece)

    return answer


@pytest.mark.parametrize(
    ("start", "piece"),
    [
        (b"", b"H"),
        (b"HTTP/1.1 200 X\r\n", b"x"),
        (b"HTTP/1.1 200 X\r\n", b"x-a: y\r\n"),
        (b"HTTP/1.1 200 X\r\ncontent-length: 100000\r\n\r\n", b" "),
        (b"HTTP/1.1 200 X\r\ntransfer-encoding: chunked\r\n\r\n", b"0"),
        (b"HTTP/1.1 200 X\r\ntransfer-encoding: chunked\r\n\r\n", b"1\r\nx\r\n"),
        (b"HTTP/1.1 200 X\r\ntransfer-encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n", b"x-a: y\r\n"),
    ],
)
async def test_a_registry_that_dribbles_is_given_up(hostile: Hostile, start: bytes, piece: bytes) -> None:
    hostile.on("/manifests/latest", dribble(start, piece=piece))
    began_s = time.monotonic()
    problem = await refused(hostile)
    assert problem.kind in ("unreachable", "invalid")
    assert time.monotonic() - began_s < 10


async def test_a_layer_that_dribbles_is_given_up(hostile: Hostile, tmp_path: Path) -> None:
    _, layer = hostile.image()
    head = f"HTTP/1.1 200 X\r\ncontent-length: {len(LAYER)}\r\n\r\n".encode()
    hostile.on(layer, dribble(head, LAYER[:100], piece=b"x"))
    problem = await pull_refused(hostile, tmp_path)
    assert problem.kind == "unreachable"
    assert "slow" in str(problem)


async def test_a_silent_registry_holds_up_nobody_else(hostile: Hostile, tmp_path: Path) -> None:
    hostile.image()
    hostile.on("/manifests/slow", lambda asked: asked.server.stopped.wait(30))
    puller = source()
    slow = [
        asyncio.create_task(puller.manifest(parse_reference(f"{hostile.host}/a:slow"), "x86_64"))
        for _ in range(registry_source.THREADS_MAX - 1)
    ]
    await asyncio.sleep(0.1)
    assert (await puller.manifest(parse_reference(f"{hostile.host}/a"), "x86_64")).digest
    for task in slow:
        task.cancel()
    assert all(
        isinstance(end, asyncio.CancelledError) for end in await asyncio.gather(*slow, return_exceptions=True)
    )


def test_watches_end_with_what_they_watch() -> None:
    import threading

    def watching() -> int:
        return sum(thread.name == "stoker-registry-watch" for thread in threading.enumerate())

    before = watching()
    with Watch(60.0):
        assert watching() == before + 1
    deadline_s = time.monotonic() + 5
    while watching() > before and time.monotonic() < deadline_s:
        time.sleep(0.01)
    assert watching() <= before
    assert connections._current.watch is None
