"""Kills a VMM that hangs: its API or its guest's init does not answer although it may run."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence

from stoker.core.errors import SandboxError

LOOK_EVERY_S = 5.0
ANSWER_WITHIN_S = 10.0


class Watchdog:
    """Asks each of ``questions`` from time to time while ``awake``; ``on_hang`` is told once."""

    def __init__(
        self,
        questions: Sequence[Callable[[], Awaitable[object]]],
        awake: Callable[[], bool],
        on_hang: Callable[[str], None],
    ) -> None:
        self._questions = questions
        self._awake = awake
        self._on_hang = on_hang
        self._task = asyncio.create_task(self._watch())

    def stop(self) -> None:
        """Look no more."""
        self._task.cancel()

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(LOOK_EVERY_S)
            if not self._awake():
                continue
            try:
                async with asyncio.timeout(ANSWER_WITHIN_S):
                    for question in self._questions:
                        await question()
            except (TimeoutError, SandboxError) as problem:
                if self._awake():  # what is frozen meanwhile cannot answer
                    self._on_hang(str(problem) or f"no answer within {ANSWER_WITHIN_S:g} s")
                    return
