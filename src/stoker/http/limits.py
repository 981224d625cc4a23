"""Every bound of this package, with its name and unit."""

import msgspec

# What one callback of the parser may turn into requests: bytes beyond it wait unparsed, so that pipelining
# stays bounded although httptools cannot be paused in the middle of its input.
PARSE_SLICE_BYTES = 4096
CHUNKED_SLICE_BYTES = 64 * 1024

# A body stream stops the transport at the first mark and lets it go on below the second.
STREAM_HIGH_WATER_BYTES = 256 * 1024
STREAM_LOW_WATER_BYTES = 64 * 1024

# Bodies up to this size are joined to their head, so that a response is one buffer and one system call.
JOIN_BODY_BYTES = 64 * 1024

# RFC 9113 6.5.2 counts 32 bytes of overhead per field; so does our limit, which then bounds their number too.
HEADER_OVERHEAD_BYTES = 32

# Distinct response header names whose check is remembered.
CHECKED_NAMES = 1024

LISTEN_BACKLOG = 1024


class ServerLimits(msgspec.Struct, frozen=True, kw_only=True):
    """What one HTTP server allows its peers. Times are seconds, sizes bytes."""

    max_header_bytes: int = 32 * 1024
    """All header names and values of one request, 32 bytes of overhead each included."""
    max_header_count: int = 100
    max_target_bytes: int = 16 * 1024
    buffer_limit_bytes: int = 1024 * 1024
    """A body up to this size reaches the handler whole; a larger one as a stream."""
    max_body_bytes: int = 128 * 1024 * 1024
    max_unspooled_bytes: int = 256 * 1024 * 1024
    """Request bodies held in memory by all connections together; more are refused with 503."""
    header_timeout_s: float = 20.0
    """From the first byte of a request to its last header; also from connecting to the first byte."""
    body_idle_timeout_s: float = 30.0
    write_idle_timeout_s: float = 60.0
    """A peer that takes nothing of a response for so long is cut off."""
    keep_alive_timeout_s: float = 75.0
    linger_timeout_s: float = 5.0
    """How long input is discarded after a refusal, so that the peer can still read the answer."""
    tls_handshake_timeout_s: float = 10.0
    max_connections: int = 8192
    pipelining_depth: int = 16
    """Requests waiting behind an unfinished one on the same connection before reading pauses."""
    sweep_interval_s: float = 0.5
    """Resolution of all time-outs."""


class ClientLimits(msgspec.Struct, frozen=True, kw_only=True):
    """What one HTTP client spends. Times are seconds, sizes bytes."""

    max_connections_per_origin: int = 64
    max_waiting_per_origin: int = 4096
    max_idle_per_origin: int = 32
    max_origins: int = 1024
    """Distinct origins remembered; beyond it those without connections are forgotten."""
    idle_timeout_s: float = 60.0
    connect_timeout_s: float = 10.0
    max_response_bytes: int = 64 * 1024 * 1024
    max_response_header_bytes: int = 64 * 1024
