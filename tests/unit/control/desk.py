"""A control plane on fakes, and short ways to ask it."""

import io
import zipfile
from pathlib import Path
from typing import Any

import msgspec

from stoker.control.plane import ControlPlane
from stoker.control.ports import Ports
from stoker.core.clock import ManualClock
from stoker.core.errors import ServiceError
from stoker.packaging.memory import MemoryCodeStore
from stoker.packaging.memory_images import MemoryImageStore
from stoker.services import lambda_types
from stoker.services.context import RequestContext
from stoker.services.functions import FunctionKey
from stoker.store.coordination import LocalInvalidation
from stoker.store.environments import KeptEnvironments
from stoker.store.memory import MemoryFunctionMetadata, MemoryObjectSource
from stoker.store.memory_keys import MemoryDataKeys
from stoker.store.memory_records import MemoryRecords
from tests.unit.control.provisioner import PretendProvisioner

ACCOUNT, REGION = "123456789012", "eu-central-1"
ROLE = f"arn:aws:iam::{ACCOUNT}:role/r"
START_S = 1_769_860_800.25
"""2026-01-31T12:00:00.250 UTC."""

CONTEXT = RequestContext(
    request_id="request-1",
    account=ACCOUNT,
    region=REGION,
    access_key_id="AKIA",
    principal_arn=f"arn:aws:iam::{ACCOUNT}:root",
    source_ip="127.0.0.1",
    endpoint="http://127.0.0.1:9797",
)


def zipped(content: str = "x = 1") -> bytes:
    """A zip with one module."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as opened:
        opened.writestr(zipfile.ZipInfo("handler.py"), content)
    return stream.getvalue()


def arn(name: str) -> str:
    """The unqualified ARN of a function here."""
    return f"arn:aws:lambda:{REGION}:{ACCOUNT}:function:{name}"


class Runtimes:
    """Everything but Java is installed, on x86_64 alone."""

    def missing(self, runtime: str, architecture: str) -> str | None:
        if architecture != "x86_64":
            return "this host is x86_64"
        return "install a JDK" if runtime.startswith("java") else None


class Desk:
    """One control plane with everything it stands on within reach."""

    def __init__(self, folder: Path, **ports: Any) -> None:
        self.metadata = MemoryFunctionMetadata()
        self.provisioner = PretendProvisioner()
        self.records = MemoryRecords(self.metadata)
        self.code = MemoryCodeStore(folder / "code")
        self.images = MemoryImageStore()
        (folder / "fetched").mkdir()
        self.objects = MemoryObjectSource(folder / "fetched")
        self.invalidation = LocalInvalidation()
        self.published: list[FunctionKey] = []
        self.invalidation.subscribe(self.published.append)
        self.clock = ManualClock(START_S)
        self.records = MemoryRecords(self.metadata)
        self.data_keys = MemoryDataKeys()
        self._ids = 0
        made = {
            "metadata": self.metadata,
            "provisioner": self.provisioner,
            "records": self.records,
            "code": self.code,
            "images": self.images,
            "objects": self.objects,
            "invalidation": self.invalidation,
            "runtimes": Runtimes(),
            "clock": self.clock,
            "new_id": self._new_id,
            "environments": KeptEnvironments(self.data_keys),
            "location_keys": lambda: (b"k" * 32,),
            "code_grace_s": 0.0,
        }
        self.plane = ControlPlane(Ports(**(made | ports)))
        self.operations = self.plane.operations()

    async def ask(self, operation: str, context: RequestContext = CONTEXT, **members: Any) -> dict[str, Any]:
        """Send wire members; returns wire members. Requests are decoded as the API decodes them."""
        request_type = getattr(lambda_types, f"{operation}Request")
        request = msgspec.convert(members, request_type)
        response = await self.operations[operation](context, request)
        return {} if response is None else msgspec.json.decode(msgspec.json.encode(response))

    async def refusal(
        self, operation: str, context: RequestContext = CONTEXT, **members: Any
    ) -> tuple[str, str]:
        """Code and message of the error that the operation must end in."""
        try:
            answer = await self.ask(operation, context, **members)
        except ServiceError as refused:
            return refused.code, refused.message
        raise AssertionError(f"{operation} succeeded: {answer}")

    async def create(self, name: str = "fn", **members: Any) -> dict[str, Any]:
        """CreateFunction with what it must have."""
        given: dict[str, Any] = {
            "FunctionName": name,
            "Role": ROLE,
            "Runtime": "python3.12",
            "Handler": "handler.handler",
            "Code": {"ZipFile": zipped()},
        }
        return await self.ask("CreateFunction", **(given | members))

    async def active(self, name: str = "fn", **members: Any) -> dict[str, Any]:
        """As ``create``, waited for."""
        created = await self.create(name, **members)
        await self.settled()
        return created

    def key(self, name: str = "fn") -> FunctionKey:
        """Where the function of that name is kept."""
        return FunctionKey(CONTEXT.account, CONTEXT.region, name)

    async def settled(self) -> None:
        """Wait for creations and updates under way."""
        await self.plane._settling.drained()

    def _new_id(self) -> str:
        self._ids += 1
        return f"id-{self._ids}"
