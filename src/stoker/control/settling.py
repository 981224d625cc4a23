"""Brings functions from Pending to Active and updates from InProgress to Successful, in the background."""

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

from stoker.control.holds import CodeHolds
from stoker.control.images import FunctionImages, reason_code
from stoker.control.ports import Ports
from stoker.control.records import failed, settled
from stoker.core.errors import StokerError
from stoker.services.functions import FunctionMissing, FunctionVersion, RevisionMismatch

T = TypeVar("T")

ATTEMPTS = 5
FIRST_WAIT_S = 0.2
"""Doubled after each attempt to write the outcome; after the last, the next start takes it up."""


class Settling:
    """Owns the tasks; each ends with its version settled, failed, replaced or deleted."""

    def __init__(self, ports: Ports, holds: CodeHolds) -> None:
        self._ports = ports
        self._holds = holds
        self._images = FunctionImages(ports)
        self._admitting: set[asyncio.Task[Any]] = set()
        self._tasks: set[asyncio.Task[Any]] = set()

    def begin(self, version: FunctionVersion) -> None:
        """Settle a version that was just written."""
        task = asyncio.create_task(self._settle(version))
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    async def uninterrupted(self, write: Coroutine[Any, Any, T]) -> T:
        """Run ``write`` to its end also when the caller goes away: what was written gets settled."""
        task = asyncio.create_task(write)
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return await asyncio.shield(task)

    async def resume(self) -> None:
        """Take up what a killed process left under way."""
        for version in await self._ports.metadata.unsettled():
            self.begin(version)

    async def close(self) -> None:
        """Wait until nothing is under way; an image that is being fetched is for the next start."""
        for task in tuple(self._admitting):
            task.cancel()
        await self.drained()

    async def drained(self) -> None:
        """Wait until nothing is under way."""
        while self._tasks:
            await asyncio.wait(self._tasks)

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)

    async def _settle(self, version: FunctionVersion) -> None:
        revision_id = self._ports.new_id()
        try:
            await self._make_ready(version)
        except StokerError as problem:
            reason = f"The code could not be made ready: {problem}"
            outcome = failed(version, revision_id, reason, reason_code(problem))
        else:
            moves_on = version.next_image is not None
            outcome = settled(
                version, revision_id, self._ports.new_id() if moves_on else version.deployment_id
            )
        with self._holds.removing():
            written = await self._write(outcome, version.revision_id)
            for code_sha256 in version.codes - outcome.codes:
                self._holds.forget_later(code_sha256)
        if written:
            self._ports.invalidation.publish(version.key)

    async def _make_ready(self, version: FunctionVersion) -> None:
        image = version.next_image or version.image
        if image is None:
            await self._ports.code.prepare(
                version.code_name, version.layer_codes, version.runtime, version.key.account
            )
            return
        task = asyncio.current_task()
        assert task is not None
        self._admitting.add(task)
        try:
            await self._images.admit(image, version.key.account, version.kms_key_arn)
        finally:
            self._admitting.discard(task)

    async def _write(self, outcome: FunctionVersion, expected_revision_id: str) -> bool:
        for attempt in range(ATTEMPTS):
            try:
                await self._ports.metadata.replace_version(outcome, expected_revision_id)
            except (FunctionMissing, RevisionMismatch):
                return False
            except StokerError:
                await asyncio.sleep(FIRST_WAIT_S * 2**attempt)
            else:
                return True
        return False
