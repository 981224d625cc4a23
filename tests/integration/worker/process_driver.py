"""A sandbox driver without isolation: each sandbox is a process group of this user, for tests of the worker.

Paths of the sandbox are rewritten to those of the host; nothing else of the driver port is left out.
"""

import asyncio
import contextlib
import os
import signal
import socket
import subprocess
from collections.abc import Mapping
from pathlib import Path

from stoker.core.errors import SandboxCreateError, SandboxDied
from stoker.sandbox.driver import DriverInfo, Exit, Launch, MountPoint, SandboxLimits, SandboxSpec


class ProcessSandbox:
    def __init__(self, spec: SandboxSpec) -> None:
        self.spec = spec
        self.limits = [spec.limits]
        self.frozen = False
        self.freezes = 0
        self.thaws = 0
        self.destroyed = False
        self.runtime_api = _listen()
        self.runtime_socket = socket.socket(socket.AF_UNIX)
        self.runtime_socket.bind("")  # a name of the kernel's choice: these processes share one network
        self.runtime_socket.listen()
        self.service_api = _listen()
        self.runtime_port = self.runtime_api.getsockname()[1]
        self.output, self._output_write = os.pipe()
        self.telemetry, self.telemetry_fd_inside = os.pipe()
        os.set_blocking(self.output, False)
        os.set_blocking(self.telemetry, False)
        self.process: subprocess.Popen[bytes] | None = None
        self._ended = asyncio.Event()
        self._exit: Exit | None = None

    @property
    def sandbox_id(self) -> str:
        return self.spec.sandbox_id

    async def mount(self, mounts: Mapping[MountPoint, Path]) -> None:
        self.spec = SandboxSpec(self.spec.sandbox_id, self.spec.limits, {**self.spec.mounts, **mounts})

    async def set_limits(self, limits: SandboxLimits) -> None:
        if self.destroyed:
            raise SandboxDied(self.sandbox_id)
        self.limits.append(limits)

    def _on_host(self, text: str) -> str:
        for place, folder in self.spec.mounts.items():
            text = text.replace(place.value, str(folder))
        return text

    async def launch(self, launch: Launch) -> None:
        environment = {key: self._on_host(value) for key, value in launch.environment.items()}
        environment["AWS_LAMBDA_RUNTIME_API"] = f"127.0.0.1:{self.runtime_port}"
        environment["AWS_ENDPOINT_URL_LAMBDA"] = f"http://127.0.0.1:{self.service_api.getsockname()[1]}"
        try:
            self.process = subprocess.Popen(
                [self._on_host(argument) for argument in launch.argv],
                env=environment,
                cwd=self._on_host(launch.working_directory),
                stdin=subprocess.DEVNULL,
                stdout=self._output_write,
                stderr=self._output_write,
                pass_fds=(self.telemetry_fd_inside,),
                start_new_session=True,
            )
        except OSError as error:
            raise SandboxCreateError(str(error)) from error
        os.close(self._output_write)
        os.close(self.telemetry_fd_inside)
        self._pidfd = os.pidfd_open(self.process.pid)
        asyncio.get_running_loop().add_reader(self._pidfd, self._reap)

    def _reap(self) -> None:
        assert self.process is not None
        asyncio.get_running_loop().remove_reader(self._pidfd)
        os.close(self._pidfd)
        code = self.process.wait()
        self._signal(signal.SIGKILL)
        self._exit = Exit(code, None) if code >= 0 else Exit(None, -code)
        self._ended.set()

    def _signal(self, number: int) -> None:
        if self.process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.process.pid, number)

    def freeze(self) -> None:
        self.frozen = True
        self.freezes += 1
        self._signal(signal.SIGSTOP)

    def thaw(self) -> None:
        self.frozen = False
        self.thaws += 1
        self._signal(signal.SIGCONT)

    def kill(self) -> None:
        self._signal(signal.SIGKILL)

    async def wait(self) -> Exit:
        await self._ended.wait()
        assert self._exit is not None
        return self._exit

    async def destroy(self) -> None:
        if self.destroyed:
            return
        self.destroyed = True
        self.kill()
        if self.process is not None:
            await self._ended.wait()
        else:
            os.close(self._output_write)
            os.close(self.telemetry_fd_inside)
        os.close(self.output)
        os.close(self.telemetry)
        self.runtime_api.close()
        self.runtime_socket.close()
        self.service_api.close()

    def _memory(self, field: str) -> int:
        if self.process is None or self._exit is not None:
            return 0
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(status.partition(f"{field}:")[2].split(None, 1)[0]) * 1024 if field in status else 0

    def memory_peak_bytes(self) -> int:
        return self._memory("VmHWM")

    def memory_current_bytes(self) -> int:
        return self._memory("VmRSS")

    def oom_kills(self) -> int:
        return 0


class ProcessDriver:
    def __init__(self) -> None:
        self.sandboxes: list[ProcessSandbox] = []

    async def start(self) -> DriverInfo:
        return DriverInfo("process", ("everything: no isolation",))

    async def create(self, spec: SandboxSpec) -> ProcessSandbox:
        sandbox = ProcessSandbox(spec)
        self.sandboxes.append(sandbox)
        return sandbox

    async def close(self) -> None:
        for sandbox in self.sandboxes:
            await sandbox.destroy()


def _listen() -> socket.socket:
    listening = socket.create_server(("127.0.0.1", 0))
    listening.setblocking(False)
    return listening
