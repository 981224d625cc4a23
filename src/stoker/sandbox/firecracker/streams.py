"""The host's ends of one guest's connections: its orders, its output, its telemetry, each accepted once.

The runtime's and the service's connections are accepted by whoever serves them.
"""

import asyncio
import socket
from collections.abc import Callable, Mapping

from stoker.core.errors import SandboxCreateError
from stoker.sandbox.container_launch import Report
from stoker.sandbox.guest.contract import PORT_CONTROL, PORT_OUTPUT, PORT_TELEMETRY
from stoker.sandbox.guest.control import GuestControl


class GuestStreams:
    """``output`` and ``telemetry`` are non-blocking sockets; ``control`` gives orders."""

    def __init__(self, control: GuestControl, output: socket.socket, telemetry: socket.socket) -> None:
        self.control = control
        self.output = output
        self.telemetry = telemetry

    @classmethod
    async def accept(
        cls, listeners: Mapping[int, socket.socket], on_report: Callable[[Report], None], within_s: float
    ) -> "GuestStreams":
        """Wait for a guest that boots, or was restored, and for its hello.

        Raises:
            SandboxCreateError: it did not come in time, or broke the contract.
        """
        accepted: list[socket.socket] = []
        try:
            async with asyncio.timeout(within_s):
                for port in (PORT_CONTROL, PORT_OUTPUT, PORT_TELEMETRY):
                    accepted.append(await _accept(listeners[port]))  # noqa: PERF401  (kept when the next fails)
                control = GuestControl(accepted[0], on_report=on_report)
                try:
                    await control.hello()
                except BaseException:
                    control.close()
                    raise
        except TimeoutError as problem:
            _close(accepted)
            raise SandboxCreateError(f"the guest said nothing within {within_s:g} s") from problem
        except BaseException:
            _close(accepted)
            raise
        return cls(control, accepted[1], accepted[2])

    def close(self) -> None:
        """End all three."""
        self.control.close()
        self.output.close()
        self.telemetry.close()


async def _accept(listening: socket.socket) -> socket.socket:
    accepted, _ = await asyncio.get_running_loop().sock_accept(listening)
    accepted.setblocking(False)
    return accepted


def _close(accepted: list[socket.socket]) -> None:
    for connection in accepted:
        connection.close()
