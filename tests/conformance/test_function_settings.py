"""Recursion, runtime management and scaling configs, capacity providers, and tags of what is no function."""

from typing import Any

import pytest

from tests.conformance.recorded import MOMENT, answer, arn, created, invalid, not_found, refusal
from tests.conformance.test_recorded_code_signing import ABSENT, NOT_THERE, create
from tests.conformance.test_recorded_event_sources import at_rest
from tests.running import ACCOUNT, REGION, ROLE, RunningStoker

NAME = "set"
DONE = {"HTTP": 204}


@pytest.fixture(scope="module")
def service(stoker: RunningStoker) -> Any:
    created(stoker, NAME)
    made = stoker.client("lambda")
    made.publish_version(FunctionName=NAME)
    return made


def test_recursion(service: Any) -> None:
    get, put = service.get_function_recursion_config, service.put_function_recursion_config
    assert answer(get, FunctionName=NAME) == {"RecursiveLoop": "Terminate", "HTTP": 200}
    assert answer(put, FunctionName=NAME, RecursiveLoop="Allow") == {"RecursiveLoop": "Allow", "HTTP": 200}
    assert answer(get, FunctionName=arn(NAME)) == {"RecursiveLoop": "Allow", "HTTP": 200}
    assert answer(get, FunctionName="absent") == not_found("absent")
    assert answer(put, FunctionName="absent", RecursiveLoop="Allow") == not_found("absent")
    assert answer(put, FunctionName=NAME, RecursiveLoop="x")["Error"]["Code"] == "ValidationException"


def test_runtime_management(service: Any) -> None:
    get, put = service.get_runtime_management_config, service.put_runtime_management_config
    auto = {"UpdateRuntimeOn": "Auto", "FunctionArn": arn(NAME), "HTTP": 200}
    assert answer(get, FunctionName=NAME) == auto
    shown = service.get_function_configuration(FunctionName=NAME)["RuntimeVersionConfig"]
    version = shown["RuntimeVersionArn"]
    pinned = {"UpdateRuntimeOn": "Manual", "FunctionArn": f"{arn(NAME)}:1", "RuntimeVersionArn": version}
    manual = {"FunctionName": NAME, "Qualifier": "1", "UpdateRuntimeOn": "Manual"}
    assert answer(put, **manual, RuntimeVersionArn=version) == {**pinned, "HTTP": 200}
    assert answer(get, FunctionName=NAME, Qualifier="1") == {**pinned, "HTTP": 200}
    assert answer(get, FunctionName=NAME) == auto
    for wrong in ({}, {"RuntimeVersionArn": f"{version[:-1]}x"}):
        assert answer(put, **manual, **wrong)["Error"]["Code"] == "InvalidParameterValueException"
    named = answer(put, FunctionName=NAME, UpdateRuntimeOn="Auto", RuntimeVersionArn=version)
    assert named["Error"]["Code"] == "InvalidParameterValueException"
    alias = answer(put, FunctionName=NAME, Qualifier="live", UpdateRuntimeOn="Auto")
    assert alias == invalid(
        f"The provided function name {arn(NAME)}:live is invalid. Aliases are not allowed."
    )
    assert answer(get, FunctionName=NAME, Qualifier="7") == not_found(f"{NAME}:7")


def test_scaling(service: Any) -> None:
    get, put = service.get_function_scaling_config, service.put_function_scaling_config
    one = {"FunctionName": NAME, "Qualifier": "1"}
    config = {"MinExecutionEnvironments": 1, "MaxExecutionEnvironments": 5}
    assert answer(get, **one) == {"FunctionArn": f"{arn(NAME)}:1", "HTTP": 200}
    assert answer(put, **one, FunctionScalingConfig=config) == {"FunctionState": "Active", "HTTP": 202}
    assert answer(get, **one)["RequestedFunctionScalingConfig"] == config
    upside_down = {"MinExecutionEnvironments": 6, "MaxExecutionEnvironments": 5}
    refused = answer(put, **one, FunctionScalingConfig=upside_down)
    assert refused["Error"]["Code"] == "InvalidParameterValueException"
    assert answer(get, **one)["RequestedFunctionScalingConfig"] == config
    assert answer(get, FunctionName=NAME, Qualifier="7") == not_found(f"{NAME}:7")


def test_capacity_providers(service: Any) -> None:
    provider = f"arn:aws:lambda:{REGION}:{ACCOUNT}:capacity-provider:pool"
    given = {
        "VpcConfig": {"SubnetIds": ["subnet-1"], "SecurityGroupIds": ["sg-1"]},
        "PermissionsConfig": {"CapacityProviderOperatorRoleArn": ROLE},
    }
    scaling = {"MaxVCpuCount": 400, "ScalingMode": "Auto", "ScalingPolicies": []}
    shown = {
        **given,
        "CapacityProviderArn": provider,
        "CapacityProviderScalingConfig": scaling,
        "InstanceRequirements": {"Architectures": ["x86_64"]},
        "LastModified": MOMENT,
    }
    make = service.create_capacity_provider
    made = answer(make, CapacityProviderName="pool", **given, Tags={"a": "b"})
    assert made == {"CapacityProvider": {**shown, "State": "Pending"}, "HTTP": 202}
    again = answer(make, CapacityProviderName="pool", **given)
    assert (again["HTTP"], again["Error"]["Code"]) == (409, "ResourceConflictException")
    active = {"CapacityProvider": {**shown, "State": "Active"}}
    for name in ("pool", provider):
        assert answer(service.get_capacity_provider, CapacityProviderName=name) == {**active, "HTTP": 200}
    listed = answer(service.list_capacity_providers, State="Active")
    assert active["CapacityProvider"] in listed["CapacityProviders"]
    assert service.list_capacity_providers(State="Failed")["CapacityProviders"] == []
    versions = answer(service.list_function_versions_by_capacity_provider, CapacityProviderName="pool")
    assert versions == {"CapacityProviderArn": provider, "FunctionVersions": [], "HTTP": 200}
    changed = answer(
        service.update_capacity_provider,
        CapacityProviderName="pool",
        CapacityProviderScalingConfig={"MaxVCpuCount": 8},
    )
    smaller = {**scaling, "MaxVCpuCount": 8}
    assert changed["CapacityProvider"]["CapacityProviderScalingConfig"] == smaller
    assert service.list_tags(Resource=provider)["Tags"] == {"a": "b"}
    gone = service.delete_capacity_provider(CapacityProviderName="pool")
    assert gone["CapacityProvider"]["State"] == "Deleting"
    words = f"Capacity provider not found: {provider}"
    absent = refusal("ResourceNotFoundException", words, 404, Type="User", Message=words)
    assert answer(service.get_capacity_provider, CapacityProviderName="pool") == absent
    assert answer(service.list_tags, Resource=provider) == absent


def test_tags_of_mappings_and_signing_configurations(stoker: RunningStoker, service: Any) -> None:
    made = service.create_event_source_mapping(
        FunctionName=NAME, EventSourceArn=f"arn:aws:sqs:{REGION}:{ACCOUNT}:tagged", Tags={"Z": "z"}
    )
    mapping = made["EventSourceMappingArn"]
    for resource, first in ((mapping, {"Z": "z"}), (create(stoker), {})):
        shown = answer(service.list_tags, Resource=resource)
        assert shown == {"Tags": first, "HTTP": 200}
        assert answer(service.tag_resource, Resource=resource, Tags={"A": "a", "B": "b"}) == DONE
        assert answer(service.tag_resource, Resource=resource, Tags={"B": "c"}) == DONE
        assert answer(service.untag_resource, Resource=resource, TagKeys=["A", "Z", "X"]) == DONE
        assert service.list_tags(Resource=resource)["Tags"] == {"B": "c"}
        many = {f"{number}": "x" for number in range(50)}
        too_many = invalid("Number of tags exceeds resource tag limit.")
        assert answer(service.tag_resource, Resource=resource, Tags=many) == too_many
    assert answer(service.list_tags, Resource=ABSENT) == NOT_THERE


def test_tagging_a_mapping_on_its_way_does_not_stop_it(stoker: RunningStoker, service: Any) -> None:
    made = service.create_event_source_mapping(
        FunctionName=NAME, EventSourceArn=f"arn:aws:sqs:{REGION}:{ACCOUNT}:tagged-early"
    )
    service.tag_resource(Resource=made["EventSourceMappingArn"], Tags={"A": "a"})
    assert at_rest(stoker, made["UUID"])["State"] == "Enabled"
    assert service.list_tags(Resource=made["EventSourceMappingArn"])["Tags"] == {"A": "a"}
