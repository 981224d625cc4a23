"""The control plane as one object: which operation is served by which handler."""

from collections.abc import Mapping
from pathlib import Path

from stoker.control.accounts import Accounts
from stoker.control.aliases import Aliases
from stoker.control.capacity_providers import CapacityProviders
from stoker.control.code_signing import CodeSigningConfigs
from stoker.control.concurrency import FunctionConcurrency
from stoker.control.deletion import Deletion
from stoker.control.event_invoke import EventInvokeConfigs
from stoker.control.function_layers import FunctionLayers
from stoker.control.function_settings import FunctionSettings
from stoker.control.function_signing import FunctionSigning
from stoker.control.functions import Functions
from stoker.control.holds import CodeHolds
from stoker.control.layer_policies import LayerPolicies
from stoker.control.layer_records import LayerRecords
from stoker.control.layers import Layers
from stoker.control.locations import located_code
from stoker.control.mapping_transitions import MappingTransitions
from stoker.control.mappings import EventSourceMappings
from stoker.control.policies import FunctionPolicies
from stoker.control.ports import Ports
from stoker.control.provisioned import ProvisionedConcurrencyConfigs
from stoker.control.provisioning import Provisioning
from stoker.control.settling import Settling
from stoker.control.storage import CodeStorage
from stoker.control.tags import Tags
from stoker.control.urls import FunctionUrls
from stoker.control.versions import Versions
from stoker.services.context import OperationHandler


class ControlPlane:
    """Built from ports; ``start`` before the first request, ``close`` after the last."""

    def __init__(self, ports: Ports) -> None:
        self._ports = ports
        self._holds = CodeHolds(ports)
        self._settling = Settling(ports, self._holds)
        layers = LayerRecords(ports.records)
        storage = CodeStorage(ports, layers)
        self._signing = FunctionSigning(ports)
        self._functions = Functions(
            ports,
            self._holds,
            self._settling,
            storage,
            self._signing,
            FunctionLayers(ports, layers, self._holds),
        )
        self._layers = Layers(ports, layers, self._holds, self._settling, storage)
        self._deletion = Deletion(ports, self._holds, self._settling)
        self._versions = Versions(ports, self._settling, storage)
        self._aliases = Aliases(ports)
        self._concurrency = FunctionConcurrency(ports)
        self._policies = FunctionPolicies(ports)
        self._layer_policies = LayerPolicies(ports)
        self._accounts = Accounts(ports, layers)
        self._tags = Tags(ports)
        self._code_signing = CodeSigningConfigs(ports)
        self._event_invoke = EventInvokeConfigs(ports)
        self._urls = FunctionUrls(ports)
        self._provisioning = Provisioning(ports)
        self._provisioned = ProvisionedConcurrencyConfigs(ports, self._provisioning)
        self._settings = FunctionSettings(ports)
        self._providers = CapacityProviders(ports)
        self._transitions = MappingTransitions(ports)
        self._mappings = EventSourceMappings(ports, self._transitions)

    async def start(self) -> None:
        """Bring to an end what a killed process left under way, and delete code that nothing names."""
        await self._settling.resume()
        await self._transitions.resume()
        self._holds.begin_sweep()
        await self._provisioning.start()

    async def close(self) -> None:
        """Wait for creations and updates under way."""
        await self._transitions.close()
        await self._provisioning.close()
        await self._settling.close()
        await self._holds.close()

    def operations(self) -> Mapping[str, OperationHandler]:
        """Every operation that is served here, by its name in the API's model."""
        functions, concurrency, tags = self._functions, self._concurrency, self._tags
        layers = self._layers
        versions, aliases = self._versions, self._aliases
        return {
            "CreateFunction": functions.create,
            "GetFunction": functions.get,
            "GetFunctionConfiguration": functions.get_configuration,
            "ListFunctions": functions.list,
            "UpdateFunctionCode": functions.update_code,
            "UpdateFunctionConfiguration": functions.update_configuration,
            "DeleteFunction": self._deletion.delete,
            "PublishVersion": versions.publish,
            "ListVersionsByFunction": versions.list,
            "CreateAlias": aliases.create,
            "GetAlias": aliases.get,
            "UpdateAlias": aliases.update,
            "DeleteAlias": aliases.delete,
            "ListAliases": aliases.list,
            "PutFunctionConcurrency": concurrency.put,
            "GetFunctionConcurrency": concurrency.get,
            "DeleteFunctionConcurrency": concurrency.delete,
            "PublishLayerVersion": layers.publish,
            "GetLayerVersion": layers.get,
            "GetLayerVersionByArn": layers.get_by_arn,
            "ListLayerVersions": layers.list_versions,
            "ListLayers": layers.list,
            "DeleteLayerVersion": layers.delete,
            "GetAccountSettings": self._accounts.settings,
            "AddLayerVersionPermission": self._layer_policies.add,
            "RemoveLayerVersionPermission": self._layer_policies.remove,
            "GetLayerVersionPolicy": self._layer_policies.get,
            "AddPermission": self._policies.add,
            "RemovePermission": self._policies.remove,
            "GetPolicy": self._policies.get,
            "PutResourcePolicy": self._policies.put_whole,
            "GetResourcePolicy": self._policies.get_whole,
            "DeleteResourcePolicy": self._policies.delete_whole,
            "ListTags": tags.list,
            "TagResource": tags.tag,
            "UntagResource": tags.untag,
            **self._event_invoke.operations(),
            **self._urls.operations(),
            **self._provisioned.operations(),
            **self._code_signing.operations(),
            **self._mappings.operations(),
            **self._settings.operations(),
            **self._providers.operations(),
            **self._signing.operations(),
        }

    async def code_download(self, path: str, query: Mapping[str, str]) -> Path | None:
        """The zip behind a URL that GetFunction gave; None when it is forged or expired, or the code gone."""
        code_sha256 = located_code(path, query, self._ports.clock.now_s(), self._ports.location_keys())
        return None if code_sha256 is None else await self._ports.code.original(code_sha256)
