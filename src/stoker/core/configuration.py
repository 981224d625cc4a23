"""Every setting of Stoker, its default and its meaning. Reading them from files is the app's business."""

from typing import Annotated

import msgspec

DEFAULT_LISTEN = "127.0.0.1:9797"


def _text(description: str) -> msgspec.Meta:
    return msgspec.Meta(description=description)


def _number(description: str, *, ge: int) -> msgspec.Meta:
    return msgspec.Meta(description=description, ge=ge)


class Settings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One key each in the TOML file; ``STOKER_<KEY>`` in the environment; ``--<key>`` on the command line."""

    listen: Annotated[str, _text("HOST:PORT of the API")] = DEFAULT_LISTEN
    frontends: Annotated[
        int,
        msgspec.Meta(
            description="processes that accept connections, check and parse; 1: the service does so itself",
            ge=1,
            le=64,
        ),
    ] = 1
    data: Annotated[
        str,
        _text("folder of all state; default /var/lib/stoker for root, ~/.local/share/stoker otherwise"),
    ] = ""
    database: Annotated[
        str,
        _text("postgresql://USER:PASSWORD@HOST/NAME keeps the metadata; empty: a file in the data folder"),
    ] = ""
    object_store: Annotated[
        str, _text("s3://BUCKET/PREFIX keeps code at rest; empty: the folder objects in the data folder")
    ] = ""
    root_rotation_days: Annotated[
        int,
        _number("stored images move under a new salt this often, and what none needs is left behind", ge=1),
    ] = 30
    root_grace_hours: Annotated[
        int, _number("what was left behind is deleted this long after nothing needs it", ge=1)
    ] = 24
    account: Annotated[str, _text("the 12-digit account that resources belong to")] = "000000000000"
    region: Annotated[str, _text("the region of the command line and of functions' own calls")] = "us-east-1"
    access_key_id: Annotated[str, _text("root access key, instead of one made at the first start")] = ""
    secret_access_key: Annotated[str, _text("the root access key's secret")] = ""
    tls_certificate: Annotated[str, _text("PEM file; with tls_key the API speaks TLS")] = ""
    tls_key: Annotated[str, _text("PEM file of the certificate's private key")] = ""
    public_url: Annotated[str, _text("how clients reach the API, where that differs from listen")] = ""
    roles: Annotated[
        str, _text("lenient: functions may have roles that are not kept here; strict: they may not")
    ] = "lenient"
    registry_config: Annotated[
        str, _text("docker config.json with credentials of registries, under auths; empty: none are sent")
    ] = ""
    registry_ca: Annotated[
        str, _text("PEM file of authorities trusted for registries beside the system's")
    ] = ""
    registry_plain_http: Annotated[
        str, _text("HOST[:PORT] of registries that speak no TLS, separated by commas; this machine's may")
    ] = ""
    registries: Annotated[
        str, _text("HOST[:PORT] that images may come from, separated by commas; empty: any")
    ] = ""
    url_domain: Annotated[
        str, _text("function URLs are <id>.lambda-url.<region>.<url_domain>, on the port of the API")
    ] = "localhost"
    egress: Annotated[bool, _text("functions may reach out through NAT; off leaves them their loopback")] = (
        True
    )
    isolation: Annotated[
        str,
        _text("container; firecracker: each sandbox is a micro-VM; qemu: one emulated in software"),
    ] = "container"
    cpu_policy: Annotated[
        str, _text("quota: memory / 1769 MB of a core, as on AWS; weight: lend what is idle")
    ] = "quota"
    memory_budget_mb: Annotated[
        int, _number("memory that sandboxes may reserve together; 0: the host's, less an eighth", ge=0)
    ] = 0
    memory_overcommit: Annotated[
        float,
        msgspec.Meta(description="how many times that budget functions may be promised; few use all", ge=1.0),
    ] = 4.0
    memory_reserve_mb: Annotated[
        int,
        _number(
            "no sandbox is made while the host has less memory available; 0: a twentieth, at least 256", ge=0
        ),
    ] = 0
    sandboxes_max: Annotated[int, _number("sandboxes at one time", ge=1)] = 1000
    pool_memory_mb: Annotated[
        int, _number("memory that pre-warmed sandboxes of no function yet may use; 0: none are made", ge=0)
    ] = 256
    pool_runtimes: Annotated[
        str, _text("runtimes pre-warmed before their first use, such as 'python3.11, nodejs20.x'")
    ] = ""
    zygotes: Annotated[
        bool,
        _text("pre-warmed Python sandboxes are forked from one process and share memory and address layout"),
    ] = True
    proactive_inits: Annotated[
        bool, _text("while a function's concurrency rises, its next sandbox is made before it is asked for")
    ] = True
    account_concurrency: Annotated[int, _number("invocations at one time in an account and region", ge=1)] = (
        1000
    )
    idle_timeout_s: Annotated[int, _number("an idle sandbox is reclaimed after this long", ge=1)] = 600
    tmp_capacity_mb: Annotated[
        int, _number("disk that all /tmp together may take (a sparse file)", ge=1024)
    ] = 65_536
    code_cache_mb: Annotated[
        int,
        _number(
            "disk for code that is decrypted and ready to be mounted; the oldest unused goes first", ge=64
        ),
    ] = 4096
    code_mounts: Annotated[
        str,
        _text("images: code is mounted packed, where root and the kernel can; trees: it is always unpacked"),
    ] = "images"
    image_cache_mb: Annotated[
        int, _number("memory for decrypted chunks of container images, of all functions together", ge=16)
    ] = 256
    image_disk_cache_mb: Annotated[
        int, _number("disk for encrypted chunks of container images; used with object_store only", ge=64)
    ] = 4096
    log_capacity_mb: Annotated[
        int, _number("disk that function logs may take; the oldest go first", ge=16)
    ] = 1024
    queue_capacity_mb: Annotated[
        int, _number("waiting asynchronous events before new ones are refused", ge=1)
    ] = 1024
    retry_scale: Annotated[
        float, msgspec.Meta(description="multiplies the waits between asynchronous attempts", ge=0.0)
    ] = 1.0
    kms_keep_s: Annotated[
        int,
        _number("how long a data key of KMS is kept in memory; one disabled there opens that long yet", ge=0),
    ] = 60
    lang_dir: Annotated[
        str, _text("folder of further interpreters (nodejs20.x/bin/node, ...); default DATA/lang")
    ] = ""
    firecracker: Annotated[
        str, _text("path of an official firecracker; with jailer the jail can start micro-VMs")
    ] = ""
    firecracker_sha256: Annotated[str, _text("its SHA-256; another program at that path is refused")] = ""
    jailer: Annotated[str, _text("path of the jailer of the same release")] = ""
    jailer_sha256: Annotated[str, _text("its SHA-256")] = ""
    user: Annotated[str, _text("account that the service runs as when root starts it")] = "stoker"
    log_level: Annotated[str, _text("debug, info, warning or error")] = "info"
