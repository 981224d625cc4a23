"""Bounds on what a function may make the Runtime API's server hold or do."""

MAX_CONNECTIONS = 16
"""Connections of one sandbox at a time; a further one is closed at once."""

MAX_HEAD_BYTES = 1_280 * 1024
"""Request line, headers and trailers of one request: AWS's runtimes send X-Ray causes of up to 1 MB there."""

MAX_PIPELINED = 4
"""Requests of one packet answered together; a runtime sends two at most."""

MAX_DISCARDED_BYTES = 256 * 1024 * 1024
"""How much of an over-large body is read and thrown away, so that the runtime can read its 413."""

REFUSED_BURST = 64
"""Refused (or repeated) requests that a sandbox may send at once ..."""

REFUSED_PER_S = 10.0
"""... and how fast that allowance comes back. Beyond it the connection is closed."""
