"""A fake of the ImageStore port for tests: images are folders under names, and it can be told to fail."""

import asyncio
import hashlib
import os
from collections.abc import Callable
from pathlib import Path

from stoker.services.images import (
    ImageArtifact,
    ImageConfiguration,
    ImageMissing,
    ImageProgress,
    ImageRefused,
    ResolvedImage,
)
from stoker.services.volumes import MountedTree, MountRefused


class MemoryImageStore:
    """``put`` names an image; what is mounted is its folder as it is."""

    def __init__(self) -> None:
        self._named: dict[str, ResolvedImage] = {}
        self._content: dict[str, tuple[Path | None, ImageConfiguration]] = {}
        self._artifacts: dict[tuple[str, str], ImageArtifact] = {}
        self._mounted: dict[tuple[str, str], tuple[MountedTree, int]] = {}
        self._next_error: Exception | None = None
        self.gate = asyncio.Event()
        """``admit`` waits while this is clear."""
        self.gate.set()

    def put(
        self, uri: str, configuration: ImageConfiguration | None = None, folder: Path | None = None
    ) -> ResolvedImage:
        """Have ``uri`` name an image of this content from now on."""
        configuration = configuration or ImageConfiguration()
        digest = f"sha256:{hashlib.sha256(f'{uri} {configuration} {folder}'.encode()).hexdigest()}"
        name = uri.partition("@")[0]
        head, _, last = name.rpartition("/")
        bare = f"{head}/{last.partition(':')[0]}" if head else last.partition(":")[0]
        image = ResolvedImage(uri=uri, resolved_uri=f"{bare}@{digest}", digest=digest)
        self._named[uri] = image
        self._content[digest] = (folder, configuration)
        return image

    def fail_next(self, error: Exception) -> None:
        """The next call of ``admit`` or ``mounted`` raises ``error``."""
        self._next_error = error

    @property
    def in_use(self) -> int:
        """Mounts that were asked for and not left."""
        return sum(count for _, count in self._mounted.values())

    async def resolve(self, uri: str, architecture: str) -> ResolvedImage:
        found = self._named.get(uri)
        if found is None:
            raise ImageRefused("missing", f"there is no {uri}")
        return found

    async def admit(
        self,
        image: ResolvedImage,
        account: str,
        *,
        kms_key_arn: str | None = None,
        progress: Callable[[ImageProgress], None] | None = None,
    ) -> ImageArtifact:
        await self.gate.wait()
        self._check()
        if image.digest not in self._content:
            raise ImageRefused("missing", f"there is no {image.resolved_uri}")
        artifact = ImageArtifact(
            digest=image.digest,
            account=account,
            size_bytes=0,
            configuration=self._content[image.digest][1],
        )
        self._artifacts[account, image.digest] = artifact
        return artifact

    async def artifact(self, account: str, digest: str) -> ImageArtifact | None:
        return self._artifacts.get((account, digest))

    async def mounted(self, account: str, digest: str) -> MountedTree:
        self._check()
        if (account, digest) not in self._artifacts:
            raise ImageMissing(digest)
        tree, count = self._mounted.get((account, digest), (None, 0))
        if tree is None:
            folder = self._content[digest][0]
            if folder is None:
                raise MountRefused(f"{digest} has no folder")
            tree = MountedTree(len(self._mounted) + 1, os.open(folder, os.O_PATH | os.O_DIRECTORY))
        self._mounted[account, digest] = (tree, count + 1)
        return tree

    def leave(self, account: str, digest: str) -> None:
        tree, count = self._mounted[account, digest]
        if count > 1:
            self._mounted[account, digest] = (tree, count - 1)
            return
        del self._mounted[account, digest]
        os.close(tree.folder)

    async def forget(self, account: str, digest: str) -> None:
        self._artifacts.pop((account, digest), None)

    async def stored(self) -> list[tuple[str, str]]:
        return list(self._artifacts)

    def _check(self) -> None:
        error, self._next_error = self._next_error, None
        if error is not None:
            raise error
