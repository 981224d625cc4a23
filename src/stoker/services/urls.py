"""Function URLs as the rooms know them: ``control`` writes them, ``frontend`` serves by them.

Nothing here knows host names, paths or HTTP: a URL is its id.
"""

import base64
import hashlib
import re
from typing import Final

import msgspec

from stoker.services.functions import LATEST, FunctionKey
from stoker.services.lambda_types import Cors
from stoker.services.records import RecordKey, Records, Shelf

FUNCTION_URL: Final = "function-url"
"""The kind of their records: owned by the function, named after the qualifier, found by the URL's id."""

NO_AUTH: Final = "NONE"
IAM_AUTH: Final = "AWS_IAM"
BUFFERED: Final = "BUFFERED"

FORBIDDEN: Final = (
    "Forbidden. For troubleshooting Function URL authorization issues, see: "
    "https://docs.aws.amazon.com/lambda/latest/dg/urls-auth.html"
)
"""AWS's message for whoever may not call a URL."""

_ACCOUNT_BYTES: Final = 5
_NONCE_BYTES: Final = 15
_ID: Final = re.compile(r"[a-z2-7]{32}", re.ASCII)


class FunctionUrl(msgspec.Struct, frozen=True, kw_only=True):
    """One URL. Times are seconds since the epoch."""

    url_id: str
    auth_type: str
    created_at_s: float
    modified_at_s: float
    cors: Cors | None = None
    invoke_mode: str | None = None
    """As it was asked for; None stands for BUFFERED."""


UrlShelf = Shelf[FunctionUrl]


def url_shelf(records: Records) -> UrlShelf:
    """The function URLs among the records."""
    return Shelf(records, FUNCTION_URL, FunctionUrl)


def url_key(function: FunctionKey, qualifier: str | None) -> RecordKey:
    """Where the URL of a function, or of one of its aliases, is kept."""
    return RecordKey(FUNCTION_URL, function.account, function.region, function.name, qualifier or LATEST)


def new_url_id(account: str, seed: str) -> str:
    """A URL's id: 32 characters that nobody guesses, as AWS's; ``seed`` is random (a UUID).

    It carries the account, which is what a record is looked for in.
    """
    nonce = hashlib.sha256(seed.encode()).digest()[:_NONCE_BYTES]
    number = int(account).to_bytes(_ACCOUNT_BYTES, "big")
    return base64.b32encode(nonce + _masked(number, nonce)).decode().lower()


def account_of(url_id: str) -> str | None:
    """The account that an id carries; None for what is no id."""
    if _ID.fullmatch(url_id) is None:
        return None
    raw = base64.b32decode(url_id.upper())
    number = int.from_bytes(_masked(raw[_NONCE_BYTES:], raw[:_NONCE_BYTES]), "big")
    return f"{number:012d}" if number < 10**12 else None


def _masked(number: bytes, nonce: bytes) -> bytes:
    return bytes(a ^ b for a, b in zip(number, hashlib.sha256(nonce).digest(), strict=False))
