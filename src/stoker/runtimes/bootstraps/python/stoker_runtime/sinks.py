"""Where log messages go: standard output, or the framed telemetry pipe where the platform offers one."""

import os
import sys
import time


class Unbuffered:
    """A text stream that is flushed after every write, so that nothing is lost when the sandbox freezes."""

    def __init__(self, stream):
        self.stream = stream

    def __enter__(self):
        return self

    def __exit__(self, exc_type, exc_value, exc_tb):
        pass

    def __getattr__(self, attr):
        return getattr(self.stream, attr)

    def write(self, msg):
        self.stream.write(msg)
        self.stream.flush()

    def writelines(self, msgs):
        self.stream.writelines(msgs)
        self.stream.flush()


def is_json_format():
    """Whether the function asked for JSON logs (AWS_LAMBDA_LOG_FORMAT)."""
    return (os.environ.get("AWS_LAMBDA_LOG_FORMAT") or "").upper() == "JSON"


TEXT_FRAME = b"\xa5\x5a\x00\x03"


def frame_type(level, is_json):
    """Frame type of a logging level (0 to 50 in tens): 0xa55a0002, the level's bits, bit 0 for text."""
    step = level // 10
    bits = (step + 1) << 2 if step else 0
    return b"\xa5\x5a\x00" + bytes([(2 if is_json else 3) | bits])


class StandardLogSink:
    """Messages to standard output; an error's lines are joined by carriage returns into one log line."""

    def __enter__(self):
        return self

    def __exit__(self, exc_type, exc_value, exc_tb):
        pass

    def log(self, msg, frame_type=None):
        sys.stdout.write(msg)

    def log_error(self, message_lines):
        sys.stdout.write("\r".join(message_lines) + "\n")


class FramedTelemetryLogSink:
    """Messages as frames: type, length, time in microseconds, all big-endian, then the text."""

    def __init__(self, fd):
        self.fd = int(fd)

    def __enter__(self):
        self.file = os.fdopen(self.fd, "wb", 0)
        return self

    def __exit__(self, exc_type, exc_value, exc_tb):
        self.file.close()

    def log(self, msg, frame_type=None):
        message = msg.encode("utf8")
        frame = (
            (frame_type or TEXT_FRAME)
            + len(message).to_bytes(4, "big")
            + (time.time_ns() // 1000).to_bytes(8, "big")
            + message
        )
        written = self.file.write(frame)
        # A full pipe may take less than a whole frame; half a frame would spoil all that follow.
        while written is not None and written < len(frame):
            frame = frame[written:]
            written = self.file.write(frame)

    def log_error(self, message_lines):
        self.log("\n".join(message_lines), frame_type=frame_type(40, is_json_format()))


def create_log_sink():
    """The sink for this process; the pipe's number does not stay in the function's environment."""
    global current
    fd = os.environ.pop("_LAMBDA_TELEMETRY_LOG_FD", None)
    current = StandardLogSink() if fd is None else FramedTelemetryLogSink(fd)
    return current


current = StandardLogSink()
"""The sink that create_log_sink made last."""
