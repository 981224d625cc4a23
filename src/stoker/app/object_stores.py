"""Opens the object store that the settings name: a folder, or a bucket of S3."""

import os
from collections.abc import Mapping
from pathlib import Path

from stoker.aws.clients import AwsClients
from stoker.aws.part_uploads import S3PartUploads
from stoker.core.configuration import Settings
from stoker.services.object_store import ObjectStore
from stoker.store.local_object_store import LocalObjectStore
from stoker.store.object_keys import bucket_of
from stoker.store.object_store import S3ObjectStore
from stoker.store.objects import S3Settings

FOLDER = "objects"
"""In the data folder."""


async def open_object_store(
    settings: Settings, clients: AwsClients, environment: Mapping[str, str] = os.environ
) -> ObjectStore:
    """The store; a bucket is not asked for anything yet, so that its failures do not keep functions down.

    Raises:
        ObjectStoreUnavailable: the folder cannot be used.
    """
    if not settings.object_store:
        local = LocalObjectStore(Path(settings.data) / FOLDER)
        await local.start()
        return local
    bucket, prefix = bucket_of(settings.object_store)
    s3 = S3Settings(environment, settings.region)
    parts = S3PartUploads(clients, bucket, s3.config().get("region", settings.region))
    return S3ObjectStore(bucket, prefix, s3, parts)
