"""Who may use a layer's version: its own account, and whoever the version's policy lets in."""

from stoker.core.errors import ServiceError
from stoker.services.context import RequestContext
from stoker.services.layers import LayerKey

GET_LAYER_VERSION = "lambda:GetLayerVersion"


async def authorise_layer(
    context: RequestContext, layer: LayerKey, resource: str, action: str = GET_LAYER_VERSION
) -> None:
    """Return when the caller may do ``action`` with ``resource``, the ARN of the layer or of a version.

    The one place that decides on layers of other accounts. Policies of layer versions are not evaluated, so
    other accounts are refused.

    Raises:
        ServiceError: AccessDeniedException, as AWS words it.
    """
    if layer.account != context.account:
        raise ServiceError(
            "AccessDeniedException",
            f"User: {context.principal_arn} is not authorized to perform: {action} on resource: {resource} "
            f"because no resource-based policy allows the {action} action",
        )
