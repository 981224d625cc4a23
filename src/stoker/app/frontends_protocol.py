"""What the service and its front-end processes say to each other beside the operations of the API."""

from typing import Final

import msgspec

from stoker.app.unsigned import Page
from stoker.services.credentials import Credential
from stoker.transport.rpc import Operation


class Orders(msgspec.Struct, frozen=True, kw_only=True):
    """All that a front end must know. It travels over the socket only: it holds secrets."""

    keys: tuple[Credential, ...]
    session_keys: tuple[bytes, ...]
    operations: dict[str, tuple[str, ...]]
    """What is served, by service."""
    public_url: str
    url_domain: str
    region: str
    spool_directory: str
    tls_certificate: str
    tls_key: str
    log_level: str

    def __repr__(self) -> str:
        return "Orders(...)"


# Asked by the service.
BEGIN: Final = Operation("frontend.begin", tuple[Orders], None, deadline_s=60.0)
"""Listen; answered once it does."""
KEYS: Final = Operation(
    "frontend.keys", tuple[tuple[Credential, ...], tuple[bytes, ...]], None, deadline_s=5.0
)
"""Accept these keys, and sessions of these session keys, and no others from now on."""
DRAIN: Final = Operation("frontend.drain", tuple[()], None, deadline_s=5.0)
"""Accept no more, finish what is under way, end. Answered at once."""

# Asked by front ends.
PAGE: Final = Operation("service.page", tuple[str], Page, deadline_s=10.0)
"""One of the pages that need no signature, by its path."""
CODE: Final = Operation("service.code", tuple[str, dict[str, str]], str | None, deadline_s=30.0)
"""The archive behind a download URL's path and query; None when the URL is forged or expired."""
