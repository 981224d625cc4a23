"""The embedded cellar: SQLite, a local code folder, local logs; opened in order, closed in reverse."""

import os
from collections.abc import Callable
from contextlib import AsyncExitStack
from pathlib import Path

import msgspec

from stoker.app.code import open_code
from stoker.app.images import Images, open_images
from stoker.app.native import zygote_module
from stoker.app.object_stores import open_object_store
from stoker.app.stored_code import StoredCode
from stoker.aws.clients import AwsClients
from stoker.aws.kms import KmsDataKeys
from stoker.core.clock import Clock
from stoker.core.configuration import Settings
from stoker.packaging.code_store import SealedCodeStore
from stoker.packaging.code_vault import CodeVault
from stoker.runtimes.catalog import RuntimeCatalog
from stoker.services.keys import WrappedKeys
from stoker.services.object_store import ObjectStore
from stoker.services.volumes import ImageMounter
from stoker.store.coordination import LocalInvalidation
from stoker.store.credentials import StoredCredentials
from stoker.store.data_keys import EitherDataKeys, MasterDataKeys
from stoker.store.environments import KeptEnvironments
from stoker.store.master_keys import MasterKeys
from stoker.store.metadata import SqlFunctionMetadata
from stoker.store.opening import open_metadata_database, open_queue_database
from stoker.store.queue import SqlEventQueue
from stoker.store.records import SqlRecords
from stoker.store.rotation import KeyRotation, WrappedDataKeys
from stoker.store.sealed_columns import sealed_environments, sealed_root_keys
from stoker.store.sealing import Sealer
from stoker.store.user_keys import UserKeys

MEGABYTE = 1024 * 1024


class Cellar(msgspec.Struct, frozen=True, kw_only=True):
    """What the rooms stand on."""

    metadata: SqlFunctionMetadata
    records: SqlRecords
    queue: SqlEventQueue
    credentials: StoredCredentials
    user_keys: UserKeys
    clients: AwsClients
    kms: KmsDataKeys
    data_keys: EitherDataKeys
    environments: KeptEnvironments
    objects: ObjectStore
    code: SealedCodeStore
    stored: StoredCode
    images: Images
    invalidation: LocalInvalidation
    location_keys: Callable[[], tuple[bytes, ...]]
    rotation: KeyRotation
    wrapped_keys: list[WrappedKeys]
    """Whoever keeps data keys is put here, so that rotation finds them."""
    runtimes: RuntimeCatalog


async def open_cellar(
    settings: Settings, clock: Clock, mounter: ImageMounter, stack: AsyncExitStack
) -> Cellar:
    """Open everything below the data folder; ``stack`` closes it.

    Raises:
        StokerError: a file is damaged, open to others, or under another master key.
    """
    data = Path(settings.data)
    master_keys = MasterKeys(data / "master.key", os.environ.get("STOKER_MASTER_KEY"))
    sealer = Sealer(master_keys.keys)
    metadata_database = await open_metadata_database(data, settings.database)
    stack.push_async_callback(metadata_database.close)
    queue_database = await open_queue_database(data)
    stack.push_async_callback(queue_database.close)
    queue = SqlEventQueue(queue_database, capacity_bytes=settings.queue_capacity_mb * MEGABYTE)
    await queue.recover()
    credentials = StoredCredentials(metadata_database, sealer, clock)
    records = SqlRecords(metadata_database)
    user_keys = UserKeys(records, sealer, credentials, clock)
    await user_keys.start()
    await credentials.start(settings.account, given=_given_key(settings))
    clients = AwsClients(os.environ)
    kms = KmsDataKeys(clients, kept_s=float(settings.kms_keep_s))
    data_keys = EitherDataKeys(MasterDataKeys(sealer), kms)
    wrapped_keys: list[WrappedKeys] = []
    sealed = [
        sealed_environments(metadata_database, sealer),
        sealed_root_keys(metadata_database, sealer),
        user_keys,
        WrappedDataKeys(wrapped_keys, data_keys),
    ]
    rotation = KeyRotation(master_keys, sealer, sealed, records, clock)
    rotation.on_changed(credentials.use_master_keys)
    runtimes = _runtimes(settings, data)
    objects = await open_object_store(settings, clients)
    vault = CodeVault(objects, data_keys, data / "sealing")
    images = await open_images(settings, records, objects, data_keys, mounter, clock, stack)
    wrapped_keys += [vault, images.chunked]
    code, stored = await open_code(settings, vault, runtimes, mounter, stack)
    return Cellar(
        metadata=SqlFunctionMetadata(metadata_database, sealer),
        records=records,
        queue=queue,
        credentials=credentials,
        user_keys=user_keys,
        clients=clients,
        kms=kms,
        data_keys=data_keys,
        environments=KeptEnvironments(data_keys),
        objects=objects,
        code=code,
        stored=stored,
        images=images,
        invalidation=LocalInvalidation(),
        location_keys=lambda: sealer.derive("code locations"),
        rotation=rotation,
        wrapped_keys=wrapped_keys,
        runtimes=runtimes,
    )


def _runtimes(settings: Settings, data: Path) -> RuntimeCatalog:
    lang = Path(settings.lang_dir or data / "lang")
    return RuntimeCatalog(lang, data / "runtimes", zygote_module() if settings.zygotes else None)


def _given_key(settings: Settings) -> tuple[str, str] | None:
    if not settings.access_key_id:
        return None
    return settings.access_key_id, settings.secret_access_key
