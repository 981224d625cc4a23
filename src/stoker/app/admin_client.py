"""A small synchronous client of the admin socket, for the command line."""

import contextlib
import http.client
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import urlencode

import msgspec

from stoker.core.access import Access
from stoker.core.errors import StokerError
from stoker.services.admin import HostReport, ImageDetails, ImportedImage, ImportEvent
from stoker.services.keys import KeysReport
from stoker.services.queue import QueueReport
from stoker.services.worker import SandboxStatus

ANSWER_TIMEOUT_S = 10.0
ACTION_TIMEOUT_S = 3600.0
"""Of what may go through everything that is stored."""

IMPORT_TIMEOUT_S = 60.0
"""Between two lines of an import's answer, which come twice a second; for a piece of the archive to go."""
LINE_MAX_BYTES = 1024 * 1024


class ServiceNotRunning(StokerError):
    """Nothing answers on the admin socket."""


class AdminRefused(StokerError):
    """The service would not; the message is its own."""


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

    def events(self) -> QueueReport:
        """Asynchronous events and records that wait. Raises ServiceNotRunning."""
        return msgspec.json.decode(self._get("/events"), type=QueueReport)

    def keys(self) -> KeysReport:
        """The master keys. Raises ServiceNotRunning."""
        return msgspec.json.decode(self._get("/keys"), type=KeysReport)

    def rotate_keys(self) -> KeysReport:
        """A new active master key. Raises AdminRefused, ServiceNotRunning."""
        return msgspec.json.decode(self._post("/keys/rotate"), type=KeysReport)

    def retire_keys(self, *, end_sessions: bool) -> KeysReport:
        """Remove old master keys. Raises AdminRefused, ServiceNotRunning."""
        path = "/keys/retire?end_sessions=true" if end_sessions else "/keys/retire"
        return msgspec.json.decode(self._post(path), type=KeysReport)

    def images(self) -> list[ImportedImage]:
        """Every imported image. Raises ServiceNotRunning."""
        return msgspec.json.decode(self._get("/images"), type=list[ImportedImage])

    def image(self, name: str) -> dict[str, ImageDetails]:
        """One imported image, by architecture. Raises AdminRefused, ServiceNotRunning."""
        return msgspec.json.decode(self._get(_image(name)), type=dict[str, ImageDetails])

    def remove_image(self, name: str) -> None:
        """Take the name of an imported image away. Raises AdminRefused, ServiceNotRunning."""
        self._ask("DELETE", _image(name), ANSWER_TIMEOUT_S)

    def import_image(
        self, archive: Iterator[bytes], name: str, chosen: str | None, note: Callable[[ImportEvent], None]
    ) -> ImportedImage:
        """Send an archive, and be told how it goes.

        Raises:
            AdminRefused, ServiceNotRunning: nothing was imported.
        """
        connection = _UnixConnection(self._path, IMPORT_TIMEOUT_S)
        try:
            connection.connect()
            # A service that refuses does not read on; its answer says why.
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                headers = {"Transfer-Encoding": "chunked"}
                connection.request("POST", _image(name, chosen), archive, headers, encode_chunked=True)
            response = connection.getresponse()
            while line := response.readline(LINE_MAX_BYTES):
                event = msgspec.json.decode(line, type=ImportEvent)
                note(event)
                if event.imported is not None:
                    return event.imported
                if event.refused is not None:
                    raise AdminRefused(event.refused)
        except (OSError, http.client.HTTPException, msgspec.DecodeError) as problem:
            raise ServiceNotRunning(self._why(problem)) from problem
        finally:
            connection.close()
        raise ServiceNotRunning(f"{self._path}: the service broke off the import")

    def _get(self, path: str) -> bytes:
        return self._ask("GET", path, ANSWER_TIMEOUT_S)

    def _post(self, path: str) -> bytes:
        return self._ask("POST", path, ACTION_TIMEOUT_S)

    def _ask(self, method: str, path: str, timeout_s: float) -> bytes:
        connection = _UnixConnection(self._path, timeout_s)
        try:
            connection.request(method, path)
            response = connection.getresponse()
            body = response.read()
        except (OSError, http.client.HTTPException) as problem:
            raise ServiceNotRunning(self._why(problem)) from problem
        finally:
            connection.close()
        if response.status == 409:
            raise AdminRefused(msgspec.json.decode(body, type=dict[str, str])["message"])
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
    def __init__(self, path: Path, timeout_s: float) -> None:
        super().__init__("stoker", timeout=timeout_s)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self._path))


def _image(name: str, chosen: str | None = None) -> str:
    query = {"name": name} | ({"chosen": chosen} if chosen is not None else {})
    return f"/image?{urlencode(query)}"
