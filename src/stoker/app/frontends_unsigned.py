"""What needs no signature, in a front-end process: pages asked of the service, archives it names."""

import asyncio
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Final

from stoker.app.frontends_protocol import CODE, PAGE
from stoker.app.unsigned import TEXT, Downloads, Page
from stoker.core.errors import StokerError
from stoker.http.messages import Handler, Reply, Request
from stoker.transport.rpc import RpcPeer

PATHS: Final = ("/health", "/ready", "/metrics")
PAGES_MAX: Final = 256
"""Asked for at one time; strangers may ask."""

_BUSY: Final = Page(503, TEXT, b"too many requests at one time\n")
_UNREACHABLE: Final = Page(503, TEXT, b"the service does not answer\n")


class RemotePages:
    """Answers with the service's own pages, so that a front end is as live and as ready as the service."""

    def __init__(self, peer: RpcPeer) -> None:
        self._peer = peer
        self._tasks: set[asyncio.Task[None]] = set()

    def routes(self) -> dict[bytes, Handler]:
        """Handlers by path."""
        return {path.encode(): partial(self._answer, path) for path in PATHS}

    async def close(self) -> None:
        """End what is under way."""
        for task in tuple(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _answer(self, path: str, request: Request, reply: Reply) -> None:
        if len(self._tasks) >= PAGES_MAX:
            _BUSY.send(reply)
            return
        task = asyncio.get_running_loop().create_task(self._ask(path, reply))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _ask(self, path: str, reply: Reply) -> None:
        try:
            page: Page = await self._peer.call(PAGE, path)
        except StokerError:
            page = _UNREACHABLE
        page.send(reply)


def remote_downloads(peer: RpcPeer) -> Downloads:
    """Downloads of archives that the service finds and this process reads: both run as the same user."""

    async def find(path: str, query: Mapping[str, str]) -> Path | None:
        found: str | None = await peer.call(CODE, path, query)
        return None if found is None else Path(found)

    return Downloads(find)
