"""Requests as a careless client would write them, correctly signed: any value in any member, any bytes anywhere.

Knows the three protocols of the services that are served, and what an answer of each must look like.
"""

import hashlib
import hmac
import io
import json
import re
import socket
import time
from functools import lru_cache
from typing import Any, BinaryIO, NamedTuple
from urllib.parse import quote, quote_from_bytes, unquote_to_bytes
from xml.etree import ElementTree

import botocore.loaders

from tests.running import ACCESS_KEY_ID, REGION, SECRET_ACCESS_KEY

JSON_1_1 = "application/x-amz-json-1.1"
FORM = "application/x-www-form-urlencoded"
REQUEST_ID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


@lru_cache
def model(service: str) -> dict[str, Any]:
    """botocore's model of a service."""
    return botocore.loaders.Loader().load_service_model(service, "service-2")


class Wanted(NamedTuple):
    """A request before it is signed; path and query as they go on the wire."""

    method: str
    path: str
    query: str
    headers: dict[str, bytes]
    body: bytes


class Answer(NamedTuple):
    """Status, headers in lower case, and body."""

    status: int
    headers: dict[str, str]
    body: bytes


def written(service: str, operation: str, members: dict[str, Any]) -> Wanted:
    """The request of an operation with these members, whatever they are."""
    described = model(service)["operations"][operation]
    match service:
        case "lambda":
            return _rest(described, model(service)["shapes"][described["input"]["shape"]], members)
        case "logs":
            target = f"{model(service)['metadata']['targetPrefix']}.{operation}".encode()
            headers = {"x-amz-target": target, "content-type": JSON_1_1.encode()}
            return Wanted("POST", "/", "", headers, json.dumps(members).encode())
        case _:
            pairs = [("Action", operation), ("Version", model(service)["metadata"]["apiVersion"])]
            pairs += _pairs("", members)
            form = "&".join(f"{_escaped(name)}={_escaped(value)}" for name, value in pairs)
            return Wanted("POST", "/", "", {"content-type": FORM.encode()}, form.encode())


def _rest(described: dict[str, Any], shape: dict[str, Any], members: dict[str, Any]) -> Wanted:
    path, _, fixed = described["http"]["requestUri"].partition("?")
    query: list[str] = [fixed] if fixed else []
    headers: dict[str, bytes] = {}
    body: dict[str, Any] = {}
    payload: Any = None
    for name, value in members.items():
        reference = shape["members"].get(name, {})
        wire = reference.get("locationName", name)
        match reference.get("location"):
            case "uri":
                path = path.replace(f"{{{wire}}}", _escaped(_text(value)))
            case "querystring":
                values = value if isinstance(value, list) else [value]
                query += [f"{wire}={_escaped(_text(item))}" for item in values]
            case "header":
                text = _text(value).encode("utf-8", "replace")
                headers[wire] = re.sub(rb"[\r\n\0]", b" ", text).strip()
            case _ if shape.get("payload") == name:
                payload = value
            case _:
                body[wire] = value
    data = json.dumps(body).encode() if body else b""
    if payload is not None:
        data = (
            payload.encode("utf-8", "surrogatepass")
            if isinstance(payload, str)
            else json.dumps(payload).encode()
        )
    return Wanted(described["http"]["method"], path, "&".join(query), headers, data)


def _pairs(prefix: str, value: Any) -> list[tuple[str, str]]:
    if isinstance(value, dict):
        dotted = f"{prefix}." if prefix else ""
        return [pair for name, inner in value.items() for pair in _pairs(f"{dotted}{name}", inner)]
    if isinstance(value, list):
        if not value:
            return [(prefix, "")]
        return [pair for n, inner in enumerate(value, 1) for pair in _pairs(f"{prefix}.member.{n}", inner)]
    return [] if value is None else [(prefix, _text(value))]


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _escaped(text: str) -> str:
    return quote(text, safe="", errors="surrogatepass")


def _normal(path: str) -> str:
    """A path as it is signed: without empty and dot segments."""
    kept: list[str] = []
    for segment in path.split("/"):
        if segment == "..":
            del kept[-1:]
        elif segment not in ("", "."):
            kept.append(segment)
    return "/" + "/".join(kept) + ("/" if kept and path.endswith("/") else "")


class Wire:
    """One connection, opened again when the service has closed it."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._host = f"127.0.0.1:{port}".encode()
        self._key: tuple[str, str, bytes] = ("", "", b"")
        self._socket: socket.socket | None = None
        self._reader: BinaryIO = io.BytesIO()

    def close(self) -> None:
        """Hang up."""
        if self._socket is not None:
            self._reader.close()
            self._socket.close()
            self._socket = None

    def ask(self, service: str, operation: str, members: dict[str, Any]) -> Answer:
        """The answer to an operation with these members."""
        return self.send(service, written(service, operation, members))

    def send(self, service: str, wanted: Wanted) -> Answer:
        """The answer to a request, signed for the service."""
        headers = {**wanted.headers, "host": self._host}
        if wanted.body or wanted.method not in ("GET", "DELETE"):
            headers["content-length"] = str(len(wanted.body)).encode()
        headers["x-amz-date"] = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime()).encode()
        headers["authorization"] = self._signature(service, wanted, headers)
        target = wanted.path + (f"?{wanted.query}" if wanted.query else "")
        head = [f"{wanted.method} {target} HTTP/1.1".encode()]
        head += [name.encode() + b": " + value for name, value in headers.items()]
        message = b"\r\n".join((*head, b"", wanted.body))
        try:
            return self._exchange(message)
        except ConnectionError:
            self.close()
            return self._exchange(message)

    def _exchange(self, message: bytes) -> Answer:
        if self._socket is None:
            self._socket = socket.create_connection(("127.0.0.1", self._port), timeout=30)
            self._reader = self._socket.makefile("rb")
        self._socket.sendall(message)
        status = self._reader.readline().split()
        if not status:
            raise ConnectionResetError
        headers: dict[str, str] = {}
        while line := self._reader.readline().strip():
            name, _, value = line.decode("latin-1").partition(":")
            headers[name.lower()] = value.strip()
        body = self._reader.read(int(headers.get("content-length", "0")))
        if headers.get("connection") == "close":
            self.close()
        return Answer(int(status[1]), headers, body)

    def _signature(self, service: str, wanted: Wanted, headers: dict[str, bytes]) -> bytes:
        date = headers["x-amz-date"].decode()
        names = sorted(name.lower() for name in headers if name.lower() not in ("content-length",))
        fields = {name.lower(): value for name, value in headers.items()}
        query = sorted(
            tuple(quote_from_bytes(unquote_to_bytes(part), safe="-_.~") for part in pair.partition("=")[::2])
            for pair in wanted.query.split("&")
            if pair
        )
        lines = [
            wanted.method.encode(),
            quote(_normal(wanted.path), safe="/~").encode(),
            "&".join(f"{name}={value}" for name, value in query).encode(),
            *(name.encode() + b":" + b" ".join(fields[name].split()) for name in names),
            b"",
            ";".join(names).encode(),
            hashlib.sha256(wanted.body).hexdigest().encode(),
        ]
        scope = f"{date[:8]}/{REGION}/{service}/aws4_request"
        digest = hashlib.sha256(b"\n".join(lines)).hexdigest()
        signed = f"AWS4-HMAC-SHA256\n{date}\n{scope}\n{digest}".encode()
        signature = hmac.digest(self._signing_key(date[:8], service), signed, "sha256").hex()
        listed = ";".join(names)
        return (
            f"AWS4-HMAC-SHA256 Credential={ACCESS_KEY_ID}/{scope}, SignedHeaders={listed}, Signature={signature}"
        ).encode()

    def _signing_key(self, day: str, service: str) -> bytes:
        if self._key[:2] != (day, service):
            key = f"AWS4{SECRET_ACCESS_KEY}".encode()
            for part in (day, REGION, service, "aws4_request"):
                key = hmac.digest(key, part.encode(), "sha256")
            self._key = (day, service, key)
        return self._key[2]


def error_of(service: str, answer: Answer) -> tuple[str, str]:
    """Code and message of a refusal; AssertionError when it is not what the service's protocol demands."""
    if service in ("lambda", "logs"):
        shown = json.loads(answer.body)
        code = answer.headers["x-amzn-errortype"]
        message = shown.get("message", shown.get("Message"))
        expected = "application/json" if service == "lambda" else JSON_1_1
        assert service == "lambda" or shown["__type"] == code, shown
        assert REQUEST_ID.fullmatch(answer.headers["x-amzn-requestid"]), answer.headers
    else:
        root = ElementTree.fromstring(answer.body)
        space = root.tag.partition("}")[0] + "}"
        error = root.find(f"{space}Error")
        assert root.tag == f"{space}ErrorResponse", root.tag
        assert error is not None, answer.body
        code = error.findtext(f"{space}Code") or ""
        message = error.findtext(f"{space}Message")
        assert error.findtext(f"{space}Type") in ("Sender", "Receiver")
        assert root.findtext(f"{space}RequestId") == answer.headers["x-amzn-requestid"]
        expected = "text/xml"
    assert answer.headers["content-type"] == expected, answer.headers
    assert re.fullmatch(r"[A-Za-z.]+", code), code
    assert isinstance(message, str), answer.body
    return code, message


def check_success(service: str, operation: str, answer: Answer) -> Any:
    """What a success holds; AssertionError when its form is not the protocol's, or not the model's."""
    described = model(service)["operations"][operation]
    assert REQUEST_ID.fullmatch(answer.headers["x-amzn-requestid"]), answer.headers
    shape = model(service)["shapes"][described["output"]["shape"]] if "output" in described else {}
    has_status = any(each.get("location") == "statusCode" for each in shape.get("members", {}).values())
    expected = described["http"].get("responseCode", 200)
    assert answer.status == expected or has_status, answer.status
    if service in ("iam", "sts"):
        root = ElementTree.fromstring(answer.body)
        assert root.tag.endswith(f"}}{operation}Response"), root.tag
        assert answer.headers["content-type"] == "text/xml", answer.headers
        return root
    if answer.status == 204 or not (shape or answer.body):
        assert not answer.body, answer.body
        return None
    if shape.get("payload"):
        return answer.body
    expected_type = "application/json" if service == "lambda" else JSON_1_1
    assert answer.headers["content-type"] == expected_type, answer.headers
    return json.loads(answer.body) if answer.body else None
