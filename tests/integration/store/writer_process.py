"""Writes functions and events in a loop and prints each name once its write was acknowledged; to be killed."""

import asyncio
import sys
from pathlib import Path

from stoker.services.functions import FunctionKey, FunctionRecord, FunctionVersion, LogSettings, Status
from stoker.services.queue import QueuedEvent
from stoker.store.master_keys import load_master_keys
from stoker.store.metadata import SqlFunctionMetadata
from stoker.store.opening import open_metadata_database, open_queue_database
from stoker.store.queue import SqlEventQueue
from stoker.store.sealing import Sealer

WRITERS = 8


async def main(data: Path) -> None:
    sealer = Sealer(load_master_keys(data / "master.key"))
    metadata = SqlFunctionMetadata(await open_metadata_database(data), sealer)
    queue = SqlEventQueue(await open_queue_database(data), capacity_bytes=10**9)
    await queue.recover()
    await asyncio.gather(*(write(metadata, queue, number) for number in range(WRITERS)))


async def write(metadata: SqlFunctionMetadata, queue: SqlEventQueue, writer: int) -> None:
    for number in range(100_000):
        name = f"w{writer}-{number}"
        key = FunctionKey("000000000000", "us-east-1", name)
        version = FunctionVersion(
            key=key,
            deployment_id="d",
            revision_id="r",
            last_modified="t",
            role="role",
            environment={"NAME": name},
            code_sha256="c",
            code_size_bytes=1,
            logging=LogSettings(log_group="g"),
            state=Status(value="Active"),
        )
        await metadata.create(FunctionRecord(key=key, created_at_s=1.0), version)
        print("function", name, flush=True)
        await queue.put(
            QueuedEvent(
                request_id=name,
                key=key,
                qualifier="$LATEST",
                payload=name.encode(),
                accepted_at_s=1.0,
                due_at_s=1.0,
            )
        )
        print("event", name, flush=True)


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1])))
