"""How a client on this host reaches the API."""

import msgspec


class Access(msgspec.Struct, frozen=True, kw_only=True):
    """Endpoint and keys of an account's root."""

    endpoint: str
    account: str
    region: str
    access_key_id: str
    secret_access_key: str
