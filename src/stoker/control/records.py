"""From a checked request to the stored version: defaults, merging, what is another deployment. Pure."""

import datetime
from typing import Any

import msgspec

from stoker.control.images import overrides
from stoker.control.messages import update_in_progress, wrong_state
from stoker.control.sources import Package
from stoker.core.errors import invalid_parameter
from stoker.services.functions import (
    FunctionKey,
    FunctionVersion,
    LayerUse,
    LogSettings,
    Status,
    is_settled,
)
from stoker.services.lambda_types import (
    CreateFunctionRequest,
    LoggingConfig,
    UpdateFunctionConfigurationRequest,
)

CREATING = Status(value="Pending", reason="The function is being created.", reason_code="Creating")
ACTIVE = Status(value="Active")
UPDATING = Status(value="InProgress", reason="The function is being created.", reason_code="Creating")
SUCCESSFUL = Status(value="Successful")

_DESCRIPTIVE = (
    "description",
    "dead_letter_arn",
    "revision_id",
    "last_modified",
    "state",
    "last_update",
    "deployment_id",
    "next_image",
)
"""Members whose change leaves running sandboxes as they are."""


def shown_time(now_s: float) -> str:
    """LastModified as Lambda writes it: ``2026-01-31T12:00:00.000+0000``."""
    moment = datetime.datetime.fromtimestamp(now_s, datetime.UTC)
    return f"{moment:%Y-%m-%dT%H:%M:%S}.{moment.microsecond // 1000:03d}+0000"


def created_version(
    key: FunctionKey,
    request: CreateFunctionRequest,
    package: Package,
    layers: tuple[LayerUse, ...],
    *,
    revision_id: str,
    deployment_id: str,
    now_s: float,
) -> FunctionVersion:
    """$LATEST of a new function, Pending, with Lambda's defaults where the request is silent."""
    return FunctionVersion(
        key=key,
        deployment_id=deployment_id,
        revision_id=revision_id,
        last_modified=shown_time(now_s),
        role=request.role,
        runtime=request.runtime,
        handler=request.handler,
        description=request.description or "",
        timeout_s=request.timeout or 3,
        memory_mb=request.memory_size or 128,
        tmp_mb=request.ephemeral_storage.size if request.ephemeral_storage else 512,
        architecture=request.architectures[0] if request.architectures else "x86_64",
        environment=request.environment.variables if request.environment else None,
        package_type=request.package_type or "Zip",
        image=package.image,
        image_overrides=overrides(request.image_config),
        code_sha256=package.code.code_sha256,
        code_size_bytes=package.code.size_bytes,
        source_kms_key_arn=package.kms_key_arn,
        layers=layers,
        logging=merged_logging(LogSettings(log_group=f"/aws/lambda/{key.name}"), request.logging_config),
        dead_letter_arn=_dead_letter_arn(None, request),
        state=CREATING,
        kms_key_arn=request.kms_key_arn or None,
        stored_only=_stored_only({}, request),
    )


def configured_version(
    stored: FunctionVersion,
    request: UpdateFunctionConfigurationRequest,
    layers: tuple[LayerUse, ...] | None = None,
) -> FunctionVersion:
    """The version with the members that the request names replaced; state and revision untouched."""
    changes: dict[str, Any] = {
        "role": request.role,
        "runtime": request.runtime,
        "handler": request.handler,
        "description": request.description,
        "timeout_s": request.timeout,
        "memory_mb": request.memory_size,
        "tmp_mb": request.ephemeral_storage.size if request.ephemeral_storage else None,
        "environment": (request.environment.variables or {}) if request.environment else None,
        "layers": layers,
        "image_overrides": overrides(request.image_config),
        "logging": merged_logging(stored.logging, request.logging_config),
        "stored_only": _stored_only(stored.stored_only, request),
    }
    given = {name: value for name, value in changes.items() if value is not None}
    if request.environment is not None:
        given["environment_sealed"] = None
    if request.kms_key_arn is not None:
        given["kms_key_arn"] = request.kms_key_arn or None
    given["dead_letter_arn"] = _dead_letter_arn(stored.dead_letter_arn, request)
    return msgspec.structs.replace(stored, **given)


def coded_version(
    stored: FunctionVersion, package: Package, architectures: tuple[str, ...] | None
) -> FunctionVersion:
    """The version with other code; another image waits beside the one there is until it is here."""
    architecture = architectures[0] if architectures else stored.architecture
    if package.image is not None:
        return msgspec.structs.replace(stored, next_image=package.image, architecture=architecture)
    return msgspec.structs.replace(
        stored,
        code_sha256=package.code.code_sha256,
        code_size_bytes=package.code.size_bytes,
        source_kms_key_arn=package.kms_key_arn,
        architecture=architecture,
    )


def with_next_image(version: FunctionVersion) -> FunctionVersion:
    """The version as it is once the image that it waits for is here."""
    image = version.next_image
    if image is None:
        return version
    digits = image.digest.removeprefix("sha256:")
    return msgspec.structs.replace(version, image=image, next_image=None, code_sha256=digits)


def updating(
    stored: FunctionVersion,
    changed: FunctionVersion,
    *,
    revision_id: str,
    deployment_id: str,
    now_s: float,
) -> FunctionVersion:
    """``changed`` as an update under way; another deployment only if sandboxes would notice the change."""
    return msgspec.structs.replace(
        changed,
        revision_id=revision_id,
        deployment_id=stored.deployment_id if _runs_alike(stored, changed) else deployment_id,
        last_modified=shown_time(now_s),
        last_update=UPDATING,
    )


def settled(version: FunctionVersion, revision_id: str, deployment_id: str) -> FunctionVersion:
    """The version once its code is ready. ``deployment_id`` is another one where it gets another image."""
    return msgspec.structs.replace(
        with_next_image(version),
        revision_id=revision_id,
        deployment_id=deployment_id,
        state=ACTIVE,
        last_update=SUCCESSFUL,
    )


def failed(
    version: FunctionVersion, revision_id: str, reason: str, code: str = "InternalError"
) -> FunctionVersion:
    """The version when its code could not be made ready: a creation or an update that failed."""
    status = Status(value="Failed", reason=reason, reason_code=code)
    version = msgspec.structs.replace(version, next_image=None)
    if version.state == CREATING:
        return msgspec.structs.replace(version, revision_id=revision_id, state=status, last_update=status)
    return msgspec.structs.replace(version, revision_id=revision_id, last_update=status)


def check_settled(stored: FunctionVersion) -> None:
    """Refuse to work on a $LATEST that is being created or updated, or could not be.

    Raises:
        ServiceError: 409.
    """
    if stored.state.value != "Active":
        raise wrong_state(stored.state.value)
    if not is_settled(stored):
        raise update_in_progress(stored.arn)
    if stored.last_update is not None and stored.last_update.value == "Failed":
        raise wrong_state(stored.last_update.value)


def merged_logging(stored: LogSettings, given: LoggingConfig | None) -> LogSettings:
    """LoggingConfig over what there was; JSON brings levels of INFO, Text takes levels away.

    Raises:
        ServiceError: a level with the format Text.
    """
    if given is None:
        return stored
    log_format = given.log_format or stored.log_format
    log_group = given.log_group or stored.log_group
    if log_format != "JSON":
        if given.application_log_level or given.system_log_level:
            raise invalid_parameter(
                'LogLevel is not supported when LogFormat is set to "Text". Remove LogLevel from your '
                'request or change the LogFormat to "JSON" and try again.'
            )
        return LogSettings(log_format=log_format, log_group=log_group)
    return LogSettings(
        log_format=log_format,
        application_log_level=given.application_log_level or stored.application_log_level or "INFO",
        system_log_level=given.system_log_level or stored.system_log_level or "INFO",
        log_group=log_group,
    )


def _dead_letter_arn(
    stored: str | None, request: CreateFunctionRequest | UpdateFunctionConfigurationRequest
) -> str | None:
    """Without a member as it was; without an ARN in it, or with an empty one, none."""
    given = request.dead_letter_config
    return stored if given is None else given.target_arn or None


def _stored_only(
    stored: dict[str, Any], request: CreateFunctionRequest | UpdateFunctionConfigurationRequest
) -> dict[str, Any]:
    kept = dict(stored)
    if request.vpc_config is not None:
        kept["VpcConfig"] = {
            "SubnetIds": list(request.vpc_config.subnet_ids or ()),
            "SecurityGroupIds": list(request.vpc_config.security_group_ids or ()),
            "VpcId": "",
            "Ipv6AllowedForDualStack": bool(request.vpc_config.ipv6_allowed_for_dual_stack),
        }
    if request.snap_start is not None and request.snap_start.apply_on:
        # $LATEST itself never starts from a snapshot: this is for the versions published from it.
        kept["SnapStart"] = request.snap_start.apply_on
    if request.file_system_configs is not None:
        kept["FileSystemConfigs"] = msgspec.to_builtins(request.file_system_configs)
    if request.tracing_config is not None and request.tracing_config.mode:
        kept["TracingConfig"] = {"Mode": request.tracing_config.mode}
    return kept


def _runs_alike(one: FunctionVersion, other: FunctionVersion) -> bool:
    same = {name: getattr(one, name) for name in _DESCRIPTIVE}
    return msgspec.structs.replace(other, **same) == one
