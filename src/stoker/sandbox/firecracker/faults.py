"""What can go wrong between Stoker and a VMM."""

from stoker.core.errors import SandboxError


class VmmError(SandboxError):
    """Root of what the API's client raises."""


class VmmUnreachable(VmmError):
    """Nobody answers at the socket, or the connection ended before the answer did."""


class VmmTimeout(VmmError):
    """No complete answer in time; whether it was obeyed is unknown."""


class VmmNonsense(VmmError):
    """The answer is none that Firecracker gives: too large, not HTTP, not JSON, not the record."""


class VmmRefused(VmmError):
    """Firecracker refused, and said why. ``status`` is HTTP's."""

    def __init__(self, what: str, status: int, fault: str) -> None:
        super().__init__(f"{what}: {fault} ({status})")
        self.status = status
        self.fault = fault


class TooOld(VmmError):
    """This Firecracker has no such call or field; nothing was sent."""
