"""The client of one Firecracker's API over its Unix socket: typed calls, typed faults, everything bounded.

What the process behind the socket answers is not trusted: it holds a guest. Knows no sandboxes and no files.
"""

from pathlib import Path
from types import TracebackType
from typing import Self, TypeVar

import msgspec

from stoker.http.client import ClientLimits, HttpClient, Response, unix_origin
from stoker.http.errors import ConnectFailed, ExchangeTimeout, HttpError, PeerVanished
from stoker.sandbox.firecracker import records as fc
from stoker.sandbox.firecracker.faults import TooOld, VmmNonsense, VmmRefused, VmmTimeout, VmmUnreachable
from stoker.sandbox.firecracker.versions import missing_in

ANSWER_BYTES_MAX = 256 * 1024
REQUEST_BYTES_MAX = 51_200
"""What Firecracker itself takes, unless told otherwise."""
FAULT_CHARACTERS_MAX = 500
CALL_TIMEOUT_S = 5.0
START_TIMEOUT_S = 10.0
SNAPSHOT_TIMEOUT_S = 60.0
"""A snapshot writes all of the guest's memory."""

T = TypeVar("T")

_LIMITS = ClientLimits(
    max_connections_per_origin=1,
    max_waiting_per_origin=64,
    max_origins=1,
    connect_timeout_s=2.0,
    max_response_bytes=ANSWER_BYTES_MAX,
    max_response_header_bytes=8 * 1024,
)


class FirecrackerApi:
    """One VMM. Calls are sent one after the other. Every one may raise a ``VmmError``.

    ``version`` refuses, before anything is sent, what that Firecracker does not know yet.
    """

    def __init__(self, socket_path: Path | str, version: fc.Version = fc.OLDEST) -> None:
        self._origin = unix_origin(str(socket_path))
        self._http = HttpClient(_LIMITS)
        self.version = version

    async def close(self) -> None:
        """Disconnect. The machine goes on."""
        await self._http.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    # --- asking ----------------------------------------------------------------------------------

    async def describe(self) -> fc.InstanceInfo:
        """Its id, state and version."""
        return await self._get("/", fc.InstanceInfo)

    async def get_version(self) -> fc.Version:
        """Ask which Firecracker it is, and hold to that from now on.

        Raises:
            VmmNonsense: the answer is no version.
            TooOld: older than 1.12.
        """
        text = (await self._get("/version", fc.FirecrackerVersion)).firecracker_version
        try:
            version = fc.parse_version(text)
        except ValueError as problem:
            raise VmmNonsense(str(problem)) from problem
        if version < fc.OLDEST:
            raise TooOld(f"Firecracker {text} is older than {fc.OLDEST[0]}.{fc.OLDEST[1]}")
        self.version = version
        return version

    async def configuration(self) -> fc.Configuration:
        """Everything that was put so far."""
        return await self._get("/vm/config", fc.Configuration)

    async def machine_config(self) -> fc.MachineConfig:
        """Its vCPUs and memory."""
        return await self._get("/machine-config", fc.MachineConfig)

    async def balloon_statistics(self) -> fc.BalloonStatistics:
        """What the guest said of its memory."""
        return await self._get("/balloon/statistics", fc.BalloonStatistics)

    # --- before the start --------------------------------------------------------------------------

    async def put_boot_source(self, source: fc.BootSource) -> None:
        """Which kernel boots."""
        await self._send("PUT", "/boot-source", source)

    async def put_drive(self, drive: fc.Drive) -> None:
        """Add a block device."""
        await self._send("PUT", f"/drives/{_identifier(drive.drive_id)}", drive)

    async def put_machine_config(self, machine: fc.MachineConfig) -> None:
        """Its vCPUs and memory."""
        await self._send("PUT", "/machine-config", machine)

    async def patch_machine_config(self, update: fc.MachineUpdate) -> None:
        """Change some of that."""
        await self._send("PATCH", "/machine-config", update)

    async def put_network_interface(self, interface: fc.NetworkInterface) -> None:
        """Add a network device."""
        await self._send("PUT", f"/network-interfaces/{_identifier(interface.iface_id)}", interface)

    async def put_vsock(self, vsock: fc.Vsock) -> None:
        """Add the socket device."""
        await self._send("PUT", "/vsock", vsock)

    async def put_entropy(self, entropy: fc.Entropy) -> None:
        """Add the entropy device."""
        await self._send("PUT", "/entropy", entropy)

    async def put_serial(self, serial: fc.Serial) -> None:
        """Send the serial port's output somewhere."""
        await self._send("PUT", "/serial", serial)

    async def put_balloon(self, balloon: fc.Balloon) -> None:
        """Add the balloon device."""
        await self._send("PUT", "/balloon", balloon)

    async def put_logger(self, logger: fc.Logger) -> None:
        """Where it logs."""
        await self._send("PUT", "/logger", logger)

    async def put_metrics(self, metrics: fc.Metrics) -> None:
        """Where its counters go."""
        await self._send("PUT", "/metrics", metrics)

    # --- while it runs -------------------------------------------------------------------------------

    async def start(self) -> None:
        """Boot the guest."""
        await self._act(fc.ActionType.INSTANCE_START, START_TIMEOUT_S)

    async def flush_metrics(self) -> None:
        """Write one object to the metrics file."""
        await self._act(fc.ActionType.FLUSH_METRICS, CALL_TIMEOUT_S)

    async def pause(self) -> None:
        """Stop the vCPUs."""
        await self._send("PATCH", "/vm", fc.VmState(state=fc.RunState.PAUSED))

    async def resume(self) -> None:
        """Let the vCPUs run."""
        await self._send("PATCH", "/vm", fc.VmState(state=fc.RunState.RESUMED))

    async def patch_drive(self, update: fc.DriveUpdate) -> None:
        """Put another file behind a drive."""
        await self._send("PATCH", f"/drives/{_identifier(update.drive_id)}", update)

    async def patch_network_interface(self, update: fc.NetworkUpdate) -> None:
        """Change a network device's rates."""
        await self._send("PATCH", f"/network-interfaces/{_identifier(update.iface_id)}", update)

    async def patch_balloon(self, update: fc.BalloonUpdate) -> None:
        """Take memory from the guest, or give it back."""
        await self._send("PATCH", "/balloon", update)

    async def patch_balloon_statistics(self, update: fc.BalloonStatisticsUpdate) -> None:
        """How often the guest is asked."""
        await self._send("PATCH", "/balloon/statistics", update)

    async def create_snapshot(self, snapshot: fc.SnapshotCreate) -> None:
        """Write the paused machine down."""
        await self._send("PUT", "/snapshot/create", snapshot, SNAPSHOT_TIMEOUT_S)

    async def load_snapshot(self, snapshot: fc.SnapshotLoad) -> None:
        """Become the machine of a snapshot."""
        await self._send("PUT", "/snapshot/load", snapshot, START_TIMEOUT_S)

    # --- the wire ------------------------------------------------------------------------------------

    async def _act(self, action: fc.ActionType, timeout_s: float) -> None:
        await self._send("PUT", "/actions", fc.Action(action_type=action), timeout_s)

    async def _get(self, path: str, kind: type[T]) -> T:
        answer = await self._exchange("GET", path, b"", CALL_TIMEOUT_S)
        if answer.status != 200:
            raise _refusal(f"GET {path}", answer)
        try:
            return msgspec.json.decode(answer.body, type=kind)
        except (msgspec.DecodeError, UnicodeDecodeError) as problem:
            raise VmmNonsense(f"GET {path}: {problem}") from problem

    async def _send(self, method: str, path: str, body: fc.Record, timeout_s: float = CALL_TIMEOUT_S) -> None:
        unknown = missing_in(self.version, path, body)
        if unknown:
            raise TooOld(f"{method} {path}: {unknown}")
        data = msgspec.json.encode(body)
        if len(data) > REQUEST_BYTES_MAX:
            raise VmmRefused(f"{method} {path}", 413, f"more than {REQUEST_BYTES_MAX} bytes")
        answer = await self._exchange(method, path, data, timeout_s)
        if answer.status not in (200, 204):
            raise _refusal(f"{method} {path}", answer)

    async def _exchange(self, method: str, path: str, data: bytes, timeout_s: float) -> Response:
        what = f"{method} {path}"
        headers = [(b"accept", b"application/json")]
        if data:
            headers.append((b"content-type", b"application/json"))
        try:
            return await self._http.request(
                method,
                self._origin,
                path.encode("ascii"),
                headers=headers,
                body=data,
                timeout_s=timeout_s,
                idempotent=method == "GET",
            )
        except ExchangeTimeout as problem:
            raise VmmTimeout(f"{what}: {problem}") from problem
        except (ConnectFailed, PeerVanished) as problem:
            raise VmmUnreachable(f"{what}: {problem}") from problem
        except HttpError as problem:
            raise VmmNonsense(f"{what}: {problem}") from problem


def _identifier(text: str) -> str:
    """Ids become part of a path: letters, digits and underscores, as Firecracker itself wants them."""
    if not text or not text.isascii() or not text.replace("_", "").isalnum():
        raise VmmRefused(f"the id {text[:40]!r}", 400, "letters, digits and underscores only")
    return text


def _refusal(what: str, answer: Response) -> VmmRefused | VmmNonsense:
    try:
        fault = msgspec.json.decode(answer.body, type=fc.Fault).fault_message
    except (msgspec.DecodeError, UnicodeDecodeError):
        return VmmNonsense(f"{what}: status {answer.status} without a fault message")
    return VmmRefused(what, answer.status, fault[:FAULT_CHARACTERS_MAX])
