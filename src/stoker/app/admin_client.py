"""A small synchronous client of the admin socket, for the command line."""

import http.client
import socket
from pathlib import Path

import msgspec

from stoker.core.access import Access
from stoker.core.errors import StokerError
from stoker.services.admin import HostReport
from stoker.services.worker import SandboxStatus

ANSWER_TIMEOUT_S = 10.0


class ServiceNotRunning(StokerError):
    """Nothing answers on the admin socket."""


class AdminClient:
    """Asks a running service what only its own user and root may know."""

    def __init__(self, data: Path) -> None:
        self._path = data / "run" / "admin.sock"

    def access(self) -> Access:
        """Endpoint and root key of the service.

        Raises:
            ServiceNotRunning: with the reason.
        """
        return msgspec.json.decode(self._get("/access"), type=Access)

    def host(self) -> HostReport:
        """What the service can enforce here. Raises ServiceNotRunning."""
        return msgspec.json.decode(self._get("/host"), type=HostReport)

    def sandboxes(self) -> list[SandboxStatus]:
        """Every sandbox. Raises ServiceNotRunning."""
        return msgspec.json.decode(self._get("/sandboxes"), type=list[SandboxStatus])

    def _get(self, path: str) -> bytes:
        connection = _UnixConnection(self._path)
        try:
            connection.request("GET", path)
            response = connection.getresponse()
            body = response.read()
        except (OSError, http.client.HTTPException) as problem:
            raise ServiceNotRunning(self._why(problem)) from problem
        finally:
            connection.close()
        if response.status != 200:
            raise ServiceNotRunning(
                f"the service refused {path}: {response.status} {body.decode(errors='replace')}"
            )
        return body

    def _why(self, problem: Exception) -> str:
        data = self._path.parent.parent
        if isinstance(problem, FileNotFoundError | ConnectionRefusedError):
            return (
                f"no Stoker runs with the data folder {data}: start one with 'stoker up --data {data}', "
                "or name another folder with --data or STOKER_DATA"
            )
        if isinstance(problem, PermissionError):
            return (
                f"{self._path} may be asked only by root and by the account that the service runs as; "
                "others need its keys in their environment (stoker env)"
            )
        return f"no answer on {self._path}: {problem}"


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: Path) -> None:
        super().__init__("stoker", timeout=ANSWER_TIMEOUT_S)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self._path))
