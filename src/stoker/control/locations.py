"""URLs that let a caller download a function's code for a while, signed so that they cannot be made up."""

import base64
import binascii
import hashlib
import hmac
from collections.abc import Mapping, Sequence

CODE_PATH = "/_stoker/code/"
LIFETIME_S = 600
"""As long as AWS's."""


def code_location(endpoint: str, code_sha256: str, now_s: float, key: bytes) -> str:
    """The URL of a zip for the next ten minutes."""
    name = base64.b64decode(code_sha256).hex()
    expires = str(int(now_s) + LIFETIME_S)
    return f"{endpoint}{CODE_PATH}{name}.zip?Expires={expires}&Signature={_signature(name, expires, key)}"


def located_code(path: str, query: Mapping[str, str], now_s: float, keys: Sequence[bytes]) -> str | None:
    """The CodeSha256 that a URL of ``code_location`` by one of ``keys`` names; None when it is forged or has
    expired."""
    name = path.removeprefix(CODE_PATH).removesuffix(".zip")
    expires, signature = query.get("Expires", ""), query.get("Signature", "")
    good = [_signature(name, expires, key).encode() for key in keys]
    if not any(hmac.compare_digest(each, signature.encode()) for each in good):
        return None
    if int(expires) < now_s:
        return None
    try:
        return base64.b64encode(binascii.unhexlify(name)).decode()
    except binascii.Error:
        return None


def _signature(name: str, expires: str, key: bytes) -> str:
    return hmac.new(key, f"{name} {expires}".encode(), hashlib.sha256).hexdigest()
