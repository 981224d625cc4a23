"""Which registries are asked, how and as whom: from settings and a docker config.json. No network."""

import base64
import binascii
import ipaddress
from pathlib import Path
from typing import Final

import msgspec

from stoker.services.images import ImageRefused

CONFIG_MAX_BYTES: Final = 1024**2
DOCKER_HUB: Final = "docker.io"
DOCKER_HUB_API: Final = "registry-1.docker.io"
DOCKER_HUB_KEYS: Final = (
    "https://index.docker.io/v1/",
    "index.docker.io",
    "docker.io",
    "registry-1.docker.io",
)


class RegistrySettings(msgspec.Struct, frozen=True, kw_only=True):
    """What an operator decides about registries."""

    config_file: Path | None = None
    """A docker config.json with credentials by host."""
    ca_file: Path | None = None
    """PEM certificates that are trusted beside the system's."""
    plain_http: frozenset[str] = frozenset()
    """HOST[:PORT] of registries and their storage that speak no TLS."""
    allowed: frozenset[str] = frozenset()
    """HOST[:PORT] that images may come from; empty: any."""


def registry_settings(config: str, ca: str, plain_http: str, registries: str) -> RegistrySettings:
    """The settings as they are written: paths, and hosts separated by commas."""
    return RegistrySettings(
        config_file=Path(config) if config else None,
        ca_file=Path(ca) if ca else None,
        plain_http=_hosts(plain_http),
        allowed=_hosts(registries),
    )


def _hosts(text: str) -> frozenset[str]:
    return frozenset(host.strip().lower() for host in text.split(",") if host.strip())


class Credentials(msgspec.Struct, frozen=True):
    """Of one registry. Never shown."""

    user: str = ""
    password: str = ""
    refresh_token: str = ""
    """``identitytoken``: exchanged for access tokens at the registry's token service."""
    access_token: str = ""
    """``registrytoken``: sent as it is."""

    def __repr__(self) -> str:
        return "Credentials(…)"

    @property
    def basic(self) -> str | None:
        """The value of an Authorization header; None without a user name."""
        if not self.user:
            return None
        return "Basic " + base64.b64encode(f"{self.user}:{self.password}".encode()).decode()


class _Auth(msgspec.Struct, frozen=True):
    auth: str = ""
    username: str = ""
    password: str = ""
    identitytoken: str = ""
    registrytoken: str = ""


class _DockerConfig(msgspec.Struct, frozen=True, rename={"helper": "credsStore", "helpers": "credHelpers"}):
    auths: dict[str, _Auth] = {}
    helper: str = ""
    helpers: dict[str, str] = {}


def api_host(host: str) -> str:
    """Where the registry of a reference's host answers: the same host, but for Docker Hub."""
    return DOCKER_HUB_API if host == DOCKER_HUB else host


def api_name(host: str, name: str) -> str:
    """The repository's name there; Docker Hub keeps its own images under ``library/``."""
    return f"library/{name}" if host == DOCKER_HUB and "/" not in name else name


def is_loopback(host: str) -> bool:
    """Whether HOST[:PORT] is this machine, by name or address; nothing is resolved."""
    name = host.rpartition("]")[0].lstrip("[") if host.startswith("[") else host.partition(":")[0]
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return name == "localhost" or name.endswith(".localhost")


def check_allowed(settings: RegistrySettings, host: str) -> None:
    """Raises ImageRefused (``denied``) for a host that images may not come from."""
    if settings.allowed and host not in settings.allowed:
        raise ImageRefused("denied", f"{host}: images may not come from this registry (setting registries)")


def credentials_of(settings: RegistrySettings, host: str) -> Credentials | None:
    """What the configured file holds for a host; it is read anew, so that a login counts at once.

    Raises:
        ImageRefused: ``denied``: the file cannot be read, or leaves the host to a helper program.
    """
    if settings.config_file is None:
        return None
    config = _read(settings.config_file, host)
    keys = DOCKER_HUB_KEYS if host == DOCKER_HUB else (host, f"https://{host}", f"https://{host}/")
    found = next((config.auths[key] for key in keys if key in config.auths), None)
    if found is not None and found != _Auth():
        return _credentials(found, settings.config_file, host)
    if config.helper or any(key in config.helpers for key in keys):
        raise ImageRefused(
            "denied",
            f"{host}: {settings.config_file} leaves its credentials to a helper program, which is not run; "
            "put them into the file's auths",
        )
    return None


def _read(file: Path, host: str) -> _DockerConfig:
    try:
        with file.open("rb") as stream:
            content = stream.read(CONFIG_MAX_BYTES + 1)
    except OSError as problem:
        raise ImageRefused(
            "denied", f"{host}: the credentials in {file} cannot be read: {problem.strerror}"
        ) from None
    if len(content) > CONFIG_MAX_BYTES:
        raise ImageRefused("denied", f"{host}: {file} is over {CONFIG_MAX_BYTES} bytes")
    try:
        return msgspec.json.decode(content, type=_DockerConfig)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        # Not the decoder's own words: they might quote the file.
        raise ImageRefused("denied", f"{host}: {file} is not a docker config.json") from None


def _credentials(entry: _Auth, file: Path, host: str) -> Credentials:
    user, password = entry.username, entry.password
    if entry.auth:
        try:
            user, colon, password = base64.b64decode(entry.auth, validate=True).decode().partition(":")
        except (binascii.Error, UnicodeDecodeError):
            colon = ""
        if not colon:
            raise ImageRefused("denied", f"{host}: its auth in {file} is not the base64 of USER:PASSWORD")
    return Credentials(user, password.rstrip("\0"), entry.identitytoken, entry.registrytoken)
