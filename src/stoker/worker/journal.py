"""One sandbox's log as it is written: the platform's lines and the function's, to the store and the tail."""

from collections.abc import Sequence

from stoker.core.clock import Clock
from stoker.services.functions import FunctionVersion
from stoker.services.invocation import Invocation
from stoker.services.logs import LogWriter
from stoker.worker.launching import runtime_version_of
from stoker.worker.outcome import Outcome
from stoker.worker.report import Report, Usage, report_of
from stoker.worker.tail import Tail


class Journal:
    """Writes behind: nothing here waits or touches a disk. It is the sink of the sandbox's output."""

    __slots__ = ("_clock", "_function", "_last_ms", "_report", "_tail", "_tailing", "_writer")

    def __init__(self, function: FunctionVersion, writer: LogWriter, clock: Clock) -> None:
        self._function = function
        self._writer = writer
        self._clock = clock
        self._report: Report = report_of(function.logging.log_format, function.logging.system_log_level)
        self._tail = Tail()
        self._tailing = True
        """Between invocations too: what is written then belongs to the next one's tail, if that wants one."""
        self._last_ms = 0

    # --- the function's own output

    def write(self, timestamp_ms: int, message: str) -> None:
        """One message of the function. Whatever time it claims, a stream's time never runs backwards."""
        self._last_ms = timestamp_ms = max(timestamp_ms, self._last_ms)
        self._writer.append(timestamp_ms, message)
        if self._tailing:
            self._tail.append(message)

    @property
    def congested(self) -> bool:
        """The store is behind."""
        return self._writer.congested

    # --- the platform's lines

    def note(self, line: str) -> None:
        """What the platform has to say of a sandbox, in its own words."""
        self._line(self._clock.now_s(), line)

    def init_start(self) -> None:
        if self._function.image is not None:
            return  # it would name the runtime, and an image brings its own
        now_s = self._clock.now_s()
        self._line(now_s, self._report.init_start(now_s, *runtime_version_of(self._function)))

    def extensions_not_started(self, names: Sequence[str]) -> None:
        """External extensions that the layers hold: AWS would start them, nothing here does."""
        now_s = self._clock.now_s()
        for name in names:
            self._line(now_s, self._report.extension(now_s, name))

    def init_report(self, duration_ms: float, phase: str, outcome: Outcome) -> None:
        now_s = self._clock.now_s()
        self._line(now_s, self._report.init_report(now_s, duration_ms, phase, outcome))

    def start(self, invocation: Invocation) -> None:
        if not invocation.want_log_tail:
            self._tail.clear()
            self._tailing = False
        now_s = self._clock.now_s()
        self._line(now_s, self._report.start(now_s, invocation.request_id, self._function.version))

    def end(self, invocation: Invocation, usage: Usage, outcome: Outcome) -> bytes | None:
        """Whatever the platform says of the end; returns the tail of the invocation's log if it is wanted."""
        request_id = invocation.request_id
        now_s = self._clock.now_s()
        if outcome.log_line is not None:
            self._line(now_s, self._report.fault(now_s, outcome))
        self._line(now_s, self._report.end(now_s, request_id, usage, outcome, invocation.trace_id))
        self._line(now_s, self._report.report(now_s, request_id, usage, outcome, invocation.trace_id))
        self._tailing = True
        return self._tail.take() if invocation.want_log_tail else None

    def _line(self, now_s: float, line: str | None) -> None:
        if line is not None:
            self.write(int(now_s * 1000), line)

    def close(self) -> None:
        self._writer.close()
