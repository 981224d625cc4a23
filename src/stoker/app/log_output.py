"""The service's own log: one line an event on standard error; secrets are never in it."""

import sys

import structlog

from stoker.app.configuration import ConfigurationError


def configure_logging(level: str) -> None:
    """Log from ``level`` on. Raises ConfigurationError for one that does not exist."""
    numbers = {"debug": 10, "info": 20, "warning": 30, "error": 40}
    if level not in numbers:
        raise ConfigurationError(f"configuration: log_level must be one of {', '.join(numbers)}")
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty())
            if sys.stderr.isatty()
            else structlog.processors.KeyValueRenderer(key_order=["timestamp", "level", "event"]),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(numbers[level]),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
    )
