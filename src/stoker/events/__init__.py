"""The internal queue of asynchronous invocations and its pollers."""
