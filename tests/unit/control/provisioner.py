"""A provisioner for tests: it remembers what it was asked for and has it when told so."""

from stoker.services.functions import FunctionVersion
from stoker.services.manager import Provisioned


class PretendProvisioner:
    """The Provisioner port without sandboxes."""

    def __init__(self) -> None:
        self.wanted: dict[str, int] = {}
        """By version number."""
        self.available: dict[str, int] = {}
        self.failure: str | None = None

    def provision(self, function: FunctionVersion, count: int) -> None:
        self.wanted[function.version] = count
        if not count:
            del self.wanted[function.version]

    def provisioned(self, function: FunctionVersion) -> Provisioned:
        return Provisioned(self.available.get(function.version, 0), self.failure)
