"""The authoriser over stored policies: other accounts, URLs, what is remembered and when it is forgotten."""

import json
from typing import Any

import msgspec
import pytest

from stoker.control.access.guard import Guard
from stoker.control.iam.directory import Directory
from stoker.control.iam.plane import IdentityPlane, IdentityPorts
from stoker.control.policies import POLICY_KIND
from stoker.control.statements import ResourcePolicy
from stoker.core.clock import ManualClock
from stoker.core.errors import ServiceError
from stoker.services import iam_types, lambda_types, logs_types
from stoker.services.context import RequestContext
from stoker.services.functions import FunctionKey
from stoker.services.identity import User
from stoker.services.records import ANY_REVISION, Put, Shelf
from stoker.store.coordination import LocalInvalidation
from stoker.store.key_ring import KeyRing
from stoker.store.master_keys import load_master_keys
from stoker.store.memory import MemoryFunctionMetadata
from stoker.store.memory_records import MemoryRecords
from stoker.store.sealing import Sealer
from stoker.store.user_keys import UserKeys

A, B, REGION = "111111111111", "222222222222", "us-east-1"
FUNCTION = FunctionKey(A, REGION, "f")
INVOKE = "lambda:InvokeFunction"


def context(arn: str) -> RequestContext:
    return RequestContext(
        request_id="r",
        account=arn.split(":")[4],
        region=REGION,
        access_key_id="AKIA",
        principal_arn=arn,
        source_ip="192.0.2.1:4711",
        endpoint="http://127.0.0.1:9797",
    )


USER_A, USER_B = context(f"arn:aws:iam::{A}:user/u"), context(f"arn:aws:iam::{B}:user/u")
ROOT_A, ROOT_B = context(f"arn:aws:iam::{A}:root"), context(f"arn:aws:iam::{B}:root")
ALLOW = {"Effect": "Allow", "Action": INVOKE, "Resource": "*"}


class World:
    """An identity plane on memory, with user u in both accounts."""

    def __init__(self, folder: Any, roles: str = "lenient") -> None:
        self.metadata = MemoryFunctionMetadata()
        self.records = MemoryRecords(self.metadata)
        self.invalidation = LocalInvalidation()
        clock = ManualClock()
        self.ring = KeyRing([b"k" * 32], clock)
        sealer = Sealer(load_master_keys(folder / "master.key", None))
        self.keys = UserKeys(self.records, sealer, self.ring, clock)
        ids = iter(range(10_000))
        self.plane = IdentityPlane(
            IdentityPorts(
                records=self.records,
                metadata=self.metadata,
                invalidation=self.invalidation,
                keys=self.keys,
                issuer=self.ring,
                clock=clock,
                new_id=lambda: f"id-{next(ids)}",
                roles=roles,
            )
        )
        self.authoriser = self.plane.authoriser
        self.operations = self.plane.operations()

    async def allow(self, who: RequestContext, *statements: dict[str, Any]) -> None:
        """Give user u of the account these statements."""
        document = json.dumps({"Version": "2012-10-17", "Statement": list(statements)})
        root = context(f"arn:aws:iam::{who.account}:root")
        request = {"UserName": "u", "PolicyName": "p", "PolicyDocument": document}
        await self.operations["iam"]["PutUserPolicy"](
            root, msgspec.convert(request, iam_types.PutUserPolicyRequest)
        )

    async def make_users(self) -> None:
        for root in (ROOT_A, ROOT_B):
            await self.operations["iam"]["CreateUser"](root, iam_types.CreateUserRequest(user_name="u"))

    async def share(self, **statement: Any) -> None:
        """Set the function's policy."""
        shelf = Shelf(self.records, POLICY_KIND, ResourcePolicy)
        key = shelf.key(A, REGION, "f", "")
        given = {"Effect": "Allow", "Action": INVOKE, "Resource": FUNCTION.arn} | statement
        await shelf.write(Put(shelf.record(key, ResourcePolicy((given,)), "1"), ANY_REVISION))
        self.invalidation.publish(FUNCTION)

    async def refusal(self, who: RequestContext) -> str:
        """AWS's words, or empty."""
        try:
            await self.authoriser.authorise(who, INVOKE, FUNCTION, None)
        except ServiceError as refused:
            return refused.message.partition(f"{FUNCTION.arn} ")[2]
        return ""


@pytest.fixture
async def world(tmp_path: Any) -> World:
    made = World(tmp_path)
    await made.make_users()
    return made


NO_IDENTITY = f"because no identity-based policy allows the {INVOKE} action"
NO_RESOURCE = f"because no resource-based policy allows the {INVOKE} action"


async def test_between_accounts_both_sides_must_allow(world: World) -> None:
    assert await world.refusal(USER_B) == NO_RESOURCE
    assert await world.refusal(ROOT_B) == NO_RESOURCE
    await world.allow(USER_B, ALLOW)
    assert await world.refusal(USER_B) == NO_RESOURCE
    await world.share(Principal={"AWS": f"arn:aws:iam::{B}:root"})
    assert await world.refusal(USER_B) == ""
    assert await world.refusal(ROOT_B) == ""
    await world.allow(USER_B, ALLOW | {"Action": "lambda:GetFunction"})
    assert await world.refusal(USER_B) == NO_IDENTITY


async def test_what_lasts_is_remembered_until_something_changes(world: World) -> None:
    await world.allow(USER_A, ALLOW)
    assert not world.authoriser.allows_nowait(USER_A, INVOKE, FUNCTION, None)
    assert await world.refusal(USER_A) == ""
    assert world.authoriser.allows_nowait(USER_A, INVOKE, FUNCTION, None)
    assert not world.authoriser.allows_nowait(USER_A, INVOKE, FUNCTION, "prod")
    assert not world.authoriser.allows_nowait(USER_B, INVOKE, FUNCTION, None)
    world.invalidation.publish(FUNCTION)
    assert not world.authoriser.allows_nowait(USER_A, INVOKE, FUNCTION, None)
    assert await world.refusal(USER_A) == ""
    await world.allow(USER_A, ALLOW | {"Effect": "Deny"})
    assert not world.authoriser.allows_nowait(USER_A, INVOKE, FUNCTION, None)
    assert await world.refusal(USER_A) == "with an explicit deny in an identity-based policy"


async def test_what_depends_on_the_request_is_not_remembered(world: World) -> None:
    await world.allow(USER_A, ALLOW | {"Condition": {"IpAddress": {"aws:SourceIp": "192.0.2.0/24"}}})
    assert await world.refusal(USER_A) == ""
    assert not world.authoriser.allows_nowait(USER_A, INVOKE, FUNCTION, None)
    elsewhere = msgspec.structs.replace(USER_A, source_ip="198.51.100.1:80")
    assert await world.refusal(elsewhere) == NO_IDENTITY


async def test_root_is_never_kept_waiting(world: World) -> None:
    assert world.authoriser.allows_nowait(ROOT_A, INVOKE, FUNCTION, None)
    assert not world.authoriser.allows_nowait(ROOT_B, INVOKE, FUNCTION, None)


async def test_a_function_url_open_to_everybody(world: World) -> None:
    async def allowed(who: RequestContext | None, auth_type: str) -> bool:
        return await world.authoriser.allows_url(
            who, FUNCTION, None, auth_type=auth_type, source_ip="192.0.2.1:1"
        )

    assert not await allowed(None, "NONE")
    await world.share(
        Principal="*",
        Action="lambda:InvokeFunctionUrl",
        Condition={"StringEquals": {"lambda:FunctionUrlAuthType": "NONE"}},
    )
    assert await allowed(None, "NONE")
    assert await allowed(USER_A, "NONE")
    await world.share(Principal="*", Action="lambda:InvokeFunctionUrl", Effect="Deny")
    assert not await allowed(None, "NONE"), "a policy that was read is forgotten when it changes"
    await world.share(
        Principal="*",
        Action="lambda:InvokeFunctionUrl",
        Condition={"StringEquals": {"lambda:FunctionUrlAuthType": "NONE"}},
    )
    assert not await allowed(None, "AWS_IAM")
    assert not await allowed(USER_A, "AWS_IAM")
    await world.allow(USER_A, ALLOW | {"Action": ["lambda:InvokeFunctionUrl", INVOKE]})
    assert await allowed(USER_A, "AWS_IAM")


async def test_a_function_without_a_known_role_may_write_its_own_log_only(world: World) -> None:
    session = context(f"arn:aws:sts::{A}:assumed-role/unknown/f")

    async def group(name: str) -> str:
        async def created(_context: RequestContext, _request: Any) -> None:
            return None

        handlers = Guard(world.authoriser, world.plane._directory).guarded(
            {"logs": {"CreateLogGroup": created}}
        )
        try:
            await handlers["logs"]["CreateLogGroup"](
                session, logs_types.CreateLogGroupRequest(log_group_name=name)
            )
        except ServiceError as refused:
            return refused.code
        return ""

    assert await group("/aws/lambda/f") == ""
    assert await group("/aws/lambda/f2") == "AccessDeniedException"
    assert await world.refusal(session) == NO_IDENTITY


async def test_roles_of_functions(world: World, tmp_path: Any) -> None:
    unknown = f"arn:aws:iam::{A}:role/unknown"
    world.plane.check_role(A, unknown)
    (tmp_path / "strict").mkdir()
    strict = World(tmp_path / "strict", "strict")
    with pytest.raises(ServiceError, match="cannot be assumed by Lambda"):
        strict.plane.check_role(A, unknown)
    trust = {"Effect": "Allow", "Principal": {"Service": "lambda.amazonaws.com"}, "Action": "sts:AssumeRole"}
    request = iam_types.CreateRoleRequest(
        role_name="r", path="/p/", assume_role_policy_document=json.dumps({"Statement": trust})
    )
    await strict.operations["iam"]["CreateRole"](ROOT_A, request)
    strict.plane.check_role(A, f"arn:aws:iam::{A}:role/p/r")
    for wrong in (f"arn:aws:iam::{A}:role/r", f"arn:aws:iam::{B}:role/p/r"):
        with pytest.raises(ServiceError, match="cannot be assumed by Lambda"):
            strict.plane.check_role(A, wrong)


async def test_the_guard_hands_another_accounts_request_to_that_account(world: World) -> None:
    seen: list[str] = []

    async def get(given: RequestContext, _request: Any) -> None:
        seen.append(given.account)

    guarded = Guard(world.authoriser, world.plane._directory).guarded({"lambda": {"GetFunction": get}})
    request = lambda_types.GetFunctionRequest(function_name=FUNCTION.arn)
    with pytest.raises(ServiceError, match="no resource-based policy allows the lambda:GetFunction"):
        await guarded["lambda"]["GetFunction"](ROOT_B, request)
    await world.share(Principal={"AWS": B}, Action="lambda:GetFunction")
    await guarded["lambda"]["GetFunction"](ROOT_B, request)
    assert seen == [A]


async def test_keys_are_sealed_and_survive(world: World, tmp_path: Any) -> None:
    answer = await world.operations["iam"]["CreateAccessKey"](
        ROOT_A, iam_types.CreateAccessKeyRequest(user_name="u")
    )
    key = answer.access_key
    (stored,) = await world.records.every("access-key")
    assert key.secret_access_key.encode() not in stored.document
    again = KeyRing([b"k" * 32], ManualClock())
    sealer = Sealer(load_master_keys(tmp_path / "master.key", None))
    await UserKeys(world.records, sealer, again, ManualClock()).start()
    found = again.lookup(key.access_key_id, None)
    assert found is not None
    assert (found.secret, found.principal_arn) == (key.secret_access_key, f"arn:aws:iam::{A}:user/u")


async def test_identities_are_read_again_at_the_next_start(world: World) -> None:
    await world.allow(USER_A, ALLOW)
    again = Directory(world.records)
    await again.start()
    found = again.user(A, "u")
    assert isinstance(found, User)
    assert "p" in found.inline


async def test_strangers_need_no_permission_to_invoke_but_a_deny_holds(world: World) -> None:
    shelf = Shelf(world.records, POLICY_KIND, ResourcePolicy)
    key = shelf.key(A, REGION, "f", "")
    url: dict[str, Any] = {
        "Effect": "Allow",
        "Principal": "*",
        "Action": "lambda:InvokeFunctionUrl",
        "Resource": FUNCTION.arn,
    }
    via_url = {"Bool": {"lambda:InvokedViaFunctionUrl": "true"}}
    deny = url | {"Effect": "Deny", "Action": INVOKE, "Condition": via_url}
    for statements, allowed in (((url,), True), ((url, deny), False), ((deny,), False)):
        await shelf.write(Put(shelf.record(key, ResourcePolicy(statements), "1"), ANY_REVISION))
        world.invalidation.publish(FUNCTION)
        found = await world.authoriser.allows_url(
            None, FUNCTION, None, auth_type="NONE", source_ip="192.0.2.1:1"
        )
        assert found is allowed
