"""Which runtimes this installation can run: asked before a function that needs one is accepted."""

from typing import Protocol


class RuntimeSupport(Protocol):
    """Known without waiting."""

    def missing(self, runtime: str, architecture: str) -> str | None:
        """Why a function with this runtime cannot run here and how to get it; None when it can."""
        ...
