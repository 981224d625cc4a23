"""What a layer may say of the runtimes and architectures it is for, in AWS's words. Pure."""

from collections.abc import Sequence

from stoker.control.messages import constraint
from stoker.control.runtimes import NEWER, SUCCESSORS, SUPPORTED
from stoker.core.errors import ServiceError

FILTERS = (
    "ruby2.6, dotnetcore1.0, python3.7, nodejs8.10, nasa, ruby2.7, python2.7-greengrass, dotnetcore2.0, "
    "python3.8, java21, dotnet6, dotnetcore2.1, python3.9, java11, nodejs6.10, provided, dotnetcore3.1, "
    "dotnet8, java25, java17, nodejs, nodejs4.3, java8.al2, go1.x, dotnet10, nodejs20.x, go1.9, byol, "
    "nodejs10.x, provided.al2023, nodejs22.x, python3.10, java8, nodejs12.x, python3.11, nodejs24.x, "
    "nodejs8.x, python3.12, nodejs14.x, nodejs8.9, python3.13, python3.14, nodejs16.x, provided.al2, "
    "nodejs4.3-edge, nodejs18.x, ruby3.2, python3.4, ruby3.3, ruby3.4, ruby2.5, python3.6, python2.7"
)
"""Runtimes by which layers can be listed, in AWS's order."""

ARCHITECTURES = ("x86_64", "arm64")

_PUBLISHABLE = frozenset(SUPPORTED.split(", ")) | NEWER | SUCCESSORS.keys()
_LISTABLE = frozenset(FILTERS.split(", ")) | NEWER


def check_compatibility(runtimes: Sequence[str], architectures: Sequence[str]) -> None:
    """What PublishLayerVersion takes; only words are checked, since all of it is advice.

    Raises:
        ServiceError: ValidationException that names both members when both are wrong.
    """
    violations: list[str] = []
    if not _PUBLISHABLE.issuperset(runtimes):
        violations.append(
            f"Value '[{', '.join(runtimes)}]' at 'compatibleRuntimes' failed to satisfy constraint: "
            f"Member must satisfy enum value set: [{SUPPORTED}]"
        )
    if not set(ARCHITECTURES).issuperset(architectures):
        violations.append(
            f"Value '[{', '.join(architectures)}]' at 'compatibleArchitectures' failed to satisfy "
            f"constraint: Member must satisfy constraint: [Member must satisfy enum value set: "
            f"[{', '.join(ARCHITECTURES)}], Member must not be null]"
        )
    if violations:
        noun = "error" if len(violations) == 1 else "errors"
        words = f"{len(violations)} validation {noun} detected: {'; '.join(violations)}"
        raise ServiceError("ValidationException", words)


def check_filter(runtime: str | None) -> None:
    """The CompatibleRuntime that ListLayers and ListLayerVersions can be asked for.

    Raises:
        ServiceError: ValidationException.
    """
    if runtime is not None and runtime not in _LISTABLE:
        raise constraint(runtime, "compatibleRuntime", f"Member must satisfy enum value set: [{FILTERS}]")
