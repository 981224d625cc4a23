"""A registry that does whatever a test tells it to."""

import contextlib
import http.server
import json
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from stoker.packaging.oci import documents
from tests.images.layers import layer_tar

LAYER = layer_tar({"etc/motd": "hello" * 20_000})


@dataclass
class Asked:
    """A request as it came."""

    method: str
    path: str
    headers: dict[str, str]
    server: "Hostile"
    connection: socket.socket = field(repr=False)

    def send(self, status: int, body: bytes = b"", **headers: str) -> None:
        """A whole answer; underscores in names stand for hyphens."""
        lines = {"content-length": str(len(body))} | {
            name.replace("_", "-"): text for name, text in headers.items()
        }
        head = "".join(f"{name}: {text}\r\n" for name, text in lines.items())
        self.raw(f"HTTP/1.1 {status} X\r\n{head}\r\n".encode() + (b"" if self.method == "HEAD" else body))

    def cut(self) -> None:
        """End the connection here."""
        self.connection.shutdown(socket.SHUT_RDWR)

    def raw(self, content: bytes) -> None:
        """Anything."""
        self.server.sent_bytes += len(content)
        self.connection.sendall(content)


Answer = Callable[[Asked], None]


@dataclass
class Hostile:
    host: str = ""
    sent_bytes: int = 0
    asked: list[Asked] = field(default_factory=list[Asked])
    answers: dict[str, Answer] = field(default_factory=dict[str, Answer])
    """By the end of the path."""
    stopped: threading.Event = field(default_factory=threading.Event)

    def on(self, ending: str, answer: Answer) -> None:
        self.answers[ending] = answer

    def image(self, layer: bytes = LAYER, **changes: Any) -> tuple[str, str]:
        """Serve a good image as ``a:latest``; returns the manifest's and the layer's digest."""
        diff_id = documents.digest_of(layer)
        config = json.dumps(
            {"os": "linux", "architecture": "amd64", "rootfs": {"diff_ids": [diff_id]}}
        ).encode()
        manifest: dict[str, Any] = {
            "schemaVersion": 2,
            "mediaType": documents.OCI_MANIFEST,
            "config": descriptor(documents.OCI_CONFIG, config),
            "layers": [descriptor(documents.OCI_LAYER, layer)],
        }
        content = json.dumps(manifest | changes).encode()
        digest = documents.digest_of(content)
        for name in ("latest", digest):
            self.on(
                f"/manifests/{name}",
                lambda asked: asked.send(200, content, content_type=documents.OCI_MANIFEST),
            )
        self.on(documents.digest_of(config), lambda asked: asked.send(200, config))
        self.on(diff_id, lambda asked: asked.send(200, layer))
        return digest, diff_id

    def manifest(self, content: bytes, **headers: str) -> None:
        """Serve these bytes as ``a:latest``."""
        self.on("/manifests/latest", lambda asked: asked.send(200, content, **headers))

    def paths(self) -> list[str]:
        return [asked.path for asked in self.asked if asked.path != "/v2/"]


def descriptor(media_type: str, content: bytes) -> dict[str, Any]:
    return {"mediaType": media_type, "digest": documents.digest_of(content), "size": len(content)}


@contextmanager
def hostile_registry() -> Iterator[Hostile]:
    """On loopback, in plain HTTP."""
    hostile = Hostile()

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            headers = {name.lower(): value for name, value in self.headers.items()}
            asked = Asked(self.command, self.path, headers, hostile, self.connection)
            hostile.asked.append(asked)
            path = self.path.partition("?")[0]
            answer = next((known for end, known in hostile.answers.items() if path.endswith(end)), None)
            with contextlib.suppress(OSError):
                if answer is None:
                    asked.send(200 if path == "/v2/" else 404)
                else:
                    answer(asked)

        do_HEAD = do_POST = do_GET

        def log_message(self, *args: Any) -> None:
            pass

    class Server(http.server.ThreadingHTTPServer):
        daemon_threads = True
        block_on_close = False

        def handle_error(self, *args: Any) -> None:
            pass

    server = Server(("127.0.0.1", 0), Handler)
    hostile.host = f"127.0.0.1:{server.server_address[1]}"
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    try:
        yield hostile
    finally:
        hostile.stopped.set()
        server.shutdown()
        server.server_close()
