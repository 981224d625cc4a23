"""Names of images: HOST[:PORT]/NAME[:TAG][@DIGEST], and local/NAME[:TAG] for images imported here.

The grammar is that of the OCI distribution specification and of Docker's reference package, except that the
host is never guessed. Knows nothing of registries.
"""

import re
from typing import Final

import msgspec

from stoker.services.images import ImageRefused

LOCAL_HOST: Final = "local"
"""In the place of a host: the image was imported here."""
DEFAULT_TAG: Final = "latest"

REFERENCE_MAX: Final = 1024
NAME_MAX: Final = 255

_HOST = re.compile(
    r"(?:\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?(?:\.[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?)*)"
    r"(?::[0-9]{1,5})?"
)
_NAME = re.compile(r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*(?:/[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*)*")
_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}")
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")


class Reference(msgspec.Struct, frozen=True):
    """What names an image. With a digest the tag says nothing."""

    host: str
    """``registry.example.com``, ``127.0.0.1:5000`` or LOCAL_HOST; in lower case."""
    name: str
    tag: str | None = None
    digest: str | None = None

    @property
    def is_local(self) -> bool:
        """It names an image that was imported here."""
        return self.host == LOCAL_HOST

    @property
    def repository(self) -> str:
        """HOST/NAME."""
        return f"{self.host}/{self.name}"

    def at(self, digest: str) -> "Reference":
        """The same repository, by digest."""
        return Reference(self.host, self.name, None, digest)

    def __str__(self) -> str:
        if self.digest is not None:
            return f"{self.repository}@{self.digest}"
        return f"{self.repository}:{self.tag}"


def is_digest(text: str) -> bool:
    """``sha256:`` and 64 hexadecimal digits in lower case, the one algorithm that is accepted."""
    return _DIGEST.fullmatch(text) is not None


def parse_reference(uri: str) -> Reference:
    """Read an ImageUri; without tag and digest it means ``latest``, as with every other client.

    Raises:
        ImageRefused: kind ``invalid``; the message says what is wrong.
    """
    if len(uri) > REFERENCE_MAX:
        raise _invalid(uri[:60] + "…", "it is too long")
    named, at, digest = uri.partition("@")
    if at and not is_digest(digest):
        raise _invalid(uri, "a digest is sha256: and 64 hexadecimal digits in lower case")
    host, slash, path = named.partition("/")
    if not slash or not _names_a_host(host):
        raise _invalid(uri, "it must begin with the host of a registry, or with local/ for an imported image")
    name, colon, tag = path.partition(":")
    return Reference(
        host.lower(),
        _checked_name(uri, name),
        _checked_tag(uri, tag) if colon else None if at else DEFAULT_TAG,
        digest or None,
    )


def parse_local_name(text: str) -> Reference:
    """Read NAME[:TAG] as the command line has it, with or without ``local/`` before it.

    Raises:
        ImageRefused: kind ``invalid``.
    """
    name, colon, tag = text.removeprefix(f"{LOCAL_HOST}/").partition(":")
    return Reference(LOCAL_HOST, _checked_name(text, name), _checked_tag(text, tag) if colon else DEFAULT_TAG)


def _names_a_host(host: str) -> bool:
    if host == LOCAL_HOST:
        return True
    if _HOST.fullmatch(host) is None:
        return False
    # As Docker's clients tell hosts from the first part of a name.
    return host.lower() == "localhost" or any(mark in host for mark in ".:")


def _checked_name(uri: str, name: str) -> str:
    if len(name) > NAME_MAX or _NAME.fullmatch(name) is None:
        raise _invalid(uri, f"{name[:NAME_MAX]!r} is not the name of a repository")
    return name


def _checked_tag(uri: str, tag: str) -> str:
    if _TAG.fullmatch(tag) is None:
        raise _invalid(uri, f"{tag[:130]!r} is not a tag")
    return tag


def _invalid(uri: str, why: str) -> ImageRefused:
    return ImageRefused("invalid", f"{uri!r} is not the name of an image: {why}")
