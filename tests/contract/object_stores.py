"""Opens the object store that a test is parametrised with; S3 is a real server, behind a proxy that can misbehave."""

import asyncio
import contextlib
import secrets
from collections.abc import AsyncIterator, Callable
from typing import Any

import boto3
from moto.server import ThreadedMotoServer

from stoker.aws.clients import AwsClients
from stoker.aws.part_uploads import S3PartUploads
from stoker.store.object_store import S3ObjectStore
from stoker.store.objects import S3Settings

REGION = "us-east-1"
KEYS = {"AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "secret"}


class RunningS3:
    """moto's S3 on a port of its own."""

    def __init__(self) -> None:
        self._server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
        self._server.start()
        self.host, self.port = self._server.get_host_and_port()

    def stop(self) -> None:
        self._server.stop()

    def bucket(self) -> str:
        """A new, empty bucket."""
        name = f"objects-{secrets.token_hex(4)}"
        self.client().create_bucket(Bucket=name)
        return name

    def client(self) -> Any:
        return boto3.client(
            "s3",
            endpoint_url=f"http://{self.host}:{self.port}",
            region_name=REGION,
            aws_access_key_id="key",
            aws_secret_access_key="secret",
        )


class Proxy:
    """Forwards to a server, one request a connection; ``misbehave`` answers instead when it returns bytes,
    or cuts the server's answer off.

    ``misbehave(request line)`` may return None (forward), bytes (the answer), a number (how many bytes of the
    answer to let through) or "stall" (no answer).
    """

    def __init__(self, host: str, port: int) -> None:
        self._target = (host, port)
        self.misbehave: Callable[[str], bytes | int | str | None] = lambda _: None
        self.requests: list[str] = []
        self._tasks: set[asyncio.Task[None]] = set()

    async def start(self) -> str:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        return f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    async def stop(self) -> None:
        self._server.close()
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            await self._forward(reader, writer)
        writer.close()

    async def _forward(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        lines = head.decode("latin-1").split("\r\n")
        headers = {n.lower(): v.strip() for n, _, v in (line.partition(":") for line in lines[1:] if line)}
        if headers.get("expect", "").lower() == "100-continue":
            writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        body = await reader.readexactly(int(headers.get("content-length", 0)))
        self.requests.append(lines[0])
        decided = self.misbehave(lines[0])
        if decided == "stall":
            await asyncio.Event().wait()
        if isinstance(decided, bytes):
            writer.write(decided)
            await writer.drain()
            return
        kept = [
            f"{lines[0]}",
            *(
                line
                for line in lines[1:]
                if line and line.lower().split(":")[0] not in ("expect", "connection")
            ),
            "Connection: close",
        ]
        upstream_reader, upstream = await asyncio.open_connection(*self._target)
        upstream.write("\r\n".join(kept).encode("latin-1") + b"\r\n\r\n" + body)
        answer = await upstream_reader.read()
        upstream.close()
        writer.write(answer[:decided] if isinstance(decided, int) else answer)
        await writer.drain()


INTERNAL_ERROR = (
    b"HTTP/1.1 500 Internal Server Error\r\nContent-Type: application/xml\r\nConnection: close\r\n"
    b"Content-Length: 98\r\n\r\n"
    b"<Error><Code>InternalError</Code><Message>We encountered an internal error.</Message></Error>     "
)


@contextlib.asynccontextmanager
async def s3_store(server: RunningS3, url: str, *, timeout_s: float = 20) -> AsyncIterator[S3ObjectStore]:
    """A store on a new bucket, reached at ``url``; botocore's settings must name the same."""
    bucket = server.bucket()
    environment = {**KEYS, "AWS_ENDPOINT_URL_S3": url}
    parts = S3PartUploads(AwsClients(environment), bucket, REGION)
    yield S3ObjectStore(bucket, "below/here", S3Settings(environment, REGION), parts, timeout_s=timeout_s)
