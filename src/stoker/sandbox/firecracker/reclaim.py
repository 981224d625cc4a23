"""Takes idle memory back from a guest before it is frozen, and returns it when it runs again."""

import asyncio
from collections.abc import Callable

from stoker.sandbox.firecracker import records as fc
from stoker.sandbox.firecracker.api import FirecrackerApi
from stoker.sandbox.firecracker.faults import VmmError

RECLAIM_WITHIN_S = 0.2
"""How much later than asked a VM is frozen, at most: an empty guest gives its memory within this time."""
KEEP_MIB = 32
"""Left to a guest on top of what it uses; less than that to gain is not worth the work."""


class Reclaimer:
    """One guest's balloon. ``used_mib`` says what the guest uses now."""

    def __init__(self, api: FirecrackerApi, guest_mib: int, used_mib: Callable[[], int]) -> None:
        self._api = api
        self._guest_mib = guest_mib
        self._used_mib = used_mib
        self._inflated = False

    async def shrink(self) -> None:
        """Inflate the balloon by what is free. A guest that does not play along keeps its memory."""
        gain_mib = self._guest_mib - self._used_mib() - KEEP_MIB
        if gain_mib < KEEP_MIB:
            return
        try:
            async with asyncio.timeout(RECLAIM_WITHIN_S):
                self._inflated = True  # before: a thaw may come between the order and its answer
                await self._api.patch_balloon(fc.BalloonUpdate(amount_mib=gain_mib))
                await asyncio.sleep(RECLAIM_WITHIN_S)
        except (VmmError, TimeoutError):
            return

    async def give_back(self) -> None:
        """Deflate it; ``deflate_on_oom`` covers the moment until then."""
        if self._inflated:
            self._inflated = False
            try:
                await self._api.patch_balloon(fc.BalloonUpdate(amount_mib=0))
            except VmmError:  # it ends, or the guest takes it by itself
                self._inflated = True
