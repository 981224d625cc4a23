"""One sandbox as the manager's pool sees it. Data only."""

import enum

from stoker.services.functions import FunctionVersion
from stoker.services.worker import SandboxReference


class State(enum.Enum):
    """``IDLE ⇄ BUSY → DRAINING``; leaving the pool is death. Every other move is refused."""

    IDLE = "idle"
    BUSY = "busy"
    DRAINING = "draining"


class Sandbox:
    """What the pool knows of one sandbox; its own, never handed out."""

    __slots__ = (
        "deployment_id",
        "drain_at_s",
        "key",
        "last_used_s",
        "memory_mb",
        "proactive",
        "provisioned",
        "reference",
        "state",
        "version",
    )

    def __init__(self, reference: SandboxReference, function: FunctionVersion, drain_at_s: float) -> None:
        self.reference = reference
        self.key = function.key
        self.version = function.version
        self.deployment_id = function.deployment_id
        self.memory_mb = function.memory_mb
        self.drain_at_s = drain_at_s
        self.last_used_s = 0.0
        self.state = State.BUSY
        self.proactive = False
        """Made ahead, and not used yet."""
        self.provisioned = False
        """Kept for provisioned concurrency: neither idleness nor want of room ends it."""
