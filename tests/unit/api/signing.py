"""Requests signed by botocore's own signers, as the http package hands them to a handler."""

import datetime
from urllib.parse import urlsplit

import botocore.auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials as Keys

from stoker.http.messages import Request
from stoker.services.credentials import Credential

KEY = Credential(
    access_key_id="AKIAIOSFODNN7EXAMPLE",
    secret="wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY",
    account="000000000000",
    principal_arn="arn:aws:iam::000000000000:root",
)
HOST = "127.0.0.1:9797"


class KnownKeys:
    """A credentials port that knows what it is given."""

    def __init__(self, *credentials: Credential) -> None:
        self._known = {c.access_key_id: c for c in credentials}

    def lookup(self, access_key_id: str, session_token: str | None) -> Credential | None:
        found = self._known.get(access_key_id)
        return found if found and found.session_token == session_token else None


def utc(seconds: float) -> datetime.datetime:
    return datetime.datetime.fromtimestamp(seconds, datetime.UTC)


class frozen_time:
    """botocore signs at this moment."""

    def __init__(self, now_s: float) -> None:
        self._now = utc(now_s).replace(tzinfo=None)

    def __enter__(self) -> None:
        self._original = botocore.auth.get_current_datetime
        botocore.auth.get_current_datetime = lambda *_, **__: self._now

    def __exit__(self, *_: object) -> None:
        botocore.auth.get_current_datetime = self._original


def to_request(signed: AWSRequest, body: bytes) -> Request:
    """What the server would make of the prepared request."""
    prepared = signed.prepare()
    parts = urlsplit(prepared.url)
    target = parts.path + (f"?{parts.query}" if parts.query else "")
    headers = [
        (name.lower().encode(), value if isinstance(value, bytes) else str(value).encode())
        for name, value in prepared.headers.items()
    ]
    if not any(name == b"host" for name, _ in headers):
        headers.append((b"host", parts.netloc.encode()))
    return Request(signed.method.encode(), target.encode(), headers, "127.0.0.1", False, body)


def sign(
    now_s: float,
    *,
    method: str = "POST",
    path: str = "/2015-03-31/functions/f/invocations",
    body: bytes = b"{}",
    headers: dict[str, str] | None = None,
    key: Credential = KEY,
    region: str = "us-east-1",
    service: str = "lambda",
    presign_s: int | None = None,
) -> Request:
    """One request signed in header form, or presigned for ``presign_s`` seconds."""
    keys = Keys(key.access_key_id, key.secret, key.session_token)
    request = AWSRequest(method=method, url=f"http://{HOST}{path}", data=body, headers=headers or {})
    if presign_s is None:
        signer = botocore.auth.SigV4Auth(keys, service, region)
    else:
        signer = botocore.auth.SigV4QueryAuth(keys, service, region, expires=presign_s)
    with frozen_time(now_s):
        signer.add_auth(request)
    return to_request(request, body)
