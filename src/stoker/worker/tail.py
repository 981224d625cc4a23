"""The end of one invocation's log, kept in memory for ``LogType=Tail``."""

from collections import deque

from stoker.core.limits import LOG_TAIL_BYTES


class Tail:
    """The newest messages; those that lie wholly outside the last 4 KB are forgotten as new ones come."""

    __slots__ = ("_characters", "_messages")

    def __init__(self) -> None:
        self._messages: deque[str] = deque()
        self._characters = 0

    def append(self, message: str) -> None:
        # Every character is at least one byte, so what is dropped here is outside the tail for certain.
        messages = self._messages
        messages.append(message)
        self._characters += len(message)
        while self._characters - len(messages[0]) >= LOG_TAIL_BYTES:
            self._characters -= len(messages.popleft())

    def take(self) -> bytes:
        """The last 4 KB as bytes, whole characters only, exactly as it was written; then empty."""
        text = "".join(self._messages)[-LOG_TAIL_BYTES:].encode("utf-8", "replace")
        self.clear()
        if len(text) <= LOG_TAIL_BYTES:
            return text
        cut = text[-LOG_TAIL_BYTES:]
        return cut.decode("utf-8", "ignore").encode()

    def clear(self) -> None:
        self._messages.clear()
        self._characters = 0
