"""What happened inside a sandbox, turned into what AWS Lambda tells the caller. Pure functions.

Texts and shapes are AWS's: recorded answers where there are some, else the runtime interface emulator's.
"""

import signal

import msgspec

from stoker.sandbox.driver import Exit

UNHANDLED = "Unhandled"

EXIT_ERROR = "Runtime.ExitError"
OUT_OF_MEMORY = "Runtime.OutOfMemory"
TIMED_OUT = "Sandbox.Timedout"
RESPONSE_TOO_LARGE = "Function.ResponseSizeTooLarge"

_SIGNALS = {
    signal.SIGHUP: "hangup",
    signal.SIGINT: "interrupt",
    signal.SIGQUIT: "quit",
    signal.SIGILL: "illegal instruction",
    signal.SIGTRAP: "trace/breakpoint trap",
    signal.SIGABRT: "aborted",
    signal.SIGBUS: "bus error",
    signal.SIGFPE: "floating point exception",
    signal.SIGKILL: "killed",
    signal.SIGUSR1: "user defined signal 1",
    signal.SIGSEGV: "segmentation fault",
    signal.SIGUSR2: "user defined signal 2",
    signal.SIGPIPE: "broken pipe",
    signal.SIGALRM: "alarm clock",
    signal.SIGTERM: "terminated",
    signal.SIGXCPU: "CPU time limit exceeded",
    signal.SIGXFSZ: "file size limit exceeded",
    signal.SIGSYS: "bad system call",
}
"""Go's names of signals (``syscall.Signal.String``), which AWS's messages use."""


class Outcome(msgspec.Struct, frozen=True):
    """The end of one invocation, or of one Init phase.

    ``log_line`` is what the platform writes into the log about it, without time stamp; ``error_type`` is what
    REPORT names.
    """

    payload: bytes
    function_error: str | None = None
    healthy: bool = True
    status: str = "success"
    """``success``, ``error``, ``failure`` or ``timeout``, as platform events name it."""
    error_type: str | None = None
    log_line: str | None = None


def succeeded(payload: bytes) -> Outcome:
    """The function returned."""
    return Outcome(payload)


def failed(error_type: str, payload: bytes, request_id: str) -> Outcome:
    """The function or its runtime posted an error. The runtime goes on, except after an over-large response.

    An empty body becomes AWS's stand-in for an error without details.
    """
    body = payload or _error(error_type, f"RequestId: {request_id} Error: {error_type}")
    return Outcome(
        body, UNHANDLED, healthy=error_type != RESPONSE_TOO_LARGE, status="error", error_type=error_type
    )


def init_failed(error_type: str, payload: bytes, request_id: str) -> Outcome:
    """The runtime could not load the function, at the second attempt too."""
    body = payload or _error(error_type, f"RequestId: {request_id} Error: {error_type}")
    return Outcome(body, UNHANDLED, healthy=False, status="error", error_type=error_type)


def timed_out(timeout_s: float, request_id: str) -> Outcome:
    """The function did not answer in time."""
    text = f"Task timed out after {timeout_s:.2f} seconds"
    return Outcome(
        _error(TIMED_OUT, f"RequestId: {request_id} Error: {text}"),
        UNHANDLED,
        healthy=False,
        status="timeout",
        error_type=TIMED_OUT,
        log_line=f"{request_id} {text}\n\n",
    )


def exited(end: Exit, request_id: str) -> Outcome:
    """The runtime's process ended while it owed an answer."""
    message = f"RequestId: {request_id} Error: {exit_message(end)}"
    return Outcome(
        _error(EXIT_ERROR, message),
        UNHANDLED,
        healthy=False,
        status="error",
        error_type=exit_error_type(end),
        log_line=f"{message}\n{EXIT_ERROR}\n",
    )


def platform_failure(error_type: str, text: str, request_id: str) -> Outcome:
    """The platform could not start the runtime at all (``Runtime.InvalidEntrypoint``)."""
    message = f"RequestId: {request_id} Error: {text}"
    return Outcome(
        _error(error_type, message),
        UNHANDLED,
        healthy=False,
        status="error",
        error_type=error_type,
        log_line=f"{message}\n{error_type}\n",
    )


def exit_message(end: Exit) -> str:
    """How AWS says that a process ended; running out of memory reads as a kill."""
    if end.oom_killed:
        return "Runtime exited with error: signal: killed"
    if end.signal is not None:
        return f"Runtime exited with error: signal: {_signal_name(end.signal)}"
    if end.status:
        return f"Runtime exited with error: exit status {end.status}"
    return "Runtime exited without providing a reason"


def exit_error_type(end: Exit) -> str:
    """The error type that REPORT and INIT_REPORT name."""
    return OUT_OF_MEMORY if end.oom_killed else EXIT_ERROR


def _signal_name(number: int) -> str:
    try:
        return _SIGNALS[signal.Signals(number)]
    except (KeyError, ValueError):
        return f"signal {number}"


def _error(error_type: str, message: str) -> bytes:
    return msgspec.json.encode({"errorType": error_type, "errorMessage": message})
