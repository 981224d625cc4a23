"""Where in the object store things lie. Everything of a root is below one prefix and goes with it."""

import re

from stoker.packaging.chunks.sealing import NAME_BYTES

TABLE = "roots-table/"
"""Revisions of the table of roots."""

ALARMS = "alarms/"
"""One object a root whose chunks were read when nothing should need them any more."""

_DIGEST = re.compile(r"sha256:([0-9a-f]{64})")
_ACCOUNT = re.compile(r"[0-9]{12}")
_MANIFEST = re.compile(r"roots/[0-9a-f]{32}/manifests/([0-9]{12})/([0-9a-f]{64})")


def table_key(revision: int) -> str:
    """Of a revision of the table of roots."""
    return f"{TABLE}{revision:016d}"


def root_prefix(root: str) -> str:
    """Of everything that goes with a root."""
    return f"roots/{root}/"


def chunks_prefix(root: str) -> str:
    """Of a root's chunks."""
    return f"roots/{root}/chunks/"


def chunk_key(root: str, name: bytes) -> str:
    """Of a chunk, by its name."""
    if len(name) != NAME_BYTES:
        raise ValueError(f"a chunk's name has {NAME_BYTES} bytes, not {len(name)}")
    written = name.hex()
    return f"roots/{root}/chunks/{written[:2]}/{written}"


def manifests_prefix(root: str) -> str:
    """Of a root's manifests."""
    return f"roots/{root}/manifests/"


def manifest_key(root: str, account: str, digest: str) -> str:
    """Of the manifest of an image of an account; ``digest`` is ``sha256:`` and 64 hexadecimal digits.

    Raises:
        ValueError: there is no such account or digest.
    """
    return f"roots/{root}/manifests/{_account(account)}/{_hex(digest)}"


def image_of(key: str) -> tuple[str, str] | None:
    """Account and digest of a manifest's key; None when it is none."""
    found = _MANIFEST.fullmatch(key)
    return None if found is None else (found[1], f"sha256:{found[2]}")


def data_key_key(root: str, key_id: bytes) -> str:
    """Of the wrapped data key that a manifest names."""
    return f"roots/{root}/keys/{key_id.hex()}"


def profile_key(root: str, account: str, digest: str) -> str:
    """Of what earlier starts of an image read, kept beside its manifest and moved with it."""
    return f"roots/{root}/profiles/{_account(account)}/{_hex(digest)}"


def admissions_prefix(root: str) -> str:
    """Of the admissions that are under way in a root."""
    return f"roots/{root}/admissions/"


def admission_key(root: str, admission: str) -> str:
    """Of one admission."""
    return f"roots/{root}/admissions/{admission}"


def alarm_key(root: str) -> str:
    """Of a root's alarm."""
    return f"{ALARMS}{root}"


def _account(account: str) -> str:
    if _ACCOUNT.fullmatch(account) is None:
        raise ValueError(f"not an account: {account!r}")
    return account


def _hex(digest: str) -> str:
    found = _DIGEST.fullmatch(digest)
    if found is None:
        raise ValueError(f"not a digest: {digest!r}")
    return found[1]
