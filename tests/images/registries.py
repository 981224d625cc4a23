"""Debian's docker-registry and a token service as real servers on loopback, for tests; skopeo to push to them."""

import base64
import contextlib
import datetime
import http.server
import ipaddress
import json
import secrets
import shutil
import socket
import ssl
import subprocess
import tempfile
import threading
import time
import urllib.parse
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.x509.oid import NameOID

READY_WITHIN_S = 15.0
USER, PASSWORD = "stoker-test", "a password: with a colon"


def program(name: str, package: str | None = None) -> str:
    """A program of this host, or a skip that says what is missing."""
    found = shutil.which(name)
    if found is None:
        pytest.skip(f"no {name} on this host (Debian: {package or name})")
    return found


@dataclass(frozen=True)
class Certificates:
    """An authority of our own and a certificate of 127.0.0.1 and localhost."""

    authority: Path
    certificate: Path
    key: Path
    private: ec.EllipticCurvePrivateKey


def make_certificates(folder: Path) -> Certificates:
    """Valid for an hour."""
    now = datetime.datetime.now(datetime.UTC)
    issuer_key, key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    issuer = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "test authority")])
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])

    def builder(name: x509.Name, public: Any) -> x509.CertificateBuilder:
        start, end = now - datetime.timedelta(minutes=5), now + datetime.timedelta(hours=1)
        made = x509.CertificateBuilder().subject_name(name).issuer_name(issuer).public_key(public)
        return made.serial_number(x509.random_serial_number()).not_valid_before(start).not_valid_after(end)

    basic = x509.BasicConstraints(ca=True, path_length=None)
    authority = builder(issuer, issuer_key.public_key()).add_extension(basic, critical=True)
    names = x509.SubjectAlternativeName(
        [x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
    )
    leaf = builder(subject, key.public_key()).add_extension(names, critical=False)
    pem = serialization.Encoding.PEM
    authority_file, leaf_file, key_file = folder / "ca.pem", folder / "leaf.pem", folder / "leaf.key"
    authority_file.write_bytes(authority.sign(issuer_key, hashes.SHA256()).public_bytes(pem))
    leaf_file.write_bytes(leaf.sign(issuer_key, hashes.SHA256()).public_bytes(pem))
    key_file.write_bytes(
        key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return Certificates(authority_file, leaf_file, key_file, key)


@dataclass
class Registry:
    """A running docker-registry."""

    host: str
    folder: Path
    process: subprocess.Popen[bytes]
    tls: Certificates | None = None

    def push(self, layout: Path, name: str, tag: str = "latest", *options: str) -> str:
        """Push an image of a layout with skopeo and return the digest that skopeo sees there."""
        self.push_only(layout, name, tag, *options)
        return self.inspect(name, tag)

    def push_only(self, layout: Path, name: str, tag: str = "latest", *options: str) -> None:
        """Push an image of a layout with skopeo."""
        skopeo = program("skopeo")
        trust = "--dest-tls-verify=false"
        target = f"docker://{self.host}/{name}:{tag}"
        _run(skopeo, "--insecure-policy", "copy", "-q", trust, *options, f"oci:{layout}:{tag}", target)

    def inspect(self, name: str, tag: str = "latest", *options: str) -> str:
        """The digest of what a tag names, according to skopeo."""
        command = (program("skopeo"), "inspect", "--raw", "--tls-verify=false", *options)
        raw = _run(*command, f"docker://{self.host}/{name}:{tag}")
        digest = subprocess.run([program("skopeo"), "manifest-digest", "/dev/stdin"], input=raw, capture_output=True, check=True)  # fmt: skip
        return digest.stdout.decode().strip()


@contextmanager
def running_registry(
    *, htpasswd: bool = False, tls: Certificates | None = None, token: "TokenService | None" = None
) -> Iterator[Registry]:
    """A docker-registry with an empty store on a port of its own."""
    server = program("docker-registry")
    folder = Path(tempfile.mkdtemp(prefix="stoker-test-registry-", dir="/var/tmp"))
    port = free_port()
    config: dict[str, Any] = {
        "version": "0.1",
        "log": {"level": "error"},
        "storage": {"filesystem": {"rootdirectory": str(folder / "store")}, "delete": {"enabled": True}},
        "http": {"addr": f"127.0.0.1:{port}", "secret": "test"},
    }
    if tls is not None:
        config["http"]["tls"] = {"certificate": str(tls.certificate), "key": str(tls.key)}
    if htpasswd:
        hashed = _run(program("htpasswd", "apache2-utils"), "-Bbn", "-C", "4", USER, PASSWORD)
        (folder / "htpasswd").write_bytes(hashed)
        config["auth"] = {"htpasswd": {"realm": "test", "path": str(folder / "htpasswd")}}
    if token is not None:
        config["auth"] = {"token": token.registry_settings()}
    (folder / "config.yml").write_text(json.dumps(config))
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen([server, "serve", str(folder / "config.yml")], stdout=log, stderr=log)
    try:
        _wait_open(port, process, folder / "log")
        yield Registry(f"127.0.0.1:{port}", folder, process, tls)
    finally:
        process.kill()
        process.wait()
        shutil.rmtree(folder, ignore_errors=True)


@dataclass
class TokenService:
    """What a registry's Bearer challenge names: tokens for whoever has the password, or for anybody."""

    tls: Certificates
    anonymous: bool = False
    host: str = ""
    asked: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])
    """What came with each request: path, query, authorization."""

    def registry_settings(self) -> dict[str, Any]:
        """Of docker-registry."""
        bundle = str(self.tls.certificate)
        return {
            "realm": f"https://{self.host}/token",
            "service": "test",
            "issuer": "test",
            "rootcertbundle": bundle,
        }

    def answer(self, method: str, target: str, authorization: str | None, body: bytes) -> tuple[int, bytes]:
        """Status and JSON."""
        query = urllib.parse.parse_qs(urllib.parse.urlsplit(target).query)
        query |= urllib.parse.parse_qs(body.decode())
        self.asked.append({"method": method, "query": query, "authorization": authorization})
        expected = "Basic " + base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
        refreshed = query.get("refresh_token") == ["refresh-me"]
        if not (self.anonymous or authorization == expected or refreshed):
            return 401, b'{"errors":[{"code":"UNAUTHORIZED"}]}'
        access = [_access(scope) for scope in query.get("scope", [])]
        return 200, json.dumps({"token": self._token(access), "expires_in": 300}).encode()

    def _token(self, access: list[dict[str, Any]]) -> str:
        der = x509.load_pem_x509_certificate(self.tls.certificate.read_bytes())
        x5c = base64.b64encode(der.public_bytes(serialization.Encoding.DER)).decode()
        now = int(time.time())
        claims = {"iss": "test", "sub": USER, "aud": "test", "exp": now + 300, "nbf": now - 60, "iat": now}
        claims |= {"jti": secrets.token_hex(8), "access": access}
        signed = f"{_part({'typ': 'JWT', 'alg': 'ES256', 'x5c': [x5c]})}.{_part(claims)}"
        first, second = decode_dss_signature(
            self.tls.private.sign(signed.encode(), ec.ECDSA(hashes.SHA256()))
        )
        signature = first.to_bytes(32, "big") + second.to_bytes(32, "big")
        return f"{signed}.{base64.urlsafe_b64encode(signature).decode().rstrip('=')}"


def _access(scope: str) -> dict[str, Any]:
    kind, name, actions = scope.split(":")
    return {"type": kind, "name": name, "actions": actions.split(",")}


def _part(document: dict[str, Any]) -> str:
    return base64.urlsafe_b64encode(json.dumps(document).encode()).decode().rstrip("=")


@contextmanager
def running_token_service(tls: Certificates, *, anonymous: bool = False) -> Iterator[TokenService]:
    """Over TLS, as realms have to be."""
    service = TokenService(tls, anonymous)

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            length = int(self.headers.get("content-length") or 0)
            body = self.rfile.read(length)
            status, content = service.answer(self.command, self.path, self.headers.get("authorization"), body)
            self.send_response(status)
            self.send_header("content-length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        do_POST = do_GET

        def log_message(self, *args: Any) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tls.certificate, tls.key)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    service.host = f"127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield service
    finally:
        server.shutdown()
        server.server_close()


def docker_config(folder: Path, auths: dict[str, dict[str, str]], **more: Any) -> Path:
    """A docker config.json."""
    path = folder / f"config-{secrets.token_hex(4)}.json"
    path.write_text(json.dumps({"auths": auths, **more}))
    path.chmod(0o600)
    return path


def basic_auth(user: str = USER, password: str = PASSWORD) -> dict[str, str]:
    """An entry of its auths."""
    return {"auth": base64.b64encode(f"{user}:{password}".encode()).decode()}


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def _wait_open(port: int, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + READY_WITHIN_S
    while time.monotonic() < deadline:
        if process.poll() is not None:
            break
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return
        time.sleep(0.02)
    raise RuntimeError(f"docker-registry does not start: {log.read_text()[-2000:]}")


def _run(*command: str) -> bytes:
    done = subprocess.run(command, capture_output=True, check=False, timeout=120)
    if done.returncode:
        raise RuntimeError(f"{command}: {done.stdout.decode()}{done.stderr.decode()}")
    return done.stdout
