"""Where records of asynchronous invocations may be sent: which ARNs are possible. Words are AWS's."""

from stoker.control.ports import Ports
from stoker.core.arn import parse_function_reference
from stoker.core.errors import ServiceError, invalid_parameter
from stoker.services.functions import FunctionKey
from stoker.services.lambda_types import DestinationConfig

SUCCESS_SERVICES = frozenset(("lambda", "sqs", "sns", "events"))
FAILURE_SERVICES = SUCCESS_SERVICES | {"s3"}
"""Buckets take records of failures only (developer guide, asynchronous invocation records)."""


def destinations(config: DestinationConfig | None) -> tuple[str | None, str | None]:
    """(on success, on failure); an empty ARN is none."""
    if config is None:
        return None, None
    success = config.on_success and config.on_success.destination
    failure = config.on_failure and config.on_failure.destination
    return success or None, failure or None


async def check_destinations(ports: Ports, key: FunctionKey, config: DestinationConfig) -> None:
    """Raises ServiceError for a service that takes no records, a function that is not there, or itself."""
    success, failure = destinations(config)
    for arn, services in ((failure, FAILURE_SERVICES), (success, SUCCESS_SERVICES)):
        if arn is None:
            continue
        service = arn.split(":")[2] if arn.startswith("arn:") else ""
        if service not in services:
            raise _impossible(success, failure)
        if service == "lambda":
            await _check_function(ports, key, arn)


async def _check_function(ports: Ports, key: FunctionKey, arn: str) -> None:
    refused = invalid_parameter(f"The destination ARN {arn} is invalid.")
    try:
        reference = parse_function_reference(arn)
    except ServiceError as problem:
        raise refused from problem
    named = FunctionKey(reference.account or key.account, reference.region or key.region, reference.name)
    if await ports.metadata.function(named) is None:
        raise refused
    if named == key:
        raise invalid_parameter("You can't specify the function as a destination for itself.")


def _impossible(success: str | None, failure: str | None) -> ServiceError:
    shown_success = f"OnSuccess(destination={success})" if success else "null"
    shown_failure = f"OnFailure(destination={failure})" if failure else "null"
    return invalid_parameter(
        "The provided destination config "
        f"DestinationConfig(onSuccess={shown_success}, onFailure={shown_failure}) is invalid."
    )
