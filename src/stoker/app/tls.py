"""The API's TLS: one certificate for all listeners."""

import contextlib
import ssl

from stoker.app.configuration import ConfigurationError


def tls_context(certificate: str, key: str) -> ssl.SSLContext | None:
    """A server's context from two PEM files; None without a certificate.

    Raises:
        ConfigurationError: they cannot be read, or do not belong together.
    """
    if not certificate:
        return None
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    with contextlib.suppress(ssl.SSLError):
        context.set_alpn_protocols(["http/1.1"])
    try:
        context.load_cert_chain(certificate, key)
    except (OSError, ssl.SSLError) as problem:
        raise ConfigurationError(f"tls_certificate and tls_key: {problem}") from problem
    return context
