"""Names of accounts, regions, groups and streams as names of files that can never leave their folder."""

import hashlib
import re
from urllib.parse import quote, unquote

_WHOLE_MAX = 180
"""A longer escaped name is cut and told apart by a digest; then the true name is in the metadata only."""

_PLAIN = re.compile(r"[A-Za-z0-9_-]+")


def escape(name: str) -> str:
    """A file name for any text: no separators, no leading dot, at most 255 bytes."""
    if _PLAIN.fullmatch(name) and len(name) <= _WHOLE_MAX:
        return name
    # Every byte outside A-Z a-z 0-9 _ - . ~ becomes %XX; dots too, so that neither "." nor ".." can come out.
    escaped = quote(name, safe="").replace(".", "%2E") or "%"
    if len(escaped) <= _WHOLE_MAX:
        return escaped
    digest = hashlib.sha256(name.encode("utf-8", "surrogatepass")).hexdigest()
    return f"{escaped[:100]}+{digest}"


def unescape(file_name: str) -> str | None:
    """The text that a file name stands for, or None when it was cut."""
    if "+" in file_name:
        return None
    return "" if file_name == "%" else unquote(file_name)
