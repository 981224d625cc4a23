"""The context object handed to handlers: fields, names and repr as in AWS Lambda for Python."""

# ruff: noqa: PLC0415 - what a start does not need is imported where it is used

import os
import sys
import time

W3C_ALLOWED_FIELDS = ("traceparent", "tracestate", "baggage")

_SETTINGS = (
    b"AWS_LAMBDA_LOG_GROUP_NAME",
    b"AWS_LAMBDA_LOG_STREAM_NAME",
    b"AWS_LAMBDA_FUNCTION_NAME",
    b"AWS_LAMBDA_FUNCTION_MEMORY_SIZE",
    b"AWS_LAMBDA_FUNCTION_VERSION",
)
_known = ([], [])
"""The values read last, as bytes and as text."""


def _settings():
    """What the environment says now. os.environ would encode and decode at every look, at 0.8 us each."""
    global _known
    variables = os.environ._data
    values = [variables.get(name) for name in _SETTINGS]
    if values != _known[0]:
        _known = (values, [None if value is None else os.fsdecode(value) for value in values])
    return _known[1]


class LambdaContext:
    """What a handler may know about its invocation."""

    def __init__(
        self,
        invoke_id,
        client_context,
        cognito_identity,
        epoch_deadline_time_in_ms,
        invoked_function_arn=None,
        tenant_id=None,
    ):
        self.aws_request_id = invoke_id
        (
            self.log_group_name,
            self.log_stream_name,
            self.function_name,
            self.memory_limit_in_mb,
            self.function_version,
        ) = _settings()
        self.invoked_function_arn = invoked_function_arn
        self.tenant_id = tenant_id
        self._w3c_fields = _take_w3c(client_context)
        self.client_context = _filled(ClientContext, client_context)
        if self.client_context is not None:
            self.client_context.client = _filled(Client, self.client_context.client)
        self.identity = identity = CognitoIdentity()
        known = cognito_identity or {}
        identity.cognito_identity_id = known.get("cognitoIdentityId")
        identity.cognito_identity_pool_id = known.get("cognitoIdentityPoolId")
        self._epoch_deadline_time_in_ms = epoch_deadline_time_in_ms

    def get_remaining_time_in_millis(self):
        """Milliseconds until the invocation times out, never below zero."""
        left = self._epoch_deadline_time_in_ms - int(time.time() * 1000)
        return left if left > 0 else 0

    def w3c(self):
        """The W3C trace context that came with the invocation."""
        return dict(self._w3c_fields)

    def log(self, msg):
        """Write a message to the function's log, unformatted."""
        logging = sys.modules.get("logging")
        if logging is None:
            # Nobody has touched logging, so its root handler would still be ours.
            from stoker_runtime import sinks

            sinks.current.log(str(msg))
            return
        for handler in logging.getLogger().handlers:
            if hasattr(handler, "log_sink"):
                handler.log_sink.log(str(msg))
                return
        sys.stdout.write(str(msg))

    def __repr__(self):
        return (
            f"{self.__class__.__name__}([aws_request_id={self.aws_request_id},log_group_name={self.log_group_name},log_stream_name={self.log_stream_name},function_name={self.function_name},memory_limit_in_mb={self.memory_limit_in_mb},"
            f"function_version={self.function_version},invoked_function_arn={self.invoked_function_arn},client_context={self.client_context},identity={self.identity},tenant_id={self.tenant_id}])"
        )


class _Record:
    __slots__ = ()

    def __repr__(self):
        fields = ",".join(f"{name}={getattr(self, name)}" for name in self.__slots__)
        return f"{self.__class__.__name__}([{fields}])"


class CognitoIdentity(_Record):
    __slots__ = ["cognito_identity_id", "cognito_identity_pool_id"]


class Client(_Record):
    __slots__ = [  # noqa: RUF023 - the order is that of repr
        "installation_id",
        "app_title",
        "app_version_name",
        "app_version_code",
        "app_package_name",
    ]


class ClientContext(_Record):
    __slots__ = ["custom", "env", "client"]  # noqa: RUF023 - the order is that of repr


def _filled(kind, values):
    if values is None:
        return None
    record = kind()
    for name in kind.__slots__:
        setattr(record, name, values.get(name, None))
    return record


def _take_w3c(client_context):
    """Take ``w3c`` out of the client context and keep its allowed text fields."""
    if not isinstance(client_context, dict) or "w3c" not in client_context:
        return {}
    raw = client_context.pop("w3c")
    if not isinstance(raw, dict):
        return {}
    return {name: raw[name] for name in W3C_ALLOWED_FIELDS if isinstance(raw.get(name), str)}
