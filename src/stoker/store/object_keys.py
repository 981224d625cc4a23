"""Which keys, prefixes and buckets an object store takes: nothing in them leaves a folder or breaks a URL."""

import re

KEY_MAX_CHARACTERS = 800
"""S3 takes 1,024 bytes, of which the configured prefix needs some."""

SEGMENT_MAX_CHARACTERS = 200

_SEGMENT = rf"(?!\.{{1,2}}(?:/|\Z))[A-Za-z0-9._=-]{{1,{SEGMENT_MAX_CHARACTERS}}}"
_KEY = re.compile(rf"{_SEGMENT}(?:/{_SEGMENT})*", re.ASCII)


def checked_key(key: str) -> str:
    """The key itself.

    Raises:
        ValueError: it is none.
    """
    if len(key) > KEY_MAX_CHARACTERS or _KEY.fullmatch(key) is None:
        raise ValueError(f"not an object key: {key[:100]!r}")
    return key


def prefix_folder(prefix: str) -> str:
    """The whole segments of a listing's prefix, with a slash at their end; "" when there are none.

    Raises:
        ValueError: no key starts so.
    """
    folder, _, start = prefix.rpartition("/")
    if folder:
        checked_key(folder)
    if start.strip("."):
        checked_key(start)
    if prefix and not folder and prefix.startswith("/"):
        raise ValueError(f"not the start of an object key: {prefix[:100]!r}")
    return folder + "/" if folder else ""


def bucket_of(url: str) -> tuple[str, str]:
    """Bucket and prefix of ``s3://BUCKET/PREFIX``.

    Raises:
        ValueError: it is none.
    """
    scheme, separator, rest = url.partition("://")
    bucket, _, prefix = rest.partition("/")
    if scheme != "s3" or not separator or not bucket:
        raise ValueError(f"not s3://BUCKET/PREFIX: {url!r}")
    prefix = prefix.strip("/")
    return bucket, checked_key(prefix) if prefix else ""
