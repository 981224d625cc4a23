"""What went wrong, in one line, and what to do about it. Knows AWS's error codes, not how they are shown."""

import sys
from typing import Any

import msgspec

from stoker.app.configuration import ConfigurationError
from stoker.core.errors import StokerError

EX_FAILED = 1
EX_CONFIG = 78

HINTS = {
    "Function not found": "'stoker list' shows the functions there are",
    "The specified log group does not exist": "a function has a log once it was invoked; 'stoker list' shows "
    "the functions there are",
    "InvalidRequestContentException": "the payload must be JSON; a text needs its own quotes: '\"hello\"'",
    "InvalidClientTokenId": 'the keys in the environment are not this service\'s: eval "$(stoker env)"',
    "UnrecognizedClientException": "the keys in the environment are not this service's: "
    'eval "$(stoker env)"',
    "InvalidSignatureException": 'the keys in the environment are not this service\'s: eval "$(stoker env)"',
    "EndpointConnectionError": "is Stoker running? 'stoker up' starts it; AWS_ENDPOINT_URL_LAMBDA or --data "
    "says where it is looked for",
}
"""By error code, or by how AWS's message begins; the message goes first."""


class Failure(msgspec.Struct, frozen=True):
    """One failure of a command. ``code`` is AWS's, or the exception's name."""

    code: str
    message: str
    hint: str
    exit_code: int


def explain(problem: Exception) -> Failure | None:
    """What to show for ``problem``; None for one that is a defect and deserves its traceback."""
    if isinstance(problem, StokerError):
        exit_code = EX_CONFIG if isinstance(problem, ConfigurationError) else EX_FAILED
        return Failure(type(problem).__name__, str(problem), "", exit_code)
    if isinstance(problem, OSError):
        named = problem.filename or problem.filename2
        text = f"{named}: {problem.strerror}" if named and problem.strerror else str(problem)
        return Failure(type(problem).__name__, text, "", EX_FAILED)
    return _explain_aws(problem)


def _explain_aws(problem: Exception) -> Failure | None:
    # Where botocore was never imported, it cannot have raised; importing it takes a quarter of a second.
    exceptions = sys.modules.get("botocore.exceptions")
    if exceptions is None:
        return None
    if isinstance(problem, exceptions.ClientError):
        answer: dict[str, Any] = getattr(problem, "response", {}).get("Error", {})
        return _failure(answer.get("Code", "Unknown"), answer.get("Message") or str(problem))
    if isinstance(problem, exceptions.BotoCoreError):
        return _failure(type(problem).__name__, str(problem).replace("\n", " "))
    return None


def _failure(code: str, message: str) -> Failure:
    hint = next((hint for start, hint in HINTS.items() if message.startswith(start) or code == start), "")
    return Failure(code, message, hint, EX_FAILED)
