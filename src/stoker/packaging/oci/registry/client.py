"""Manifests and small blobs of a registry: the distribution API with back-off. Blocking."""

import random
import time
from collections.abc import Callable, Mapping
from typing import Final, TypeVar

import urllib3
from urllib3.response import BaseHTTPResponse

from stoker.packaging.oci import documents
from stoker.packaging.oci.references import Reference
from stoker.packaging.oci.registry.access import RegistrySettings, check_allowed
from stoker.packaging.oci.registry.authority import Authority
from stoker.packaging.oci.registry.connections import Watch, connection_pools
from stoker.packaging.oci.registry.requests import (
    PassingFailure,
    Requests,
    discard,
    read_bounded,
    refusal,
)
from stoker.packaging.oci.source import Descriptor
from stoker.services.images import ImageRefused

T = TypeVar("T")

ATTEMPTS_MAX: Final = 5
BACK_OFF_FIRST_S: Final = 0.25
BACK_OFF_MAX_S: Final = 8.0
RETRY_AFTER_MAX_S: Final = 30.0
SMALL_WITHIN_S: Final = 45.0
"""One attempt for a manifest or a configuration, its redirects and its token included."""

Wait = Callable[[float], None]


class RegistryClient:
    """Every registry, in the name of this Stoker. Thread-safe; each call takes a ``Watch`` of its own."""

    def __init__(self, settings: RegistrySettings, wait: Wait = time.sleep) -> None:
        """Raises OSError when the configured certificates cannot be read."""
        self._settings = settings
        self._pools: urllib3.PoolManager = connection_pools(settings.ca_file)
        self._requests = Requests(self._pools, settings)
        self._authority = Authority(self._requests, settings)
        self._wait = wait

    def close(self) -> None:
        """Close idle connections."""
        self._pools.clear()

    def manifest(self, reference: Reference, watch: Watch) -> tuple[bytes, str]:
        """A manifest or index and its media type; by digest, its bytes are what the digest names.

        Raises:
            ImageRefused
        """
        check_allowed(self._settings, reference.host)
        return self.insist(lambda: self._manifest(reference, watch), watch, SMALL_WITHIN_S)

    def digest(self, reference: Reference, watch: Watch) -> str | None:
        """What the registry says that a tag names, without sending it; None when it does not say: then asking
        for the manifest tells why.

        Raises:
            ImageRefused
        """
        check_allowed(self._settings, reference.host)
        try:
            return self.insist(lambda: self._digest(reference, watch), watch, SMALL_WITHIN_S)
        except ImageRefused as problem:
            if problem.kind in ("missing", "invalid"):
                return None
            raise

    def small_blob(self, reference: Reference, blob: Descriptor, watch: Watch) -> bytes:
        """A blob of at most MANIFEST_MAX_BYTES, checked. Raises ImageRefused."""

        def attempt() -> bytes:
            response = self.open_blob(reference, blob, 0, watch)
            content = read_bounded(response, blob.size_bytes, reference.host, watch)
            if len(content) != blob.size_bytes or documents.digest_of(content) != blob.digest:
                raise ImageRefused("invalid", f"{reference.host}: what it sent is not {blob.digest}")
            return content

        return self.insist(attempt, watch, SMALL_WITHIN_S)

    def open_blob(
        self, reference: Reference, blob: Descriptor, offset_bytes: int, watch: Watch
    ) -> BaseHTTPResponse:
        """The answer (200, or 206 from ``offset_bytes``) with the blob's bytes yet to be read.

        Raises:
            ImageRefused, PassingFailure
        """
        headers = {"Range": f"bytes={offset_bytes}-"} if offset_bytes else {}
        what = f"blob {blob.digest} of {reference.repository}"
        return self._asked(reference, f"/blobs/{blob.digest}", headers, what, watch, (200, 206))

    def insist(self, attempt: Callable[[], T], watch: Watch, within_s: float) -> T:
        """Repeat what fails for the moment, with back-off; each attempt has ``within_s``.

        Raises:
            ImageRefused: the last failure, or one that repeating does not mend.
        """
        for number in range(1, ATTEMPTS_MAX + 1):
            watch.until(time.monotonic() + within_s)
            try:
                return attempt()
            except PassingFailure as problem:
                if number == ATTEMPTS_MAX or watch.was_cut or watch.passed:
                    raise problem.refused from None
                watch.until(time.monotonic() + RETRY_AFTER_MAX_S + 1)
                self._wait(pause_s(number, problem.after_s))
        raise AssertionError("unreachable")

    def _manifest(self, reference: Reference, watch: Watch) -> tuple[bytes, str]:
        response = self._asked_for_manifest(reference, watch, "GET")
        content = read_bounded(response, documents.MANIFEST_MAX_BYTES, reference.host, watch)
        digest = documents.digest_of(content)
        claimed = response.headers.get("docker-content-digest", "")
        if reference.digest not in (None, digest):
            raise ImageRefused("invalid", f"{reference.host}: what it sent is not {reference.digest}")
        if claimed.startswith("sha256:") and claimed != digest:
            raise ImageRefused("invalid", f"{reference.host}: what it sent is not what it says it is")
        return content, documents.media_type_of(content, response.headers.get("content-type"))

    def _digest(self, reference: Reference, watch: Watch) -> str | None:
        response = self._asked_for_manifest(reference, watch, "HEAD")
        discard(response)
        return response.headers.get("docker-content-digest")

    def _asked_for_manifest(self, reference: Reference, watch: Watch, method: str) -> BaseHTTPResponse:
        path = f"/manifests/{reference.digest or reference.tag}"
        accept = {"Accept": ", ".join(documents.ACCEPTED)}
        return self._asked(reference, path, accept, f"image {reference}", watch, (200,), method)

    def _asked(
        self,
        reference: Reference,
        path: str,
        headers: Mapping[str, str],
        what: str,
        watch: Watch,
        good: tuple[int, ...],
        method: str = "GET",
    ) -> BaseHTTPResponse:
        watch.begin_hops()
        base = self._authority.base(reference, watch)
        header = self._authority.header(reference)
        response = self._requests.get(base + path, headers, header, watch, method=method)
        if response.status == 401:
            offered = response.headers.getlist("www-authenticate")
            discard(response)
            self._authority.forget(reference)
            header = self._authority.answer(reference, base, offered, watch)
            watch.begin_hops()
            response = self._requests.get(base + path, headers, header, watch, method=method)
        if response.status not in good:
            if response.status == 401:
                self._authority.forget(reference)
            raise refusal(response, what, reference.host, self._authority.credentials(reference), watch)
        return response


def pause_s(number: int, after_s: float | None = None) -> float:
    """How long to wait after failed attempt ``number``: doubled each time, spread, or as the server asks."""
    if after_s is not None:
        return min(after_s, RETRY_AFTER_MAX_S)
    return min(BACK_OFF_FIRST_S * 2 ** (number - 1), BACK_OFF_MAX_S) * random.uniform(0.75, 1.25)
