"""One blob into a file: hashed as it streams, resumed after a failure, given up when too slow. Blocking."""

import hashlib
import os
import re
import time
from pathlib import Path
from typing import Final

from urllib3.exceptions import HTTPError
from urllib3.response import BaseHTTPResponse

from stoker.packaging.oci.references import Reference
from stoker.packaging.oci.registry.client import SMALL_WITHIN_S, RegistryClient
from stoker.packaging.oci.registry.connections import Watch
from stoker.packaging.oci.registry.requests import PassingFailure, failure
from stoker.packaging.oci.source import Descriptor, Progress
from stoker.services.images import ImageRefused

PART_BYTES: Final = 256 * 1024
RATE_MIN_BYTES_PER_S: Final = 16 * 1024
"""Slower than this on average, after a grace of SMALL_WITHIN_S, is given up."""
RESUMES_MAX: Final = 50
"""Failures after which a download that goes forward each time is gone on with."""

_CONTENT_RANGE = re.compile(r"bytes (\d{1,19})-(\d{1,19})/(\d{1,19}|\*)")


def download(
    client: RegistryClient,
    reference: Reference,
    blob: Descriptor,
    into: Path,
    watch: Watch,
    progress: Progress | None = None,
) -> None:
    """Write the blob to the new file ``into``; nothing is left of it on failure.

    Raises:
        ImageRefused: kind says why.
        OSError: the file cannot be written.
    """
    descriptor = os.open(into, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        _Download(client, reference, blob, descriptor, watch, progress).run()
    except BaseException:
        into.unlink(missing_ok=True)
        raise
    finally:
        os.close(descriptor)


class _Download:
    def __init__(
        self,
        client: RegistryClient,
        reference: Reference,
        blob: Descriptor,
        descriptor: int,
        watch: Watch,
        progress: Progress | None,
    ) -> None:
        self._client = client
        self._reference = reference
        self._blob = blob
        self._descriptor = descriptor
        self._watch = watch
        self._progress = progress
        self._hash = hashlib.sha256()
        self._received_bytes = 0
        self._told_bytes = 0

    def run(self) -> None:
        """Attempt after attempt until everything is there."""
        for _ in range(RESUMES_MAX):
            before_bytes = self._received_bytes
            try:
                self._client.insist(self._attempt, self._watch, SMALL_WITHIN_S)
                break
            except _Interrupted as problem:
                # An attempt that brought something does not count against the few that may bring nothing.
                if self._watch.was_cut or self._received_bytes <= before_bytes:
                    raise problem.refused from None
        else:
            raise ImageRefused("unreachable", f"{self._reference.host}: it breaks off too often")
        if f"sha256:{self._hash.hexdigest()}" != self._blob.digest:
            raise self._wrong(f"what it sent is not {self._blob.digest}")

    def _attempt(self) -> None:
        start_bytes = self._received_bytes
        if start_bytes == self._blob.size_bytes > 0:
            return
        response = self._client.open_blob(self._reference, self._blob, start_bytes, self._watch)
        try:
            self._begin(response)
            self._read(response)
        except (HTTPError, OSError, ValueError) as problem:
            if isinstance(problem, _WriteFailed):
                raise problem.problem from None
            broken = failure(self._reference.host, problem, self._watch)
            if isinstance(broken, PassingFailure) and self._received_bytes > start_bytes:
                raise _Interrupted(broken.refused) from None
            raise broken from None
        finally:
            response.close()

    def _begin(self, response: BaseHTTPResponse) -> None:
        """Check what the answer says that it holds; start over where the server cannot go on."""
        left_bytes = self._blob.size_bytes - self._received_bytes
        if response.status == 206:
            matched = _CONTENT_RANGE.fullmatch(response.headers.get("content-range", ""))
            if matched is None or int(matched[1]) != self._received_bytes:
                raise self._wrong("it answers with another range than asked for")
        elif self._received_bytes:
            os.ftruncate(self._descriptor, 0)
            self._hash, self._received_bytes = hashlib.sha256(), 0
            left_bytes = self._blob.size_bytes
        length = response.headers.get("content-length")
        if length is not None and length != str(left_bytes):
            raise self._wrong(f"it announces {length[:20]} bytes where {left_bytes} are due")

    def _read(self, response: BaseHTTPResponse) -> None:
        began_s, began_bytes = time.monotonic(), self._received_bytes
        while self._received_bytes < self._blob.size_bytes:
            part = response.read1(min(PART_BYTES, self._blob.size_bytes - self._received_bytes))
            if not part:
                raise OSError(0, "it ended too early")
            self._keep(part)
            earned_s = (self._received_bytes - began_bytes) / RATE_MIN_BYTES_PER_S
            self._watch.until(began_s + SMALL_WITHIN_S + earned_s)

    def _keep(self, part: bytes) -> None:
        try:
            rest = memoryview(part)
            while rest:
                written_bytes = os.pwrite(
                    self._descriptor, rest, self._received_bytes + len(part) - len(rest)
                )
                rest = rest[written_bytes:]
        except OSError as problem:
            raise _WriteFailed(problem) from problem
        self._hash.update(part)
        self._received_bytes += len(part)
        if self._progress is not None and self._received_bytes > self._told_bytes:
            self._progress(self._received_bytes - self._told_bytes)
            self._told_bytes = self._received_bytes

    def _wrong(self, why: str) -> ImageRefused:
        return ImageRefused("invalid", f"{self._reference.host}: blob {self._blob.digest}: {why}")


class _Interrupted(Exception):
    """It broke off after some bytes had arrived."""

    def __init__(self, refused: ImageRefused) -> None:
        super().__init__(str(refused))
        self.refused = refused


class _WriteFailed(OSError):
    """The file could not be written, which is not the registry's doing."""

    def __init__(self, problem: OSError) -> None:
        super().__init__(problem.errno, problem.strerror)
        self.problem = problem
