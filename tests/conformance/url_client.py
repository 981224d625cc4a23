"""Plain HTTP clients for function URLs: every method, path and header as a test wants it, nothing added."""

import http.client
import json
from typing import Any
from urllib.parse import urlsplit

import botocore.auth
import msgspec
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from tests.running import ACCESS_KEY_ID, REGION, SECRET_ACCESS_KEY, RunningStoker


class Answer(msgspec.Struct, frozen=True):
    """One HTTP response; header names in lower case."""

    status: int
    headers: dict[str, str]
    body: bytes
    cookies: tuple[str, ...] = ()

    def json(self) -> Any:
        """The body decoded."""
        return json.loads(self.body)


def opened(stoker: RunningStoker, name: str, auth_type: str = "NONE", **config: Any) -> str:
    """Give a function a URL that its policy opens; returns the URL."""
    service = stoker.client("lambda")
    made = service.create_function_url_config(FunctionName=name, AuthType=auth_type, **config)
    if auth_type == "NONE":
        qualifier = {"Qualifier": config["Qualifier"]} if "Qualifier" in config else {}
        service.add_permission(
            FunctionName=name,
            StatementId="urlPermission",
            Action="lambda:InvokeFunctionUrl",
            Principal="*",
            FunctionUrlAuthType="NONE",
            **qualifier,
        )
    return made["FunctionUrl"]


def call(
    stoker: RunningStoker,
    url: str,
    target: str = "/",
    method: str = "GET",
    headers: dict[str, str] | None = None,
    body: bytes | None = None,
) -> Answer:
    """One request to the URL's host on the test's own listener, whatever resolves names here."""
    connection = http.client.HTTPConnection("127.0.0.1", stoker.port, timeout=30)
    try:
        connection.putrequest(method, target, skip_host=True, skip_accept_encoding=True)
        for name, value in {"Host": urlsplit(url).netloc, **(headers or {})}.items():
            connection.putheader(name, value)
        if body is not None:
            connection.putheader("Content-Length", str(len(body)))
        connection.endheaders(body)
        response = connection.getresponse()
        shown = response.getheaders()
        return Answer(
            response.status,
            {name.lower(): value for name, value in shown},
            response.read(),
            tuple(value for name, value in shown if name.lower() == "set-cookie"),
        )
    finally:
        connection.close()


def signed_call(
    stoker: RunningStoker,
    url: str,
    target: str = "/",
    method: str = "GET",
    *,
    key: tuple[str | None, ...] = (ACCESS_KEY_ID, SECRET_ACCESS_KEY),
    body: bytes = b"",
    region: str = REGION,
    service: str = "lambda",
    presigned: bool = False,
    changed_body: bytes | None = None,
) -> Answer:
    """As ``call``, signed by botocore; ``changed_body`` is sent in the place of what was signed."""
    request = AWSRequest(method=method, url=url.rstrip("/") + target, data=body)
    signer = botocore.auth.SigV4QueryAuth if presigned else botocore.auth.SigV4Auth
    signer(Credentials(*key), service, region).add_auth(request)
    parts = urlsplit(request.prepare().url)
    headers = {name: value for name, value in request.headers.items() if name.lower() != "content-length"}
    sent = body if changed_body is None else changed_body
    return call(stoker, url, f"{parts.path}?{parts.query}".rstrip("?"), method, headers, sent or None)
