"""Callers that wait for a sandbox while theirs is being made. Pure bookkeeping over answers."""

from collections import deque

from stoker.core.promise import Promise
from stoker.services.manager import Reservation

Waiter = Promise[Reservation]


class Waiting:
    """Per deployment, callers in the order they came, and how many sandboxes are being made for them.

    There are never more callers than sandboxes in the making, unless one of these stands still for want of
    room: then callers just queue behind it. Whoever came first takes whatever sandbox is free first, a new
    one or one that was given back meanwhile.
    """

    def __init__(self) -> None:
        self._waiters: dict[str, deque[tuple[Waiter, float]]] = {}
        self._making: dict[str, int] = {}
        self._without_room: set[str] = set()

    def __bool__(self) -> bool:
        return bool(self._waiters)

    def __len__(self) -> int:
        return sum(len(waiters) for waiters in self._waiters.values())

    def add(self, deployment_id: str, waiter: Waiter, now_s: float) -> None:
        """A caller waits from now on."""
        self._waiters.setdefault(deployment_id, deque()).append((waiter, now_s))

    def making(self, deployment_id: str) -> None:
        """One more sandbox is being made."""
        self._making[deployment_id] = self._making.get(deployment_id, 0) + 1

    def stand_still(self, deployment_id: str) -> bool:
        """There is no room for the sandbox in the making; False when another one waits for that already."""
        if deployment_id in self._without_room:
            return False
        self._without_room.add(deployment_id)
        return True

    def go_on(self, deployment_id: str) -> None:
        """There is room again, or it is waited for no longer."""
        self._without_room.discard(deployment_id)

    def lacks_makers(self, deployment_id: str) -> bool:
        """Whether another sandbox should be made: more callers than makers, and none of them stands still."""
        if deployment_id in self._without_room:
            return False
        return len(self._waiters.get(deployment_id, ())) > self._making.get(deployment_id, 0)

    def in_the_making(self, deployment_id: str) -> int:
        """Sandboxes that are being made for callers."""
        return self._making.get(deployment_id, 0)

    def made(self, deployment_id: str) -> None:
        """One sandbox less is in the making: it is there, or it failed."""
        self._making[deployment_id] -= 1
        if not self._making[deployment_id]:
            del self._making[deployment_id]

    def discard(self, deployment_id: str, waiter: Waiter) -> None:
        """A caller gave up."""
        left = deque(entry for entry in self._waiters.get(deployment_id, ()) if entry[0] is not waiter)
        if left:
            self._waiters[deployment_id] = left
        else:
            self._waiters.pop(deployment_id, None)

    def is_wanted(self, deployment_id: str) -> bool:
        """Whether anyone still waits for a sandbox of this deployment."""
        return deployment_id in self._waiters

    def has_surplus(self, deployment_id: str) -> bool:
        """Whether more sandboxes are in the making than callers wait: one of them can be given up."""
        return self._making.get(deployment_id, 0) > len(self._waiters.get(deployment_id, ()))

    def oldest_since_s(self, deployment_id: str) -> float | None:
        """Since when the caller to serve next has been waiting; None when nobody waits."""
        waiters = self._waiters.get(deployment_id)
        return waiters[0][1] if waiters else None

    def pop(self, deployment_id: str) -> Waiter | None:
        """The caller to serve next, who no longer waits then."""
        waiters = self._waiters.get(deployment_id)
        waiter: Waiter | None = None
        while waiters and waiter is None:
            candidate, _ = waiters.popleft()
            waiter = None if candidate.done else candidate
        if waiters is not None and not waiters:
            del self._waiters[deployment_id]
        return waiter

    def pop_surplus(self, deployment_id: str) -> Waiter | None:
        """The caller to fail when there are more callers than sandboxes in the making."""
        waiting = len(self._waiters.get(deployment_id, ()))
        return self.pop(deployment_id) if waiting > self._making.get(deployment_id, 0) else None
