"""Creates, updates and deletes functions in a loop and prints what was acknowledged; to be killed."""

import asyncio
import io
import os
import sys
import uuid
import zipfile
from pathlib import Path

from stoker.control.plane import ControlPlane
from stoker.control.ports import Ports
from stoker.core.clock import SystemClock
from stoker.packaging.memory_images import MemoryImageStore
from stoker.packaging.packers import PackerPool
from stoker.services.context import RequestContext
from stoker.services.lambda_types import CreateFunctionRequest, DeleteFunctionRequest, FunctionCode
from stoker.store.coordination import LocalInvalidation
from stoker.store.database import Database
from stoker.store.environments import KeptEnvironments
from stoker.store.master_keys import load_master_keys
from stoker.store.memory import MemoryObjectSource
from stoker.store.memory_keys import MemoryDataKeys
from stoker.store.metadata import SqlFunctionMetadata
from stoker.store.opening import open_metadata_database
from stoker.store.records import SqlRecords
from stoker.store.sealing import Sealer
from tests import code_stores
from tests.unit.control.provisioner import PretendProvisioner

CREATORS = 4

CONTEXT = RequestContext(
    request_id="r",
    account="000000000000",
    region="us-east-1",
    access_key_id="AKIA",
    principal_arn="arn:aws:iam::000000000000:root",
    source_ip="127.0.0.1",
    endpoint="http://127.0.0.1:9797",
)


class Everything:
    """Runs any supported runtime."""

    def missing(self, _runtime: str, _architecture: str) -> str | None:
        return None


async def opened(data: Path) -> tuple[ControlPlane, code_stores.TreeStore, PackerPool, Database]:
    """A control plane on the real stores of a folder, started."""
    sealer = Sealer(load_master_keys(data / "master.key"))
    database = await open_metadata_database(data)
    code = await code_stores.opened(data)
    plane = ControlPlane(
        Ports(
            metadata=SqlFunctionMetadata(database, sealer),
            records=SqlRecords(database),
            provisioner=PretendProvisioner(),
            code=code,
            images=MemoryImageStore(),
            objects=MemoryObjectSource(data),
            invalidation=LocalInvalidation(),
            runtimes=Everything(),
            clock=SystemClock(),
            new_id=lambda: str(uuid.uuid4()),
            environments=KeptEnvironments(MemoryDataKeys()),
            location_keys=lambda: (b"k" * 32,),
            code_grace_s=0.01,
        )
    )
    await plane.start()
    return plane, code, code.packers, database


async def create(plane: ControlPlane, creator: int) -> None:
    operations = plane.operations()
    for number in range(100_000):
        name = f"c{creator}-{number}"
        request = CreateFunctionRequest(
            function_name=name,
            role="arn:aws:iam::000000000000:role/r",
            runtime="python3.12",
            handler="handler.handler",
            code=FunctionCode(zip_file=zipped()),
        )
        await operations["CreateFunction"](CONTEXT, request)
        print("created", name, flush=True)
        if number % 3 == 0:
            print("deleting", name, flush=True)
            await operations["DeleteFunction"](CONTEXT, DeleteFunctionRequest(function_name=name))
            print("deleted", name, flush=True)


def zipped() -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as made:
        for number in range(5):
            made.writestr(f"folder/file{number}", os.urandom(500))
    return stream.getvalue()


async def main(data: Path) -> None:
    plane, _, _, _ = await opened(data)
    await asyncio.gather(*(create(plane, creator) for creator in range(CREATORS)))


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1])))
