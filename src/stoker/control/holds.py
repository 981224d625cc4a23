"""Keeps code from being forgotten while a function that will name it is being written."""

from collections import Counter
from collections.abc import Generator
from contextlib import contextmanager

from stoker.services.code import CodeStore
from stoker.services.functions import FunctionMetadata

RECHECKS_MAX = 8
"""Holds may come and go while metadata is read; after this many the code is left for the next sweep."""


class CodeHolds:
    """Who needs which code for a moment. All decisions are synchronous; one instance in a process."""

    def __init__(self, metadata: FunctionMetadata, code: CodeStore) -> None:
        self._metadata = metadata
        self._code = code
        self._held: Counter[str] = Counter()
        self._epoch = 0

    @contextmanager
    def hold(self, code_sha256: str) -> Generator[None]:
        """Enter without awaiting anything after the code was admitted; leave once metadata names it."""
        self._held[code_sha256] += 1
        self._epoch += 1
        try:
            yield
        finally:
            self._held[code_sha256] -= 1
            if not self._held[code_sha256]:
                del self._held[code_sha256]

    async def forget_if_unused(self, code_sha256: str) -> None:
        """Delete code that no version names and nobody holds.

        A hold taken and left between the question and its answer may have made the answer false: asked again.
        """
        for _ in range(RECHECKS_MAX):
            epoch = self._epoch
            if self._held[code_sha256] or await self._metadata.code_is_used(code_sha256):
                return
            if epoch == self._epoch:
                await self._code.forget(code_sha256)
                return

    async def sweep(self) -> None:
        """Delete whatever a killed process admitted and never named."""
        for code_sha256 in await self._code.stored():
            await self.forget_if_unused(code_sha256)
