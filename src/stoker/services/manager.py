"""The worker manager: the one authority over which sandboxes are warm or busy."""

from collections.abc import Awaitable
from typing import Protocol

import msgspec

from stoker.services.functions import FunctionKey, FunctionVersion
from stoker.services.worker import SandboxReference


class Reservation(msgspec.Struct, frozen=True):
    """A sandbox that belongs to one caller until it is released."""

    sandbox: SandboxReference
    cold: bool
    proactive: bool = False
    """The sandbox was made ahead and is used for the first time."""


class Provisioned(msgspec.Struct, frozen=True):
    """How far the provisioned concurrency of a version is."""

    available: int
    failure: str | None = None
    """Why the last sandbox could not be had, while that is so."""


class Provisioner(Protocol):
    """Keeps sandboxes initialised that nobody has asked for yet. Plain, and goes on behind."""

    def provision(self, function: FunctionVersion, count: int) -> None:
        """From now on the version is to have ``count`` initialised sandboxes; 0 ends that."""
        ...

    def provisioned(self, function: FunctionVersion) -> Provisioned: ...


class WorkerManager(Protocol):
    """Reserve, place, release. Decisions are plain functions; only making a sandbox waits."""

    def reserve(self, function: FunctionVersion) -> Reservation | None:
        """The most recently used idle sandbox of this deployment, or None when all are busy."""
        ...

    def place(self, function: FunctionVersion) -> Awaitable[Reservation]:
        """A new sandbox, reserved, or one that was given back meanwhile.

        A ``Promise`` is told without a turn of the event loop.

        Raises:
            ServiceError: 429 over the scaling rate, 5xx when no worker has room or can run the runtime.
        """
        ...

    def release(self, reservation: Reservation, *, healthy: bool) -> None:
        """Give a sandbox back: idle when ``healthy`` and still current, else retired."""
        ...

    def versions(self, key: FunctionKey) -> frozenset[str]:
        """Versions of a function that have sandboxes, those in the making included."""
        ...

    def forget(self, key: FunctionKey, version: str, *, keep_deployment_id: str | None) -> None:
        """Retire every sandbox of a version that is not of the given deployment (busy ones when done)."""
        ...
