"""Functions as the rooms know them: the stored records and the metadata port.

``control`` writes them, ``frontend`` reads them, ``manager`` and ``worker`` run them; ``store`` keeps them.
"""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Protocol

import msgspec

from stoker.core.errors import StokerError
from stoker.services.code import CodeKey, code_name
from stoker.services.images import image_code

if TYPE_CHECKING:
    from stoker.services.records import Record, Requirement

LATEST = "$LATEST"

VERSIONS_PAGE_MAX = 1000
"""Versions that one call lists."""


class FunctionKey(msgspec.Struct, frozen=True, order=True):
    """What names a function: resources belong to (account, region)."""

    account: str
    region: str
    name: str

    @property
    def arn(self) -> str:
        return f"arn:aws:lambda:{self.region}:{self.account}:function:{self.name}"


class LogSettings(msgspec.Struct, frozen=True, kw_only=True):
    """LoggingConfig: format ``Text`` or ``JSON``, levels only for JSON, and the log group."""

    log_format: str = "Text"
    application_log_level: str | None = None
    system_log_level: str | None = None
    log_group: str


class Status(msgspec.Struct, frozen=True, kw_only=True):
    """State or LastUpdateStatus with its reason."""

    value: str
    reason: str | None = None
    reason_code: str | None = None


class SealedEnvironment(msgspec.Struct, frozen=True, kw_only=True):
    """Environment variables under a data key that KMS wrapped."""

    wrapped: bytes
    sealed: bytes


class LayerUse(msgspec.Struct, frozen=True, kw_only=True):
    """A layer's version as a function uses it: enough to show and to run it when the layer is deleted."""

    arn: str
    code_sha256: str
    size_bytes: int
    unpacked_bytes: int


class ImageUse(msgspec.Struct, frozen=True, kw_only=True):
    """The image that a version runs, as its URI was resolved when it was deployed."""

    uri: str
    resolved_uri: str
    digest: str
    """``sha256:`` and 64 hexadecimal digits."""


class ImageOverrides(msgspec.Struct, frozen=True, kw_only=True):
    """What a function's ImageConfig puts in the place of the image's own; None: as the image has it."""

    entry_point: tuple[str, ...] | None = None
    command: tuple[str, ...] | None = None
    working_directory: str | None = None


class FunctionVersion(msgspec.Struct, frozen=True, kw_only=True):
    """One version of a function: everything needed to show it and to run it.

    ``deployment_id`` changes whenever code or effective configuration does: a sandbox belongs to one
    deployment and is drained when the version moves on. ``environment`` is plain here and sealed at rest.
    """

    key: FunctionKey
    version: str = LATEST
    deployment_id: str
    revision_id: str
    last_modified: str
    """As Lambda shows it: ``2026-01-31T12:00:00.000+0000``."""
    role: str
    package_type: str = "Zip"
    runtime: str | None = None
    handler: str | None = None
    description: str = ""
    timeout_s: int = 3
    memory_mb: int = 128
    tmp_mb: int = 512
    architecture: str = "x86_64"
    environment: dict[str, str] | None = None
    kms_key_arn: str | None = None
    """The key of KMS that the environment is sealed under."""
    environment_sealed: SealedEnvironment | None = None
    """With such a key, in the place of ``environment``."""
    code_sha256: str
    """Base64, as CodeSha256 is shown. Of an image the hexadecimal digits of its digest."""
    code_size_bytes: int
    source_kms_key_arn: str | None = None
    """The key of KMS that the code is sealed under."""
    layers: tuple[LayerUse, ...] = ()
    """In the order in which they are merged at /opt: later ones over earlier ones."""
    image: ImageUse | None = None
    """With package type ``Image``."""
    next_image: ImageUse | None = None
    """While an update is under way: takes the place of ``image``, which runs until then, once it is here."""
    image_overrides: ImageOverrides | None = None
    logging: LogSettings
    dead_letter_arn: str | None = None
    """The SQS queue or SNS topic for events that could not be processed."""
    state: Status
    last_update: Status | None = None
    source_description: str | None = None
    """Of a published version: the description that $LATEST had, by which a later one is told apart."""
    stored_only: dict[str, Any] = {}
    """Members that are kept and shown but take no effect here, under their wire names (VpcConfig, ...)."""

    def with_environment(self, variables: dict[str, str]) -> "FunctionVersion":
        """The version with these variables, plain."""
        return msgspec.structs.replace(self, environment=variables, environment_sealed=None)

    @property
    def code_key(self) -> CodeKey | None:
        """Of an archive that is sealed under a key of KMS."""
        arn = self.source_kms_key_arn
        return None if arn is None else CodeKey(self.key.arn, arn)

    @property
    def code_name(self) -> str:
        """What its own archive is stored as."""
        return code_name(self.code_sha256, self.code_key)

    @property
    def codes(self) -> frozenset[str]:
        """What everything that it runs with is called: its own code and its layers', or its images."""
        if self.image is None:
            return frozenset((self.code_name, *self.layer_codes))
        images = (self.image, self.next_image or self.image)
        return frozenset(image_code(self.key.account, image.digest) for image in images)

    @property
    def layer_codes(self) -> tuple[str, ...]:
        """The CodeSha256 of its layers, in their order."""
        return tuple(layer.code_sha256 for layer in self.layers)

    @property
    def arn(self) -> str:
        """The function's ARN, qualified for every version but ``$LATEST``."""
        return self.key.arn if self.version == LATEST else f"{self.key.arn}:{self.version}"

    @property
    def number(self) -> int:
        """The version as a number; 0 for ``$LATEST``, which is listed before all others."""
        return 0 if self.version == LATEST else int(self.version)


class Publication(msgspec.Struct, frozen=True, kw_only=True):
    """What publishing writes, all or nothing."""

    latest: FunctionVersion
    """Replaces $LATEST."""
    published: FunctionVersion | None = None
    """The new version; None when there is nothing new to publish."""
    existing: FunctionVersion | None = None
    """The version that is what $LATEST is, when there is nothing new."""

    @property
    def result(self) -> FunctionVersion:
        """What whoever published is shown."""
        return self.published or self.existing or self.latest


Publish = Callable[[FunctionVersion, FunctionVersion | None, int], Publication]
"""Decides on a publication: given $LATEST, the version that was published last (None when none was or it is
deleted) and the number that a new version gets. What it raises undoes everything."""


class FunctionRecord(msgspec.Struct, frozen=True, kw_only=True):
    """A function apart from its versions."""

    key: FunctionKey
    created_at_s: float
    tags: dict[str, str] = {}
    reserved_concurrency: int | None = None


class FunctionExists(StokerError):
    """Another function has that key."""


class FunctionMissing(StokerError):
    """No function or version has that key."""


class VersionInUse(StokerError):
    """A record refers to the version; nothing was written."""


class RevisionMismatch(StokerError):
    """The stored revision is not the one the caller expected; nothing was written."""


class ReservationRefused(StokerError):
    """Too little concurrency would be left unreserved; nothing was written."""


def is_settled(version: FunctionVersion) -> bool:
    """Whether no creation or update of this version is under way."""
    updating = version.last_update is not None and version.last_update.value == "InProgress"
    return version.state.value != "Pending" and not updating


class FunctionMetadata(Protocol):
    """Where functions are kept. Every write that returned survives ``kill -9``."""

    async def create(
        self,
        function: FunctionRecord,
        latest: FunctionVersion,
        first: FunctionVersion | None = None,
        *,
        records: "Sequence[Record]" = (),
        requires: "Sequence[Requirement]" = (),
    ) -> None:
        """Store a function, its $LATEST and, if it is published at once, its version 1 in one transaction,
        together with new records that belong to it.

        Raises:
            FunctionExists: the key is taken.
            RequirementUnmet: one of ``requires`` did not hold; nothing was written.
        """
        ...

    async def function(self, key: FunctionKey) -> FunctionRecord | None: ...

    async def version(self, key: FunctionKey, version: str) -> FunctionVersion | None: ...

    async def described(
        self, key: FunctionKey, version: str
    ) -> tuple[FunctionRecord, FunctionVersion] | None:
        """A version and the function it is of, as they were at one moment."""
        ...

    async def replace_version(self, version: FunctionVersion, expected_revision_id: str) -> None:
        """Overwrite a version if its stored RevisionId is still the expected one.

        Raises:
            FunctionMissing, RevisionMismatch: nothing was written.
        """
        ...

    async def publish(self, key: FunctionKey, decide: Publish) -> Publication:
        """Let ``decide`` say what becomes of $LATEST and of a new version, and write it, in one transaction.

        Version numbers are never used twice. What ``decide`` raises is raised.

        Raises:
            FunctionMissing: there is no such function.
        """
        ...

    async def list_versions(
        self,
        account: str,
        region: str,
        *,
        name: str | None = None,
        after: tuple[str, int] = ("", -1),
        limit: int = VERSIONS_PAGE_MAX,
    ) -> list[FunctionVersion]:
        """Versions of one function or of all, in the order of (name, number), $LATEST as number 0."""
        ...

    async def delete_version(self, key: FunctionKey, version: str, *, unless: tuple[str, str]) -> None:
        """Delete one published version, unless a record refers to it.

        Args:
            unless: kind and lookup of records; one that has the lookup keeps the version.

        Raises:
            FunctionMissing, VersionInUse: nothing was written.
        """
        ...

    async def list_latest(
        self, account: str, region: str, *, after_name: str, limit: int
    ) -> list[FunctionVersion]:
        """$LATEST of up to ``limit`` functions with names after ``after_name``, in name order."""
        ...

    async def delete(self, key: FunctionKey) -> list[FunctionVersion]:
        """Delete a function with all its versions; returns what was deleted.

        Raises:
            FunctionMissing: there is none.
        """
        ...

    async def unsettled(self) -> list[FunctionVersion]:
        """Every version whose creation or update is under way; what a restart must bring to an end."""
        ...

    async def set_reserved_concurrency(
        self, key: FunctionKey, value: int | None, *, total_max: int | None = None
    ) -> None:
        """Reserve concurrency; with ``total_max``, only if all reservations of the account and region fit.

        Raises:
            FunctionMissing, ReservationRefused: nothing was written.
        """
        ...

    async def change_tags(self, key: FunctionKey, change: Callable[[dict[str, str]], dict[str, str]]) -> None:
        """Replace the tags by what ``change`` makes of them, in one transaction; what it raises is raised.

        Raises:
            FunctionMissing: there is no such function.
        """
        ...

    async def total_reserved_concurrency(self, account: str, region: str) -> int: ...

    async def code_is_used(self, code_sha256: str) -> bool:
        """Whether any version of any function names this code, as its own, as a layer's or as its image.

        Args:
            code_sha256: a CodeSha256, or what ``images.image_code`` made of an image.
        """
        ...

    async def usage(self, account: str, region: str) -> tuple[int, int]:
        """(functions, bytes of code over all versions) of an account in a region."""
        ...


class Invalidation(Protocol):
    """Tells caches that a function changed or went away. Publish after the write is durable."""

    def publish(self, key: FunctionKey) -> None: ...

    def subscribe(self, callback: Callable[[FunctionKey], None]) -> None: ...
