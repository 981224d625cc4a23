"""From the stored version to what the API shows. Pure."""

import hashlib
from typing import TypeVar

import msgspec

from stoker.control.images import shown_overrides
from stoker.services.functions import FunctionVersion
from stoker.services.lambda_types import (
    DeadLetterConfig,
    EnvironmentResponse,
    EphemeralStorage,
    FileSystemConfig,
    FunctionConfiguration,
    Layer,
    LoggingConfig,
    RuntimeVersionConfig,
    SnapStartResponse,
    TracingConfigResponse,
    VpcConfigResponse,
)

Shape = TypeVar("Shape")


def shown_configuration(version: FunctionVersion, *, arn: str | None = None) -> FunctionConfiguration:
    """The version with every member that Lambda shows; ``arn`` where the caller qualified it differently."""
    update = version.last_update
    image = version.next_image
    return FunctionConfiguration(
        function_name=version.key.name,
        function_arn=arn or version.arn,
        runtime=version.runtime,
        role=version.role,
        handler=version.handler,
        code_size=version.code_size_bytes,
        description=version.description,
        timeout=version.timeout_s,
        memory_size=version.memory_mb,
        last_modified=version.last_modified,
        code_sha256=version.code_sha256 if image is None else image.digest.removeprefix("sha256:"),
        version=version.version,
        vpc_config=_stored(version, "VpcConfig", VpcConfigResponse),
        environment=None
        if version.environment is None
        else EnvironmentResponse(variables=version.environment),
        dead_letter_config=None
        if version.dead_letter_arn is None
        else DeadLetterConfig(target_arn=version.dead_letter_arn),
        file_system_configs=_stored(version, "FileSystemConfigs", tuple[FileSystemConfig, ...]) or None,
        kms_key_arn=version.kms_key_arn,
        tracing_config=_stored(version, "TracingConfig", TracingConfigResponse)
        or TracingConfigResponse(mode="PassThrough"),
        revision_id=version.revision_id,
        state=version.state.value,
        state_reason=version.state.reason,
        state_reason_code=version.state.reason_code,
        last_update_status=update.value if update else None,
        last_update_status_reason=update.reason if update else None,
        last_update_status_reason_code=update.reason_code if update else None,
        package_type=version.package_type,
        image_config_response=shown_overrides(version.image_overrides),
        architectures=(version.architecture,),
        ephemeral_storage=EphemeralStorage(size=version.tmp_mb),
        snap_start=SnapStartResponse(
            apply_on=version.stored_only.get("SnapStart", "None"), optimization_status="Off"
        ),
        runtime_version_config=runtime_version(version),
        layers=tuple(Layer(arn=layer.arn, code_size=layer.size_bytes) for layer in version.layers) or None,
        logging_config=LoggingConfig(
            log_format=version.logging.log_format,
            application_log_level=version.logging.application_log_level,
            system_log_level=version.logging.system_log_level,
            log_group=version.logging.log_group,
        ),
    )


def listed_configuration(version: FunctionVersion, *, qualified: bool) -> FunctionConfiguration:
    """As ListFunctions shows it: without states and runtime version; ``qualified`` when asked for ALL."""
    return msgspec.structs.replace(
        shown_configuration(version, arn=f"{version.key.arn}:{version.version}" if qualified else None),
        state=None,
        state_reason=None,
        state_reason_code=None,
        last_update_status=None,
        last_update_status_reason=None,
        last_update_status_reason_code=None,
        runtime_version_config=None,
    )


def runtime_version(version: FunctionVersion) -> RuntimeVersionConfig | None:
    """AWS's hash names the build; here it names runtime and architecture. None without a runtime."""
    if version.runtime is None:
        return None
    digest = hashlib.sha256(f"{version.runtime} {version.architecture}".encode()).hexdigest()
    return RuntimeVersionConfig(runtime_version_arn=f"arn:aws:lambda:{version.key.region}::runtime:{digest}")


def _stored(version: FunctionVersion, member: str, shape: type[Shape]) -> Shape | None:
    value = version.stored_only.get(member)
    return None if value is None else msgspec.convert(value, shape)
