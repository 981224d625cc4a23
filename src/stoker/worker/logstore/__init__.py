"""Function logs in files: segments per stream, written behind by one thread, bounded, readable by time."""

from stoker.worker.logstore.store import FileLogStore, LogStoreLimits

__all__ = ["FileLogStore", "LogStoreLimits"]
