"""Checks beyond the API's model: mandatory members, environment size, limits, and what is not built yet."""

import re
from collections.abc import Mapping
from typing import Any

import msgspec

from stoker.control.messages import constraint, not_implemented
from stoker.core.errors import invalid_parameter
from stoker.core.reserved_environment import reserved_among
from stoker.services.lambda_types import (
    CreateFunctionRequest,
    ImageConfig,
    UpdateFunctionCodeRequest,
    UpdateFunctionConfigurationRequest,
)

ENVIRONMENT_MAX_BYTES = 4096
MEMORY_MAX_MB = 10_240
TMP_MAX_MB = 10_240
TIMEOUT_MAX_S = 900
TAGS_MAX = 50

ROLE_PATTERN = r"arn:(aws[a-zA-Z-]*)?:iam::\d{12}:role/?[a-zA-Z_0-9+=,.@\-_/]+"

_ROLE = re.compile(ROLE_PATTERN, re.ASCII)
_DEAD_LETTERS = re.compile(
    r"arn:aws[a-zA-Z-]*:(sqs|sns):[a-z0-9-]+:\d{12}:[a-zA-Z0-9_-]{1,256}(\.fifo)?", re.ASCII
)

_UNBUILT = {
    "publish_to": "PublishTo",
    "tenancy_config": "TenancyConfig",
    "capacity_provider_config": "CapacityProviderConfig",
    "durable_config": "DurableConfig",
    "runtime_config": "RuntimeConfig",
    "accelerator_config": "AcceleratorConfig",
}
"""Members that would change how a function runs and that nothing here acts on yet; empty values are fine."""


def check_create(request: CreateFunctionRequest) -> None:
    """Everything about CreateFunction that needs neither store nor host.

    Raises:
        ServiceError: the first thing that AWS would refuse, or that is not built.
    """
    _check_package(request)
    check_tags(request.tags or {})
    _check_configuration(request)


def check_configuration_update(request: UpdateFunctionConfigurationRequest, package_type: str) -> None:
    """As ``check_create``, for UpdateFunctionConfiguration."""
    if package_type == "Image":
        _check_no_zip_members(request)
    elif request.image_config is not None and request.image_config != ImageConfig():
        raise invalid_parameter(
            "Please don't provide ImageConfig when updating a function with packageType Zip."
        )
    _check_configuration(request)


def check_code_update(request: UpdateFunctionCodeRequest, package_type: str) -> None:
    """As ``check_create``, for UpdateFunctionCode."""
    archive = request.zip_file is not None or bool(request.s3_bucket or request.s3_key)
    if package_type == "Image":
        if not request.image_uri:
            raise invalid_parameter(
                "Please provide ImageUri when updating a function with packageType Image."
            )
        if archive:
            raise invalid_parameter(
                "Please don't provide ZipFile or S3 location when updating a function with packageType Image."
            )
    elif request.image_uri is not None:
        raise invalid_parameter(
            "Please don't provide ImageUri when updating a function with packageType Zip."
        )
    if request.publish_to:
        raise not_implemented("PublishTo")


def _check_package(request: CreateFunctionRequest) -> None:
    """What an archive needs an image must not have, and the other way round."""
    code = request.code
    if request.package_type == "Image":
        if not code.image_uri:
            raise invalid_parameter(
                "Please provide ImageUri when creating a function with packageType Image."
            )
        if code.zip_file is not None or code.s3_bucket or code.s3_key:
            raise invalid_parameter(
                "Please don't provide ZipFile or S3 location when creating a function with packageType Image."
            )
        _check_no_zip_members(request)
        if request.code_signing_config_arn:
            raise invalid_parameter("Code signing is not supported for functions with packageType Image.")
        if request.snap_start and request.snap_start.apply_on == "PublishedVersions":
            raise invalid_parameter("SnapStart is not supported for functions with packageType Image.")
        return
    if not request.runtime or not request.handler:
        raise invalid_parameter(
            "Runtime and Handler are mandatory parameters for functions created with deployment packages."
        )
    if code.image_uri is not None:
        raise invalid_parameter("Please provide a source for function code.")
    if request.image_config is not None and request.image_config != ImageConfig():
        raise invalid_parameter(
            "Please don't provide ImageConfig when creating a function with packageType Zip."
        )


def _check_no_zip_members(request: CreateFunctionRequest | UpdateFunctionConfigurationRequest) -> None:
    if request.handler is not None or request.runtime is not None or request.layers:
        raise invalid_parameter(
            "Please don't provide Handler or Runtime or Layer when the intended function PackageType is "
            "Image."
        )


def check_tags(tags: Mapping[str, str]) -> None:
    """Raises ServiceError when there are more than a resource may have."""
    if len(tags) > TAGS_MAX:
        raise invalid_parameter("Number of tags exceeds resource tag limit.")


def check_environment(variables: Mapping[str, str]) -> None:
    """Reserved names and the 4 KB limit, measured on compact JSON as AWS does.

    Raises:
        ServiceError: InvalidParameterValueException.
    """
    reserved = reserved_among(variables)
    if reserved:
        raise invalid_parameter(
            "Lambda was unable to configure your environment variables because the environment variables you "
            "have provided contains reserved keys that are currently not supported for modification. "
            f"Reserved keys used in this request: {', '.join(reserved)}"
        )
    if any("\0" in value for value in variables.values()):
        raise invalid_parameter("Environment variables must not hold NUL characters.")
    measured = msgspec.json.encode(dict(variables))
    if len(measured) > ENVIRONMENT_MAX_BYTES:
        raise invalid_parameter(
            "Lambda was unable to configure your environment variables because the environment variables you "
            f"have provided exceeded the 4KB limit. String measured: {measured.decode()}"
        )


def _check_configuration(request: CreateFunctionRequest | UpdateFunctionConfigurationRequest) -> None:
    _check_unbuilt(request)
    if request.role is not None and not _ROLE.fullmatch(request.role):
        rule = f"Member must satisfy regular expression pattern: {ROLE_PATTERN}"
        raise constraint(request.role, "role", rule)
    if request.timeout is not None and request.timeout > TIMEOUT_MAX_S:
        rule = f"Member must have value less than or equal to {TIMEOUT_MAX_S}"
        raise constraint(request.timeout, "timeout", rule)
    if request.handler is not None and "\0" in request.handler:
        # The model's pattern lets it through; no process could be started with it in its environment.
        raise invalid_parameter("Handler must not hold NUL characters.")
    _check_size(request.memory_size, "MemorySize", MEMORY_MAX_MB)
    if request.ephemeral_storage is not None:
        _check_size(request.ephemeral_storage.size, "EphemeralStorage", TMP_MAX_MB)
    if request.environment is not None:
        check_environment(request.environment.variables or {})
    if request.dead_letter_config is not None and request.dead_letter_config.target_arn:
        _check_dead_letters(request.dead_letter_config.target_arn)
    if request.vpc_config is not None:
        _check_network(request.vpc_config.subnet_ids or (), request.vpc_config.security_group_ids or ())


def _check_dead_letters(target_arn: str) -> None:
    """Where discarded events can go: a standard SQS queue or SNS topic (developer guide)."""
    if not target_arn.startswith("arn:"):
        raise invalid_parameter("Invalid dead letter ARN: ARNs must start with 'arn:'")
    if not _DEAD_LETTERS.fullmatch(target_arn):
        raise invalid_parameter(
            f"Invalid dead letter ARN: {target_arn} is not the ARN of an SQS queue or an SNS topic"
        )
    if target_arn.endswith(".fifo"):
        raise invalid_parameter(
            f"Invalid dead letter ARN: {target_arn} is a FIFO resource, which cannot take dead letters"
        )


def _check_network(subnets: tuple[str, ...], security_groups: tuple[str, ...]) -> None:
    """Functions here run outside of any VPC, so no subnet exists; empty lists say just that."""
    if bool(subnets) != bool(security_groups):
        raise invalid_parameter("SubnetIds and SecurityIds must coexist or be both empty list.")
    if subnets:
        raise invalid_parameter(
            "Error occurred while DescribeSubnets. EC2 Error Code: InvalidSubnetID.NotFound. "
            f"EC2 Error Message: The subnet ID '{subnets[0]}' does not exist"
        )


def _check_size(value: int | None, member: str, maximum: int) -> None:
    if value is not None and value > maximum:
        raise invalid_parameter(
            f"'{member}' value failed to satisfy constraint: "
            f"Member must have value less than or equal to {maximum}"
        )


def _check_unbuilt(request: CreateFunctionRequest | UpdateFunctionConfigurationRequest) -> None:
    given: dict[str, Any] = msgspec.structs.asdict(request)
    for member, name in _UNBUILT.items():
        if given.get(member):
            raise not_implemented(name)
