"""Keeps code from being forgotten while a function that will name it is being written."""

import asyncio
from collections import Counter
from collections.abc import Callable, Generator
from contextlib import contextmanager

from stoker.control.layer_records import is_layer_code
from stoker.control.ports import Ports
from stoker.services.images import image_code, image_of_code

RECHECKS_MAX = 8
"""Holds may come and go while metadata is read; after this many the code is left for the next sweep."""


class CodeHolds:
    """Who needs which code for a moment: archives by CodeSha256, images by what ``image_code`` calls them.

    All decisions are synchronous; one instance in a process.
    """

    def __init__(self, ports: Ports) -> None:
        self._metadata = ports.metadata
        self._records = ports.records
        self._code = ports.code
        self._images = ports.images
        self._grace_s = ports.code_grace_s
        self._timers: dict[str, asyncio.TimerHandle] = {}
        self._forgetting: set[asyncio.Task[None]] = set()
        self._held: Counter[str] = Counter()
        self._removals = 0
        self._epoch = 0

    def take(self, code_sha256: str) -> Callable[[], None]:
        """Take at once after the code was admitted, with no await between; call the result to release."""
        self._held[code_sha256] += 1
        self._epoch += 1

        def release() -> None:
            self._held[code_sha256] -= 1
            if not self._held[code_sha256]:
                del self._held[code_sha256]

        return release

    @contextmanager
    def removing(self) -> Generator[None, None, None]:
        """While a write that takes versions' code away is under way, and until ``forget_later`` was called.

        Others may see that write before its author goes on: code without a version may be in its grace.
        """
        self._removals += 1
        self._epoch += 1
        try:
            yield
        finally:
            self._removals -= 1

    async def forget_if_unused(self, code_sha256: str) -> None:
        """Delete code that no version names and nobody holds; later, if cold starts may still want it.

        A hold taken and left between the question and its answer may have made the answer false: asked again.
        """
        for _ in range(RECHECKS_MAX):
            epoch = self._epoch
            if self._held[code_sha256] or await self._is_used(code_sha256):
                return
            if code_sha256 in self._timers:
                return
            if self._removals:
                self.forget_later(code_sha256)
                return
            if epoch == self._epoch:
                await self._forget(code_sha256)
                return

    async def _is_used(self, code_sha256: str) -> bool:
        """Named by a version of a function, as its code or one of its layers, or by a version of a layer."""
        if await self._metadata.code_is_used(code_sha256):
            return True
        return image_of_code(code_sha256) is None and await is_layer_code(self._records, code_sha256)

    async def _forget(self, code_sha256: str) -> None:
        if (image := image_of_code(code_sha256)) is not None:
            await self._images.forget(*image)
        else:
            await self._code.forget(code_sha256)

    def forget_later(self, code_sha256: str) -> None:
        """Forget replaced code once cold starts that were under way have had time to mount it."""
        earlier = self._timers.pop(code_sha256, None)
        if earlier is not None:
            earlier.cancel()
        loop = asyncio.get_running_loop()
        self._timers[code_sha256] = loop.call_later(self._grace_s, self._forget_now, code_sha256)

    async def close(self) -> None:
        """Drop the timers and the sweep: what they would have forgotten is swept at the next start."""
        for timer in self._timers.values():
            timer.cancel()
        self._timers.clear()
        for task in self._forgetting:
            task.cancel()
        await self.swept()

    def _forget_now(self, code_sha256: str) -> None:
        self._timers.pop(code_sha256, None)
        self._watch(asyncio.create_task(self.forget_if_unused(code_sha256)))

    def begin_sweep(self) -> None:
        """Delete, behind the requests, whatever a killed process admitted and never named."""
        self._watch(asyncio.create_task(self._sweep()))

    async def swept(self) -> None:
        """Wait until nothing is being forgotten."""
        while self._forgetting:
            await asyncio.wait(self._forgetting)

    async def _sweep(self) -> None:
        for code_sha256 in await self._code.stored():
            await self.forget_if_unused(code_sha256)
        for account, digest in await self._images.stored():
            await self.forget_if_unused(image_code(account, digest))

    def _watch(self, task: asyncio.Task[None]) -> None:
        self._forgetting.add(task)
        task.add_done_callback(self._forgetting.discard)
