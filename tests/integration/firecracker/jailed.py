"""Asks a jail for VMs without any driver, and looks at what came of it from outside."""

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

from stoker.sandbox.container_connection import JailConnection, JailUnavailable
from stoker.sandbox.container_protocol import Answer, Handle, Operation
from stoker.sandbox.driver import SandboxLimits
from stoker.sandbox.firecracker import records as fc
from stoker.sandbox.firecracker.api import FirecrackerApi
from stoker.sandbox.firecracker.faults import VmmUnreachable
from tests.firecracker import VERSION, halting_kernel
from tests.integration.sandbox.running_jail import RunningJail

LIMITS = SandboxLimits(memory_mb=256, cpu_quota=0.5, tmp_mb=200, open_files_max=256)


class Vm:
    """One VMM behind its jailer."""

    def __init__(self, answer: Answer, jail: JailConnection) -> None:
        self.answer = answer
        self.jail = jail
        self.sockets = Path(f"/proc/self/fd/{answer.handles[Handle.ROOT]}")
        self.api = FirecrackerApi(self.sockets / "api.sock", VERSION)
        info = Path(f"/proc/self/fdinfo/{answer.handles[Handle.PIDFD]}").read_text()
        self.pid = int(info.partition("Pid:")[2].split()[0])
        self.proc = Path("/proc") / str(self.pid)

    async def ready(self) -> None:
        for _ in range(500):
            with contextlib.suppress(VmmUnreachable):
                await self.api.describe()
                return
            await asyncio.sleep(0.005)
        raise AssertionError(os.read(self.answer.handles[Handle.OUTPUT], 4096).decode())

    async def boot(self, kernel: str = "/f0", memory_mib: int = 128) -> None:
        await self.api.put_machine_config(fc.MachineConfig(vcpu_count=1, mem_size_mib=memory_mib))
        await self.api.put_boot_source(fc.BootSource(kernel_image_path=kernel, boot_args="panic=-1"))
        await self.api.start()

    async def destroy(self) -> None:
        await self.api.close()
        answer = await self.jail.request(Operation.DESTROY, sandbox=self.answer.sandbox)
        assert answer.status == 0
        self.close()

    def close(self) -> None:
        for fd in self.answer.handles.values():
            os.close(fd)


async def connect(jail: RunningJail) -> JailConnection:
    for _ in range(500):
        with contextlib.suppress(JailUnavailable):
            connection = JailConnection.open(jail.socket_path, lambda _: None)
            await connection.request(Operation.HELLO)
            return connection
        await asyncio.sleep(0.02)
    raise AssertionError(jail.log())


async def start_vm(jail: JailConnection, files: Sequence[int], *, egress: bool = False) -> Vm:
    answer = await jail.request(Operation.VM, limits=LIMITS, files=files, egress=egress)
    assert answer.status == 0, f"{answer.stage}: {os.strerror(-answer.status)}"
    vm = Vm(answer, jail)
    await vm.ready()
    return vm


@contextlib.contextmanager
def kernel_file(folder: Path) -> "contextlib.Generator[int]":
    path = folder / "kernel"
    path.write_bytes(halting_kernel())
    fd = os.open(path, os.O_RDONLY)
    yield fd
    os.close(fd)


async def gone(pid: int) -> None:
    for _ in range(500):
        if not Path(f"/proc/{pid}").exists():
            return
        await asyncio.sleep(0.01)
    raise AssertionError(f"process {pid} is still there")


Connections = AsyncIterator[JailConnection]
