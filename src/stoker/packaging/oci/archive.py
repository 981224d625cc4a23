"""An image archive: the tar of an OCI layout, or what ``docker save`` writes. Never unpacked. Blocking."""

import hashlib
import os
from pathlib import Path
from typing import Annotated, Final

import msgspec

from stoker.packaging.oci import documents
from stoker.packaging.oci.archive_index import ArchiveIndex, Place
from stoker.packaging.oci.references import Reference, is_digest
from stoker.packaging.oci.source import Descriptor, ImageManifest, Progress
from stoker.services.images import ImageRefused

REF_NAME: Final = "org.opencontainers.image.ref.name"
NAMES_SHOWN_MAX: Final = 20
_GZIP = b"\x1f\x8b"


class _Saved(msgspec.Struct, frozen=True, rename="pascal"):
    """An entry of docker save's manifest.json."""

    config: str
    layers: Annotated[list[str], msgspec.Meta(max_length=documents.LAYERS_MAX)]
    repo_tags: list[str] | None = None


class ArchiveImage(msgspec.Struct, frozen=True):
    """One image, or one index of images, of an archive."""

    name: str
    """As the archive names it; may be empty."""
    digest: str


class ImageArchive:
    """Reads one open file; whoever opened it closes it, after everything that reads it has ended."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._stopping = False
        self._made: dict[str, bytes] = {}
        """Manifests that a docker archive lacks."""
        self._places: dict[str, Place] = {}
        """Layers of a docker archive, which names them by path."""
        self.images: list[ArchiveImage] = []

    def read(self) -> None:
        """Find out what is in it. Raises ImageRefused: it is no archive of images."""
        self._index = ArchiveIndex(self._descriptor, lambda: self._stopping)
        self.images = self._images()

    def stop(self) -> None:
        """Have what still reads end soon; may be called from any thread."""
        self._stopping = True

    def select(self, name: str | None) -> ArchiveImage:
        """The image of that name, or the only one. Raises ImageRefused (``missing``)."""
        found = [image for image in self.images if name is None or image.name in (name, f"docker.io/{name}")]
        if len({image.digest for image in found}) == 1:
            return found[0]
        names = ", ".join(
            documents.shown(image.name) or image.digest for image in self.images[:NAMES_SHOWN_MAX]
        )
        what = "no image" if not found else "several images"
        raise ImageRefused(
            "missing", f"the archive has {what}{f' named {name}' if name else ''}; it has: {names}"
        )

    def architectures(self, image: ArchiveImage) -> list[str]:
        """Lambda's architectures for which the archive has it. Raises ImageRefused."""
        found: list[str] = []
        lacking: ImageRefused | None = None
        for architecture in documents.PLATFORMS:
            try:
                self.manifest(Reference("local", "a", None, image.digest), architecture)
            except ImageRefused as problem:
                if problem.kind not in ("architecture", "missing"):
                    raise
                lacking = problem if problem.kind == "missing" else lacking
            else:
                found.append(architecture)
        if not found:
            raise lacking or ImageRefused(
                "architecture", "the archive has the image for neither x86_64 nor arm64"
            )
        return found

    def manifest(self, reference: Reference, architecture: str | None) -> ImageManifest:
        """The image of a digest, as in ``ImageSource``. Raises ImageRefused."""
        assert reference.digest is not None
        digest = reference.digest
        content = self._document(digest)
        for _ in range(documents.INDEX_DEPTH_MAX):
            if documents.media_type_of(content, None) in documents.MANIFESTS:
                break
            digest = documents.choose(documents.read_index(content), architecture).blob.digest
            content = self._document(digest)
        documents.check_is_manifest(documents.media_type_of(content, None))
        parts = documents.read_manifest(content)
        config = self._document(parts.config.digest)
        return documents.assemble(reference.at(digest), content, parts, config, architecture)

    def copy(self, blob: Descriptor, into: Path, progress: Progress | None = None) -> None:
        """Copy a blob into a new file, checked; nothing is left of it on failure.

        Raises:
            ImageRefused, OSError
        """
        place = self._place(blob.digest)
        if place is None or place.size_bytes != blob.size_bytes:
            raise ImageRefused("invalid", f"the archive lacks blob {blob.digest} of {blob.size_bytes} bytes")
        descriptor = os.open(into, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            with os.fdopen(descriptor, "wb", buffering=0) as stream:
                digest = hashlib.sha256()
                for part in self._index.parts(place):
                    if self._stopping:
                        raise ImageRefused("unreachable", "given up")
                    digest.update(part)
                    stream.write(part)
                    if progress is not None:
                        progress(len(part))
            if f"sha256:{digest.hexdigest()}" != blob.digest:
                raise ImageRefused("invalid", f"what the archive has as {blob.digest} is something else")
        except BaseException:
            into.unlink(missing_ok=True)
            raise

    def _images(self) -> list[ArchiveImage]:
        top = self._index.content("index.json", documents.MANIFEST_MAX_BYTES)
        if top is not None:
            return [
                ArchiveImage(entry.annotations.get(REF_NAME, ""), entry.blob.digest)
                for entry in documents.read_index(top)
            ]
        saved = self._index.content("manifest.json", documents.MANIFEST_MAX_BYTES)
        if saved is None:
            raise ImageRefused("invalid", "the archive is neither an OCI layout nor what docker save writes")
        try:
            entries = msgspec.json.decode(saved, type=list[_Saved])
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            raise ImageRefused("invalid", "the archive's manifest.json cannot be read") from None
        images: list[ArchiveImage] = []
        for entry in entries[: documents.INDEX_ENTRIES_MAX]:
            digest = self._manifest_of(entry)
            images += [ArchiveImage(name, digest) for name in entry.repo_tags or [""]]
        return images

    def _manifest_of(self, entry: _Saved) -> str:
        """Docker archives have no manifests: make the one that its layers and configuration ask for."""
        config = self._index.content(entry.config, documents.MANIFEST_MAX_BYTES)
        if config is None:
            raise ImageRefused("invalid", "the archive lacks an image's configuration")
        described = Descriptor(documents.OCI_CONFIG, documents.digest_of(config), len(config))
        diff_ids = documents.diff_ids_of(config)
        if len(diff_ids) != len(entry.layers):
            raise ImageRefused("invalid", "an image's configuration does not name the archive's layers")
        layers = [self._layer(path, diff_id) for path, diff_id in zip(entry.layers, diff_ids, strict=True)]
        content = documents.write_manifest(described, layers)
        self._made |= {described.digest: config, documents.digest_of(content): content}
        return documents.digest_of(content)

    def _layer(self, path: str, diff_id: str) -> Descriptor:
        place = self._index.find(os.path.normpath(path[:4096]).lstrip("/"))
        if place is None or not is_digest(diff_id):
            raise ImageRefused("invalid", f"the archive lacks layer {documents.shown(path)}")
        media_type, digest = documents.OCI_LAYER, diff_id
        if next(self._index.parts(Place(place.offset_bytes, min(2, place.size_bytes))), b"") == _GZIP:
            hashed = hashlib.sha256()
            for part in self._index.parts(place):
                hashed.update(part)
            media_type, digest = f"{documents.OCI_LAYER}+gzip", f"sha256:{hashed.hexdigest()}"
        self._places[digest] = place
        return Descriptor(media_type, digest, place.size_bytes)

    def _document(self, digest: str) -> bytes:
        content = self._made.get(digest)
        if content is None:
            content = self._index.content(_blob_path(digest), documents.MANIFEST_MAX_BYTES)
        if content is None:
            raise ImageRefused("missing", f"the archive lacks {digest}")
        if documents.digest_of(content) != digest:
            raise ImageRefused("invalid", f"what the archive has as {digest} is something else")
        return content

    def _place(self, digest: str) -> Place | None:
        return self._places.get(digest) or self._index.find(_blob_path(digest))


def _blob_path(digest: str) -> str:
    return f"blobs/{digest.replace(':', '/', 1)}"
