"""Every operation of the Lambda API: its action, the resource it is about, its condition keys.

After the service authorization reference of Lambda. An operation without a row is refused to all but root.
"""

from collections.abc import Callable
from typing import Any, Final

from stoker.control.access.authoriser import Question, function_question
from stoker.control.access.principals import tag_keys
from stoker.core.arn import parse_function_reference
from stoker.core.policy.conditions import Values
from stoker.services.context import RequestContext
from stoker.services.functions import FunctionKey
from stoker.services.layers import LayerKey, layer_version_arn, parse_layer_arn

Ask = Callable[[RequestContext, Any, str], Question]
"""(context, request, action) to what must be allowed."""

_ACTIONS: Final = {
    "Invoke": "InvokeFunction",
    "InvokeAsync": "InvokeFunction",
    "InvokeWithResponseStream": "InvokeFunction",
    "GetLayerVersionByArn": "GetLayerVersion",
}


def action_of(operation: str) -> str:
    """The action that an operation is, mostly its own name."""
    return f"lambda:{_ACTIONS.get(operation, operation)}"


def _key(context: RequestContext, name: str, qualifier: str | None) -> tuple[FunctionKey, str | None]:
    reference = parse_function_reference(name, qualifier)
    account = reference.account or context.account
    return FunctionKey(account, reference.region or context.region, reference.name), reference.qualifier


def _function(context: RequestContext, request: Any, action: str) -> Question:
    """A function by name, with the qualifier that the request has."""
    key, qualifier = _key(context, request.function_name, getattr(request, "qualifier", None))
    return function_question(action, key, qualifier, _keys(request))


def _function_resource(context: RequestContext, request: Any, action: str) -> Question:
    """A function by the ARN of a resource."""
    key, qualifier = _key(context, request.resource_arn, None)
    return function_question(action, key, qualifier)


def _account(context: RequestContext, request: Any, action: str) -> Question:
    """No resource in particular."""
    return Question(action=action, resource="*", account=context.account, keys=_keys(request))


def _mapping(context: RequestContext, request: Any, action: str) -> Question:
    arn = f"arn:aws:lambda:{context.region}:{context.account}:event-source-mapping:{request.uuid}"
    return Question(
        action=action, resource=arn, account=context.account, keys=_function_arn(context, request)
    )


def _new_mapping(context: RequestContext, request: Any, action: str) -> Question:
    keys = {**_keys(request), **_function_arn(context, request)}
    return Question(action=action, resource="*", account=context.account, keys=keys)


def _function_arn(context: RequestContext, request: Any) -> dict[str, Values]:
    name = getattr(request, "function_name", None)
    if not name:
        return {}
    key, qualifier = _key(context, name, None)
    return {"lambda:functionarn": key.arn if qualifier is None else f"{key.arn}:{qualifier}"}


def _layer(context: RequestContext, request: Any, action: str) -> Question:
    """A layer by name or ARN, with a version where the request has one."""
    name: str = request.layer_name
    parsed = parse_layer_arn(name)
    layer = parsed[0] if parsed else LayerKey(context.account, context.region, name)
    return layer_question(action, layer, getattr(request, "version_number", None))


def _layer_by_arn(context: RequestContext, request: Any, action: str) -> Question:
    parsed = parse_layer_arn(request.arn)
    if parsed is None:
        return _account(context, request, action)
    return layer_question(action, *parsed)


def layer_question(action: str, layer: LayerKey, number: int | None) -> Question:
    """An action on a layer or one of its versions."""
    return Question(
        action=action,
        resource=layer.arn if number is None else layer_version_arn(layer, number),
        account=layer.account,
        layer=None if number is None else (layer.name, str(number)),
    )


def _named(member: str) -> Ask:
    """A resource that the request names by its ARN, in ``member``."""

    def ask(context: RequestContext, request: Any, action: str) -> Question:
        arn: str = getattr(request, member)
        account = arn.split(":")[4] if arn.count(":") >= 5 else context.account
        return Question(action=action, resource=arn, account=account or context.account, keys=_keys(request))

    return ask


def _tagged(context: RequestContext, request: Any, action: str) -> Question:
    """Whatever can have tags, by its ARN."""
    arn: str = request.resource
    if ":function:" in arn:
        key, qualifier = _key(context, arn, None)
        return function_question(action, key, qualifier, _keys(request))
    return _named("resource")(context, request, action)


def _capacity(context: RequestContext, request: Any, action: str) -> Question:
    name: str = request.capacity_provider_name
    arn = name
    if not name.startswith("arn:"):
        arn = f"arn:aws:lambda:{context.region}:{context.account}:capacity-provider:{name}"
    return Question(action=action, resource=arn, account=arn.split(":")[4], keys=_keys(request))


def _keys(request: Any) -> dict[str, Values]:
    """The condition keys of Lambda that a request's members are."""
    keys: dict[str, Values] = {}
    tags = getattr(request, "tags", None)
    if isinstance(tags, dict):
        keys |= tag_keys(tags)  # pyright: ignore[reportUnknownArgumentType]
    removed = getattr(request, "tag_keys", None)
    if removed:
        keys["aws:tagkeys"] = tuple(removed)
    for member, name in _SCALAR_KEYS.items():
        value = getattr(request, member, None)
        if isinstance(value, str) and value:
            keys[name] = value
    layers = getattr(request, "layers", None)
    if layers:
        keys["lambda:layer"] = tuple(layers)
    network = getattr(request, "vpc_config", None)
    if network is not None:
        keys |= {
            name: tuple(values)
            for name, values in (
                ("lambda:subnetids", network.subnet_ids),
                ("lambda:securitygroupids", network.security_group_ids),
            )
            if values
        }
    return keys


_SCALAR_KEYS: Final = {
    "principal": "lambda:principal",
    "function_url_auth_type": "lambda:functionurlauthtype",
    "auth_type": "lambda:functionurlauthtype",
    "code_signing_config_arn": "lambda:codesigningconfigarn",
    "event_source_token": "lambda:eventsourcetoken",
}

_BY_FUNCTION: Final = (
    "AddPermission CreateAlias CreateFunction CreateFunctionUrlConfig DeleteAlias DeleteFunction "
    "DeleteFunctionCodeSigningConfig DeleteFunctionConcurrency DeleteFunctionEventInvokeConfig "
    "DeleteFunctionUrlConfig DeleteProvisionedConcurrencyConfig GetAlias GetFunction "
    "GetFunctionCodeSigningConfig GetFunctionConcurrency GetFunctionConfiguration "
    "GetFunctionEventInvokeConfig GetFunctionRecursionConfig GetFunctionScalingConfig GetFunctionUrlConfig "
    "GetPolicy GetProvisionedConcurrencyConfig GetRuntimeManagementConfig Invoke InvokeAsync "
    "InvokeWithResponseStream ListAliases ListDurableExecutionsByFunction ListFunctionEventInvokeConfigs "
    "ListFunctionUrlConfigs ListProvisionedConcurrencyConfigs ListVersionsByFunction PublishVersion "
    "PutFunctionCodeSigningConfig PutFunctionConcurrency PutFunctionEventInvokeConfig "
    "PutFunctionRecursionConfig PutFunctionScalingConfig PutProvisionedConcurrencyConfig "
    "PutRuntimeManagementConfig RemovePermission UpdateAlias UpdateFunctionCode "
    "UpdateFunctionConfiguration UpdateFunctionEventInvokeConfig UpdateFunctionUrlConfig"
)
_BY_ACCOUNT: Final = (
    "CreateCapacityProvider CreateCodeSigningConfig GetAccountSettings ListCapacityProviders "
    "ListCodeSigningConfigs ListFunctions ListLayerVersions ListLayers"
)
_BY_LAYER: Final = (
    "AddLayerVersionPermission DeleteLayerVersion GetLayerVersion GetLayerVersionPolicy PublishLayerVersion "
    "RemoveLayerVersionPermission"
)
_BY_CODE_SIGNING: Final = (
    "DeleteCodeSigningConfig GetCodeSigningConfig ListFunctionsByCodeSigningConfig UpdateCodeSigningConfig"
)
_BY_MAPPING: Final = "DeleteEventSourceMapping GetEventSourceMapping UpdateEventSourceMapping"
_BY_CAPACITY: Final = (
    "DeleteCapacityProvider GetCapacityProvider ListFunctionVersionsByCapacityProvider UpdateCapacityProvider"
)
_BY_EXECUTION: Final = (
    "CheckpointDurableExecution DeleteDurableExecution GetDurableExecution GetDurableExecutionHistory "
    "GetDurableExecutionState PauseDurableExecution ResumeDurableExecution StopDurableExecution"
)
_BY_CALLBACK: Final = (
    "SendDurableExecutionCallbackFailure SendDurableExecutionCallbackHeartbeat "
    "SendDurableExecutionCallbackSuccess"
)

LAMBDA_ACTIONS: Final[dict[str, Ask]] = {
    **dict.fromkeys(_BY_FUNCTION.split(), _function),
    **dict.fromkeys(_BY_ACCOUNT.split(), _account),
    **dict.fromkeys(_BY_LAYER.split(), _layer),
    **dict.fromkeys(_BY_CODE_SIGNING.split(), _named("code_signing_config_arn")),
    **dict.fromkeys(_BY_CAPACITY.split(), _capacity),
    **dict.fromkeys(_BY_EXECUTION.split(), _named("durable_execution_arn")),
    **dict.fromkeys(_BY_CALLBACK.split(), _account),
    **dict.fromkeys(("GetResourcePolicy", "PutResourcePolicy", "DeleteResourcePolicy"), _function_resource),
    **dict.fromkeys(("ListTags", "TagResource", "UntagResource"), _tagged),
    **dict.fromkeys(_BY_MAPPING.split(), _mapping),
    **dict.fromkeys(("CreateEventSourceMapping", "ListEventSourceMappings"), _new_mapping),
    "GetLayerVersionByArn": _layer_by_arn,
}
