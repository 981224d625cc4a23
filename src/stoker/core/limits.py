"""Limits that several rooms share, most of them AWS Lambda's. A limit of one room alone lives there."""

from typing import Final

MB_PER_CPU: Final = 1769
"""Memory that comes with one whole CPU (AWS Lambda developer guide, memory)."""

INIT_TIMEOUT_S: Final = 10.0
"""How long the Init phase may take before it is repeated at the first invocation."""

PROVISIONED_INIT_TIMEOUT_S: Final = 130.0
"""The same with provisioned concurrency, or the function's time-out if that is longer."""

LOG_TAIL_BYTES: Final = 4096
"""What ``LogType=Tail`` returns at most."""

LOG_EVENT_BYTES_MAX: Final = 256 * 1024
"""Longest log event; a longer line is cut into several."""

FREEZE_AFTER_S: Final = 0.1
"""An idle sandbox is frozen after this long at the latest."""

LOG_BYTES_PER_S: Final = 4 * 1024 * 1024
"""How fast one sandbox's output is read; beyond it the function waits on its own pipe ..."""

LOG_BURST_BYTES: Final = 4 * 1024 * 1024
"""... after this much at once."""

LOG_EVENT_COST_BYTES: Final = 128
"""Charged for an event beside its bytes, in rates and in queues: a line costs more than its text."""
