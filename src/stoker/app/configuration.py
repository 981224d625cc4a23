"""Reads Settings: defaults, then the TOML file, then STOKER_* variables, then flags; the last one wins."""

import os
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path

import msgspec

from stoker.core.configuration import Settings
from stoker.core.errors import StokerError
from stoker.store.object_keys import bucket_of

PREFIX = "STOKER_"

NOT_SETTINGS = frozenset({"STOKER_CONFIG", "STOKER_JAIL_SOCKET", "STOKER_NATIVE_DIR", "STOKER_MASTER_KEY"})
"""Variables that begin like settings and are not; STOKER_TEST_* and STOKER_BENCH_* likewise."""

DOMAIN = re.compile(r"[a-z0-9]([a-z0-9-]*[a-z0-9])?(\.[a-z0-9]([a-z0-9-]*[a-z0-9])?)*", re.ASCII)

FOREIGN_PREFIXES = ("STOKER_TEST_", "STOKER_BENCH_", "STOKER_PYTHON")


class ConfigurationError(StokerError):
    """A setting is unknown or has a value that it cannot have."""


def load_settings(
    *,
    file: Path | None,
    environment: Mapping[str, str],
    flags: Mapping[str, object],
) -> Settings:
    """Merge every source into one Settings.

    Raises:
        ConfigurationError: naming the key, where it was set and what is wrong with it.
    """
    merged: dict[str, object] = {}
    if file is not None:
        merged.update(_from_file(file))
    merged.update(_from_environment(environment))
    merged.update({key: value for key, value in flags.items() if value is not None})
    try:
        settings = msgspec.convert(merged, Settings, strict=False)
    except msgspec.ValidationError as problem:
        raise ConfigurationError(f"configuration: {problem}") from problem
    return _checked(msgspec.structs.replace(settings, data=settings.data or str(default_data_directory())))


def default_data_directory() -> Path:
    """/var/lib/stoker for root, ~/.local/share/stoker otherwise."""
    if os.geteuid() == 0:
        return Path("/var/lib/stoker")
    return Path.home() / ".local" / "share" / "stoker"


def listen_address(settings: Settings) -> tuple[str, int]:
    """``listen`` as (host, port); an IPv6 host may be in brackets."""
    host, separator, port = settings.listen.rpartition(":")
    if not separator or not port.isdigit() or int(port) > 65535:
        raise ConfigurationError(f"configuration: listen must be HOST:PORT, not {settings.listen!r}")
    return host.strip("[]") or "127.0.0.1", int(port)


def _from_file(file: Path) -> dict[str, object]:
    try:
        return tomllib.loads(file.read_text())
    except (OSError, tomllib.TOMLDecodeError) as problem:
        raise ConfigurationError(f"configuration file {file}: {problem}") from problem


def _from_environment(environment: Mapping[str, str]) -> dict[str, object]:
    return {
        name.removeprefix(PREFIX).lower(): value
        for name, value in environment.items()
        if name.startswith(PREFIX) and name not in NOT_SETTINGS and not name.startswith(FOREIGN_PREFIXES)
    }


def _checked(settings: Settings) -> Settings:
    listen_address(settings)
    if not (settings.account.isdigit() and len(settings.account) == 12):
        raise ConfigurationError("configuration: account must be 12 digits")
    if DOMAIN.fullmatch(settings.url_domain) is None:
        raise ConfigurationError("configuration: url_domain must be a host name in lower case, without port")
    if settings.object_store:
        _check_bucket(settings.object_store)
    if settings.cpu_policy not in ("quota", "weight"):
        raise ConfigurationError("configuration: cpu_policy must be 'quota' or 'weight'")
    if settings.code_mounts not in ("trees", "images"):
        raise ConfigurationError("configuration: code_mounts must be 'trees' or 'images'")
    if settings.isolation not in ("container", "qemu", "firecracker"):
        raise ConfigurationError("configuration: isolation must be 'container', 'qemu' or 'firecracker'")
    if settings.roles not in ("lenient", "strict"):
        raise ConfigurationError("configuration: roles must be 'lenient' or 'strict'")
    if bool(settings.access_key_id) != bool(settings.secret_access_key):
        raise ConfigurationError("configuration: access_key_id and secret_access_key go together")
    if bool(settings.tls_certificate) != bool(settings.tls_key):
        raise ConfigurationError("configuration: tls_certificate and tls_key go together")
    return settings


def _check_bucket(url: str) -> None:
    try:
        bucket_of(url)
    except ValueError as problem:
        raise ConfigurationError("configuration: object_store must be s3://BUCKET/PREFIX") from problem
