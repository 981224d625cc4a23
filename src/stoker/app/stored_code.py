"""Finds at the start what the object store holds, and goes on trying when that does not answer.

The service starts all the same: whatever needs the store says so itself.
"""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from typing import Final

import structlog

from stoker.core.errors import StokerError
from stoker.packaging.code_vault import CodeVault
from stoker.services.object_store import ObjectStoreUnavailable

START_WAIT_S: Final = 3.0
"""How long the start waits for it."""
FIRST_PAUSE_S: Final = 0.5
PAUSE_MAX_S: Final = 15.0

_log = structlog.get_logger("stoker.app")


class StoredCode:
    """``start`` returns when the store was listed or does not answer in time; ``close`` ends the attempts."""

    def __init__(self, vault: CodeVault, then: Callable[[], Awaitable[None]]) -> None:
        """``then`` runs once the store was listed, and again if the store failed it."""
        self._vault = vault
        self._then = then
        self._task: asyncio.Task[None] | None = None
        self._first_failed = asyncio.Event()
        self.trouble = ""
        """Why it is not known yet what is stored; empty: it is."""

    async def start(self) -> None:
        """Begin.

        Raises:
            StokerError, OSError: something else than the store failed, at once.
        """
        self.trouble = "the object store does not answer"
        self._task = asyncio.create_task(self._run())
        failing = asyncio.create_task(self._first_failed.wait())
        await asyncio.wait({self._task, failing}, timeout=START_WAIT_S, return_when=asyncio.FIRST_COMPLETED)
        failing.cancel()
        if self._task.done():
            self._task.result()
        else:
            _log.error("starting without the object store", problem=self.trouble)

    def troubles(self) -> tuple[str, ...]:
        """For ``stoker doctor``."""
        return (self.trouble,) if self.trouble else ()

    async def close(self) -> None:
        """Stop trying."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError, StokerError, OSError):
                await self._task

    async def _run(self) -> None:
        pause_s = FIRST_PAUSE_S
        while True:
            try:
                await self._vault.start()
                await self._then()
                break
            except ObjectStoreUnavailable as problem:
                self.trouble = f"the object store does not answer: {problem}"
                self._first_failed.set()
            await asyncio.sleep(pause_s)
            pause_s = min(pause_s * 2, PAUSE_MAX_S)
        if self._first_failed.is_set():
            _log.info("the object store answers")
        self.trouble = ""
