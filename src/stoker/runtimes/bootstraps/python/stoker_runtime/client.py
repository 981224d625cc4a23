"""A keep-alive HTTP/1.1 client for the Lambda Runtime API on a raw socket.

``http.client`` alone would double the time to the first ``/next``; ``_socket`` is the C part of ``socket``.
"""

import _socket

MAX_RESPONSE_BYTES = 6291556
"""Above it the API answers 413, so such a response is not sent together with the next ``/next``."""

_MAX_HEAD_BYTES = 1 << 20


_OF_SANDBOXES = "127.0.0.1:9001"
"""Where the API is in every sandbox, unless something that stands between says otherwise."""

_NAME = "\0stoker-runtime"
"""The same API on a Unix socket, at half the cost of loopback. Node cannot: its libuv pads such names."""


class RuntimeClientError(Exception):
    """The Runtime API refused a request or its connection ended."""


class RuntimeClient:
    """One connection; one request at a time, except that a response carries the next ``/next`` with it."""

    def __init__(self, address):
        host, _, port = address.rpartition(":")
        self._host = host.strip("[]")
        self._authority = address
        self._port = int(port)
        self._socket = None
        self._buffer = b""
        self._next_sent = False
        self._next = (
            "GET /2018-06-01/runtime/invocation/next HTTP/1.1\r\nHost: " + address + "\r\n\r\n"
        ).encode()
        self._accepted_owed = None

    def connect(self):
        """Open the connection, if it is not open."""
        if self._socket is not None:
            return
        if self._authority == _OF_SANDBOXES:
            self._socket = _by_name()
            if self._socket is not None:
                return
        family = _socket.AF_INET6 if ":" in self._host else _socket.AF_INET
        connection = _socket.socket(family, _socket.SOCK_STREAM)
        connection.setsockopt(_socket.IPPROTO_TCP, _socket.TCP_NODELAY, 1)
        connection.connect((self._host, self._port))
        self._socket = connection

    def assignment(self):
        """Wait, in a process started ahead, to be told what it is for; returns JSON bytes."""
        head = "GET /2018-06-01/stoker/assignment HTTP/1.1\r\nHost: " + self._authority + "\r\n\r\n"
        self._send(head.encode())
        status, _, body = self._receive()
        if status != 200:
            raise RuntimeClientError(f"Failed to get an assignment. Response code: {status}. {body!r}")
        return body

    def next(self):
        """Wait for an invocation; returns (headers by lower-case name, body)."""
        if not self._next_sent:
            self._send(self._next)
        self._next_sent = False
        status, headers, body = self._receive()
        if self._accepted_owed is not None:
            self._check(status, body)
            status, headers, body = self._receive()
        if status != 200:
            raise RuntimeClientError(f"Failed to get next. Response code: {status}. {body!r}")
        return headers, body

    def respond(self, request_id, body, content_type):
        """Post the function's response and ask for the next invocation in the same packet."""
        self._post_result(request_id, "response", body, f"Content-Type: {content_type}\r\n", "success")

    def fail(self, request_id, body, error_type, xray_cause):
        """Post the function's error and ask for the next invocation in the same packet."""
        head = "Content-Type: application/json\r\n"
        head += f"Lambda-Runtime-Function-Error-Type: {_header_value(error_type)}\r\n"
        if xray_cause:
            head += f"Lambda-Runtime-Function-XRay-Error-Cause: {_header_value(xray_cause)}\r\n"
        self._post_result(request_id, "error", body, head, "error")

    def fail_init(self, body, error_type):
        """Post an initialisation error and wait until it was taken."""
        head = f"Lambda-Runtime-Function-Error-Type: {_header_value(error_type)}\r\n"
        self._send(self._post("/2018-06-01/runtime/init/error", body, head))
        status, _, answer = self._receive()
        if status != 202:
            raise RuntimeClientError(
                "Request to Lambda Runtime '/2018-06-01/runtime/init/error' endpoint failed. "
                f"Reason: '{status}'. Response body: '{answer}'"
            )

    def _post_result(self, request_id, verb, body, head, what):
        path = f"/2018-06-01/runtime/invocation/{request_id}/{verb}"
        request = self._post(path, body, head)
        self._accepted_owed = what
        if len(body) <= MAX_RESPONSE_BYTES:
            self._send(request + self._next)
            self._next_sent = True
            return
        self._send(request)
        status, _, answer = self._receive()
        self._check(status, answer)

    def _check(self, status, answer):
        what, self._accepted_owed = self._accepted_owed, None
        if status != 202:
            raise RuntimeClientError(
                "LAMBDA_RUNTIME Failed to post handler {} response. Http response code: {}. {}".format(
                    what, status, answer.decode("utf-8", "replace")
                )
            )

    def _post(self, path, body, head):
        return (
            f"POST {path} HTTP/1.1\r\nHost: {self._authority}\r\n{head}Content-Length: {len(body)}\r\n\r\n"
        ).encode() + body

    def _send(self, data):
        self.connect()
        self._socket.sendall(data)

    def _receive(self):
        """One answer: (status, headers, body)."""
        buffer = self._buffer
        while True:
            end = buffer.find(b"\r\n\r\n")
            if end >= 0:
                break
            if len(buffer) > _MAX_HEAD_BYTES:
                raise RuntimeClientError("The Runtime API's answer has no end of headers")
            buffer += self._read(65536)
        lines = buffer[:end].decode("utf-8", "replace").split("\r\n")
        headers = {}
        for line in lines[1:]:
            name, _, value = line.partition(":")
            headers[name.lower()] = value.strip()
        length = int(headers["content-length"])
        body, self._buffer = self._body(buffer, end + 4, length)
        return int(lines[0].split(" ", 2)[1]), headers, body

    def _body(self, buffer, start, length):
        """The body of an answer and what follows it."""
        missing = start + length - len(buffer)
        if missing <= 0:
            return buffer[start : start + length], buffer[start + length :]
        parts = [buffer[start:]]
        while missing > 0:
            part = self._read(min(missing, 1 << 20))
            parts.append(part)
            missing -= len(part)
        return b"".join(parts), b""

    def _read(self, size):
        data = self._socket.recv(size)
        if not data:
            raise RuntimeClientError("The Runtime API closed the connection")
        return data


def _by_name():
    """A connection by the Unix socket; None where there is none."""
    connection = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM)
    try:
        connection.connect(_NAME)
    except OSError:
        connection.close()
        return None
    return connection


def _header_value(text):
    return text.replace("\r", " ").replace("\n", " ").replace("\x7f", " ")
