"""The RuntimeSupport port over the runtime catalogue: asked when a function is created, not when it runs."""

import platform

from stoker.runtimes.catalog import InvalidEntrypoint, RuntimeCatalog, RuntimeUnavailable

_ARCHITECTURES = {"x86_64": "x86_64", "amd64": "x86_64", "aarch64": "arm64", "arm64": "arm64"}


class CatalogSupport:
    """What this host's interpreters allow."""

    def __init__(self, catalog: RuntimeCatalog) -> None:
        self._catalog = catalog
        self._architecture = _ARCHITECTURES.get(platform.machine().lower(), platform.machine())

    def missing(self, runtime: str, architecture: str) -> str | None:
        if architecture != self._architecture:
            return f"this host is {self._architecture}; it cannot run {architecture} functions"
        if runtime.startswith("provided"):
            return None
        try:
            self._catalog.plan(runtime)
        except (RuntimeUnavailable, InvalidEntrypoint) as problem:
            return str(problem)
        return None
