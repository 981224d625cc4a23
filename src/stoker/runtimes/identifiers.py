"""Every runtime identifier that AWS Lambda's API knows, as data: its family, version and state."""

import msgspec


class Runtime(msgspec.Struct, frozen=True):
    """One identifier."""

    name: str
    family: str
    """``python``, ``nodejs``, ``java``, ``dotnet``, ``ruby``, ``go`` or ``provided``."""
    version: str
    """The language's version as the identifier spells it; empty for ``provided``."""
    deprecated: bool
    """AWS lets nobody create functions with it any more; existing ones still run."""


# What AWS itself names when it refuses an identifier (ValidationException of CreateFunction), plus the
# identifiers that its API model gained since.
_AVAILABLE = [
    "dotnet6",
    "dotnet8",
    "dotnet10",
    "java8.al2",
    "java8.al2023",
    "java11",
    "java11.al2023",
    "java17",
    "java17.al2023",
    "java21",
    "java25",
    "nodejs16.x",
    "nodejs18.x",
    "nodejs20.x",
    "nodejs22.x",
    "nodejs24.x",
    "nodejs26.x",
    "provided.al2",
    "provided.al2023",
    "python3.8",
    "python3.9",
    "python3.10",
    "python3.11",
    "python3.12",
    "python3.13",
    "python3.14",
    "python3.15",
    "ruby3.2",
    "ruby3.3",
    "ruby3.4",
    "ruby4.0",
]

_DEPRECATED = [
    "dotnetcore1.0",
    "dotnetcore2.0",
    "dotnetcore2.1",
    "dotnetcore3.1",
    "go1.x",
    "java8",
    "nodejs",
    "nodejs4.3",
    "nodejs4.3-edge",
    "nodejs6.10",
    "nodejs8.10",
    "nodejs10.x",
    "nodejs12.x",
    "nodejs14.x",
    "provided",
    "python2.7",
    "python3.6",
    "python3.7",
    "ruby2.5",
    "ruby2.7",
]

_FAMILIES = ("python", "nodejs", "java", "dotnetcore", "dotnet", "ruby", "go", "provided")


def _runtime(name: str, deprecated: bool) -> Runtime:
    prefix = next(family for family in _FAMILIES if name.startswith(family))
    family = "dotnet" if prefix == "dotnetcore" else prefix
    version = "" if family == "provided" else name.removeprefix(prefix)
    return Runtime(name, family, version, deprecated)


RUNTIMES: dict[str, Runtime] = {
    **{name: _runtime(name, False) for name in _AVAILABLE},
    **{name: _runtime(name, True) for name in _DEPRECATED},
}
"""By identifier. ``custom``, which the API model lists too, is a marker of AWS's own and no runtime."""
