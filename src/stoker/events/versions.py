"""The version that an event at a qualifier is for."""

from stoker.services.aliases import alias_shelf, is_alias_name
from stoker.services.functions import LATEST, FunctionKey, FunctionMetadata, FunctionVersion
from stoker.services.records import Records


class QualifiedVersions:
    """Reads the stores each time."""

    def __init__(self, metadata: FunctionMetadata, records: Records) -> None:
        self._metadata = metadata
        self._aliases = alias_shelf(records)

    async def find(self, key: FunctionKey, qualifier: str) -> FunctionVersion | None:
        """The version (of an alias with two: the main one); None when there is none."""
        version = qualifier or LATEST
        if is_alias_name(version):
            alias = await self._aliases.get(self._aliases.key(key.account, key.region, key.name, version))
            if alias is None:
                return None
            version = alias.value.version
        return await self._metadata.version(key, version)

    async def role_arn(self, key: FunctionKey, qualifier: str) -> str:
        """The execution role; empty when there is no such version."""
        found = await self.find(key, qualifier)
        return "" if found is None else found.role
