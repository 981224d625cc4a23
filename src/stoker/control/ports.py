"""Everything the control plane is built from, handed in by whoever wires it."""

from collections.abc import Callable, Sequence

import msgspec

from stoker.core.clock import Clock
from stoker.services.code import CodeStore
from stoker.services.environments import EnvironmentKeeper
from stoker.services.functions import FunctionMetadata, Invalidation
from stoker.services.images import ImageStore
from stoker.services.manager import Provisioner
from stoker.services.objects import ObjectSource
from stoker.services.records import RecordKey, Records
from stoker.services.runtime_support import RuntimeSupport


class Ports(msgspec.Struct, frozen=True, kw_only=True):
    """The rooms and cellars the control plane talks to, and what it may not take from anywhere else."""

    metadata: FunctionMetadata
    records: Records
    provisioner: Provisioner
    code: CodeStore
    images: ImageStore
    objects: ObjectSource
    invalidation: Invalidation
    runtimes: RuntimeSupport
    clock: Clock
    new_id: Callable[[], str]
    """A fresh UUID as text."""
    environments: EnvironmentKeeper
    location_keys: Callable[[], Sequence[bytes]]
    """The first signs the URLs that GetFunction hands out; those of the others are good as well."""
    images_unavailable: Callable[[], str | None] = lambda: None
    """What this host lacks for functions from container images; None: nothing."""
    check_role: Callable[[str, str], None] = lambda _account, _role_arn: None
    """Raises ServiceError for a role (account, ARN) that Lambda cannot assume."""
    url_domain: str = "localhost"
    """The domain below which function URLs have their host names."""
    account_concurrency: int = 1000
    mapping_changed: Callable[[RecordKey], None] = lambda _key: None
    """Told after each write of an event source mapping."""
    code_grace_s: float = 60.0
    """How long code that was replaced or deleted stays for cold starts that are under way."""
    code_storage_max_bytes: int = 300 * 1024**3
