"""A driver whose sandboxes run a script instead of a process: each step and its moment is the test's choice.

The script speaks the real Runtime API over a Unix socket and writes into real pipes.
"""

import asyncio
import json
import os
import socket
import tempfile
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path

from stoker.core.errors import SandboxCreateError, SandboxDied, SandboxError
from stoker.sandbox.driver import DriverInfo, Exit, Launch, MountPoint, SandboxLimits, SandboxSpec

API = "/2018-06-01/runtime"


class Ended(BaseException):
    """The script's process ends here."""

    def __init__(self, end: Exit) -> None:
        self.end = end


class Runtime:
    """What a script can do."""

    def __init__(self, sandbox: "ScriptedSandbox", launch: Launch) -> None:
        self.sandbox = sandbox
        self.environment = launch.environment
        self.request_id = ""
        self._reader: asyncio.StreamReader | None = None
        self._writer: asyncio.StreamWriter | None = None

    async def request(
        self, method: str, path: str, body: bytes = b"", head: str = ""
    ) -> tuple[int, dict[str, str], bytes]:
        if self._writer is None or self._reader is None:
            self._reader, self._writer = await asyncio.open_unix_connection(self.sandbox.path)
        self._writer.write(
            f"{method} {(API + path).replace('runtime/../', '')} HTTP/1.1\r\nHost: x\r\n{head}Content-Length: {len(body)}\r\n\r\n".encode()
            + body
        )
        lines = (await self._reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
        headers = {
            name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines[1:])
        }
        answer = await self._reader.readexactly(int(headers["content-length"]))
        return int(lines[0].split()[1]), headers, answer

    async def assigned(self) -> None:
        """In a pool: wait for the function, then have its environment."""
        if "STOKER_POOLED" in self.environment:
            status, _, body = await self.request("GET", "/../stoker/assignment")
            assert status == 200
            self.environment = json.loads(body)["environment"]

    async def next(self) -> bytes:
        status, headers, body = await self.request("GET", "/invocation/next")
        assert status == 200
        self.request_id = headers["lambda-runtime-aws-request-id"]
        self.deadline_ms = int(headers["lambda-runtime-deadline-ms"])
        return body

    async def respond(self, body: bytes) -> int:
        return (await self.request("POST", f"/invocation/{self.request_id}/response", body))[0]

    async def fail(self, body: bytes, error_type: str = "Function.Oops") -> int:
        head = f"Lambda-Runtime-Function-Error-Type: {error_type}\r\n"
        return (await self.request("POST", f"/invocation/{self.request_id}/error", body, head))[0]

    async def fail_init(self, body: bytes, error_type: str = "Runtime.ImportModuleError") -> int:
        head = f"Lambda-Runtime-Function-Error-Type: {error_type}\r\n"
        return (await self.request("POST", "/init/error", body, head))[0]

    def disconnect(self) -> None:
        if self._writer is not None:
            self._writer.transport.abort()
            self._writer = None

    def print(self, text: str) -> None:
        os.write(self.sandbox.output_write, text.encode())

    def exit(self, status: int | None = None, number: int | None = None) -> None:
        raise Ended(Exit(status, number))


Script = Callable[[Runtime], Awaitable[None]]


async def echo(runtime: Runtime) -> None:
    """The well-behaved function."""
    while True:
        await runtime.respond(await runtime.next())


class ScriptedSandbox:
    def __init__(self, driver: "ScriptedDriver", spec: SandboxSpec, script: Script) -> None:
        self.driver = driver
        self.spec = spec
        self.limits = [spec.limits]
        self.mounts = dict(spec.mounts)
        self.script = script
        self.frozen = False
        self.destroyed = False
        self.oom = 0
        self.peak = 30 * 1024 * 1024
        self._folder = tempfile.TemporaryDirectory()
        self.path = f"{self._folder.name}/api"
        self.runtime_api = _listen(self.path)
        self.runtime_socket = _listen(f"{self._folder.name}/runtime")
        self.service_api = _listen(f"{self._folder.name}/service")
        self.output, self.output_write = os.pipe()
        self.telemetry, self._telemetry_write = os.pipe()
        os.set_blocking(self.output, False)
        os.set_blocking(self.telemetry, False)
        self.telemetry_fd_inside = 3
        self._ended: asyncio.Future[Exit] = asyncio.get_running_loop().create_future()
        self._task: asyncio.Task[None] | None = None

    @property
    def sandbox_id(self) -> str:
        return self.spec.sandbox_id

    async def mount(self, mounts: Mapping[MountPoint, Path]) -> None:
        if self.driver.mount_error:
            raise SandboxError("cannot mount")
        self.mounts = {**self.mounts, **mounts}

    async def set_limits(self, limits: SandboxLimits) -> None:
        if self.driver.limits_error:
            raise SandboxError("no limits")
        self.limits.append(limits)

    async def launch(self, launch: Launch) -> None:
        if self.driver.launch_error:
            raise SandboxError("cannot launch")
        self._task = asyncio.create_task(self._play(Runtime(self, launch)))

    async def _play(self, runtime: Runtime) -> None:
        try:
            await self.script(runtime)
            end = Exit(0, None)
        except Ended as ended:
            end = ended.end
        except asyncio.CancelledError:
            end = Exit(None, 9)
        except (ConnectionError, asyncio.IncompleteReadError):
            end = Exit(1, None)
        runtime.disconnect()
        if not self._ended.done():
            self._ended.set_result(end)

    def freeze(self) -> None:
        assert not self.frozen
        self.frozen = True

    def thaw(self) -> None:
        assert self.frozen
        self.frozen = False

    def kill(self) -> None:
        if self._task is not None and not self._task.done():
            self._task.cancel()

    def end(self, end: Exit) -> None:
        """The process ends now, whatever its script is at."""
        if not self._ended.done():
            self._ended.set_result(end)
        self.kill()

    async def wait(self) -> Exit:
        return await asyncio.shield(self._ended)

    async def destroy(self) -> None:
        if self.destroyed:
            return
        self.destroyed = True
        self.kill()
        await asyncio.sleep(self.driver.destroy_takes_s)
        for fd in (self.output, self.output_write, self.telemetry, self._telemetry_write):
            os.close(fd)
        self.runtime_api.close()
        self.runtime_socket.close()
        self.service_api.close()
        self._folder.cleanup()

    def memory_peak_bytes(self) -> int:
        if self.destroyed:
            raise SandboxDied(self.sandbox_id)
        return self.peak

    def memory_current_bytes(self) -> int:
        return self.peak

    def oom_kills(self) -> int:
        return self.oom


class ScriptedDriver:
    """Plays the scripts in turn, one an environment; the last one for all further ones."""

    def __init__(self, *scripts: Script) -> None:
        self.scripts = list(scripts)
        self.sandboxes: list[ScriptedSandbox] = []
        self.create_errors = 0
        self.create_takes_s = 0.0
        self.destroy_takes_s = 0.0
        self.launch_error = False
        self.limits_error = False
        self.mount_error = False

    async def start(self) -> DriverInfo:
        return DriverInfo("scripted")

    async def create(self, spec: SandboxSpec) -> ScriptedSandbox:
        await asyncio.sleep(self.create_takes_s)
        if self.create_errors:
            self.create_errors -= 1
            raise SandboxCreateError("no more sandboxes")
        script = self.scripts[min(len(self.sandboxes), len(self.scripts) - 1)]
        sandbox = ScriptedSandbox(self, spec, script)
        self.sandboxes.append(sandbox)
        return sandbox

    async def close(self) -> None:
        for sandbox in self.sandboxes:
            await sandbox.destroy()


def _listen(path: str) -> socket.socket:
    listening = socket.socket(socket.AF_UNIX)
    listening.bind(path)
    listening.listen()
    listening.setblocking(False)
    return listening
