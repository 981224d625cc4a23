"""Every setting of Stoker, its default and its meaning. Reading them from files is the app's business."""

import msgspec

DEFAULT_LISTEN = "127.0.0.1:9797"


class Settings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One key each in the TOML file; ``STOKER_<KEY>`` in the environment; ``--<key>`` on the command line."""

    listen: str = DEFAULT_LISTEN
    """HOST:PORT of the API."""
    data: str = ""
    """The one folder of all state; empty: /var/lib/stoker for root, ~/.local/share/stoker otherwise."""
    account: str = "000000000000"
    region: str = "us-east-1"
    access_key_id: str = ""
    """With secret_access_key: the root key, instead of one made at the first start."""
    secret_access_key: str = ""
    tls_certificate: str = ""
    """PEM file; with tls_key the API speaks TLS."""
    tls_key: str = ""
    public_url: str = ""
    """How clients reach the API, where that differs from listen."""
    egress: bool = True
    """Functions may reach out through NAT; false leaves them their loopback only."""
    cpu_policy: str = "quota"
    """``quota``: memory / 1,769 MB of a core, as on AWS; ``weight`` lends idle CPU."""
    memory_budget_mb: int = 0
    """Memory that sandboxes may reserve together; 0: what the host has, less an eighth."""
    sandboxes_max: int = 1000
    account_concurrency: int = 1000
    idle_timeout_s: int = 600
    """An idle sandbox is reclaimed after this long."""
    tmp_capacity_mb: int = 65_536
    """Disk that all /tmp together may take; a sparse file."""
    log_capacity_mb: int = 1024
    """Disk that all function logs together may take; the oldest go first."""
    queue_capacity_mb: int = 1024
    """Bytes of waiting asynchronous events before new ones are refused."""
    retry_scale: float = 1.0
    """Multiplies the waits between attempts of asynchronous invocations; below 1 for tests."""
    lang_dir: str = ""
    """A folder with further interpreters: <lang_dir>/nodejs20.x/bin/node; empty: <data>/lang."""
    user: str = "stoker"
    """The account that the service runs as when it is started by root."""
    log_level: str = "info"
