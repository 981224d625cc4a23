"""When a server connection has waited long enough, and what happens then. One timer drives it."""

from stoker.http.connection import ServerConnection
from stoker.http.framing import Refused
from stoker.http.reader import BODY, HEAD, IDLE, LAST, LINGER
from stoker.http.state import ServerState


def sweep(state: ServerState) -> None:
    """Move the coarse clock, then look at every connection."""
    state.tick()
    for connection in tuple(state.connections):
        enforce(connection, state.now_s)


def enforce(connection: ServerConnection, now_s: float) -> None:
    """Close, refuse or cut ``connection`` if one of its deadlines has passed at ``now_s`` (coarse)."""
    if _write_stalled(connection, now_s):
        connection.transport.abort()
        return
    limits = connection.shared.limits
    phase = connection._phase
    if phase == LINGER:
        if now_s - connection._since_s > limits.linger_timeout_s and not connection.unsent_bytes:
            connection.transport.abort()
    elif phase == BODY:
        if now_s - connection._body_since_s > limits.body_idle_timeout_s:
            _end_late_body(connection)
    elif connection._current is None and not connection._queue and phase < LAST:
        kept = phase == IDLE and connection._served
        if now_s - connection._since_s > (limits.keep_alive_timeout_s if kept else limits.header_timeout_s):
            _end_late_head(connection, begun=phase == HEAD)


def _end_late_head(connection: ServerConnection, *, begun: bool) -> None:
    if begun:
        connection._refuse(Refused(408, "The request headers took too long."))
    else:
        connection._close()


def _end_late_body(connection: ServerConnection) -> None:
    # Waiting for our own consumer, or for the handler to ask for the body, is not the peer's fault.
    if connection._paused or connection._continue_owed:
        return
    if connection._stream is not None:
        connection._body_failed("The request body took too long.")
    else:
        connection._refuse(Refused(408, "The request body took too long."))


def _write_stalled(connection: ServerConnection, now_s: float) -> bool:
    unsent_bytes = connection.transport.get_write_buffer_size()
    if not unsent_bytes or unsent_bytes != connection.unsent_bytes:
        connection.unsent_bytes = unsent_bytes
        connection.unsent_since_s = now_s
        return False
    return now_s - connection.unsent_since_s > connection.shared.limits.write_idle_timeout_s
