"""Which runtime identifiers AWS takes, in its own order and words; what this host has is a port's to say."""

from stoker.core.errors import ServiceError, invalid_parameter
from stoker.services.runtime_support import RuntimeSupport

SUPPORTED = (
    "nodejs20.x, python3.14, provided.al2023, python3.12, python3.13, nodejs24.x, nodejs22.x, java25, "
    "python3.10, python3.11, java21, ruby3.3, ruby3.4, ruby3.2, python3.8, python3.9, java17, nodejs16.x, "
    "dotnet10, dotnet8, java11, dotnet6, nodejs18.x, provided.al2, java8.al2"
)
"""As AWS lists them in its error message."""

NEWER = frozenset(
    {
        "ruby4.0",
        "nodejs26.x",
        "python3.15",
        "java8.al2023",
        "java11.al2023",
        "java17.al2023",
    }
)
"""In the API's model, not yet in the recorded message."""

SUCCESSORS = {
    "nodejs": "nodejs24.x",
    "nodejs4.3": "nodejs24.x",
    "nodejs4.3-edge": "nodejs24.x",
    "nodejs6.10": "nodejs24.x",
    "nodejs8.10": "nodejs24.x",
    "nodejs10.x": "nodejs24.x",
    "nodejs12.x": "nodejs24.x",
    "nodejs14.x": "nodejs24.x",
    "python2.7": "python3.14",
    "python3.6": "python3.14",
    "python3.7": "python3.14",
    "java8": "java25",
    "dotnetcore1.0": "dotnet10",
    "dotnetcore2.0": "dotnet10",
    "dotnetcore2.1": "dotnet10",
    "dotnetcore3.1": "dotnet10",
    "go1.x": "provided.al2023",
    "ruby2.5": "ruby3.4",
    "ruby2.7": "ruby3.4",
    "provided": "provided.al2023",
}
"""Retired runtimes and what to take instead."""

SNAP_START = frozenset(
    {
        *("java11", "java17", "java21", "java25"),
        *("python3.12", "python3.13", "python3.14"),
        *("dotnet8", "dotnet10"),
    }
)
"""Runtimes whose versions can start from a snapshot (developer guide)."""

_ACCEPTED = frozenset(SUPPORTED.split(", ")) | NEWER


def check_runtime(runtime: str, architecture: str, support: RuntimeSupport) -> None:
    """Refuse what AWS would refuse, then what this host cannot run.

    Raises:
        ServiceError: InvalidParameterValueException.
    """
    if runtime in SUCCESSORS:
        raise _retired(runtime)
    if runtime not in _ACCEPTED:
        raise invalid_parameter(
            f"Value {runtime} at 'runtime' failed to satisfy constraint: "
            f"Member must satisfy enum value set: [{SUPPORTED}] or be a valid ARN"
        )
    missing = support.missing(runtime, architecture)
    if missing is not None:
        raise invalid_parameter(f"The runtime {runtime} ({architecture}) is not available here: {missing}")


def check_snap_start(apply_on: str | None, runtime: str | None) -> None:
    """Refuse SnapStart for a runtime that has none.

    Raises:
        ServiceError: InvalidParameterValueException.
    """
    if apply_on == "PublishedVersions" and runtime not in SNAP_START:
        raise invalid_parameter(f"{runtime} is not supported for SnapStart enabled functions.")


def _retired(runtime: str) -> ServiceError:
    return invalid_parameter(
        f"The runtime parameter of {runtime} is no longer supported for creating or updating AWS Lambda "
        f"functions. We recommend you use the new runtime ({SUCCESSORS[runtime]}) while creating or updating "
        "functions."
    )
