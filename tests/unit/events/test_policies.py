"""What a function asks for its events, and how it is found again after a write."""

import msgspec

from stoker.events.policies import StoredEventConfigs, narrowed
from stoker.events.retries import RetryPolicy
from stoker.services.event_invoke import EventInvokeConfig, event_invoke_key
from stoker.services.functions import FunctionKey
from stoker.services.records import ANY_REVISION, Put, Record
from stoker.store.coordination import LocalInvalidation
from stoker.store.memory import MemoryFunctionMetadata
from stoker.store.memory_records import MemoryRecords
from tests.unit.events.test_retries import EVENT

KEY = EVENT.key


def test_a_config_narrows_and_never_widens() -> None:
    policy = RetryPolicy(scale=0.5)
    assert narrowed(policy, None) == policy
    assert narrowed(policy, EventInvokeConfig(last_modified_s=0)) == policy
    none = narrowed(policy, EventInvokeConfig(last_modified_s=0, maximum_retry_attempts=0))
    assert (none.waits_s, none.scale) == ((), 0.5)
    one = narrowed(policy, EventInvokeConfig(last_modified_s=0, maximum_retry_attempts=1))
    assert one.waits_s == policy.waits_s[:1]
    young = narrowed(policy, EventInvokeConfig(last_modified_s=0, maximum_event_age_s=60))
    assert (young.maximum_age_s, young.waits_s) == (60.0, policy.waits_s)


async def store(records: MemoryRecords, key: FunctionKey, qualifier: str, attempts: int) -> None:
    config = EventInvokeConfig(last_modified_s=0, maximum_retry_attempts=attempts)
    record = Record(
        key=event_invoke_key(key, qualifier), revision_id="r", document=msgspec.json.encode(config)
    )
    await records.write([Put(record, ANY_REVISION)])


async def test_each_qualifier_has_its_own_and_a_write_is_seen() -> None:
    records, invalidation = MemoryRecords(MemoryFunctionMetadata()), LocalInvalidation()
    configs = StoredEventConfigs(records, invalidation)
    assert await configs.config(EVENT) is None
    await store(records, KEY, "$LATEST", 1)
    await store(records, KEY, "live", 2)
    invalidation.publish(KEY)
    found = await configs.config(EVENT)
    assert found is not None
    assert found.maximum_retry_attempts == 1
    live = await configs.config(msgspec.structs.replace(EVENT, qualifier="live"))
    assert live is not None
    assert live.maximum_retry_attempts == 2
    assert await configs.config(msgspec.structs.replace(EVENT, qualifier="other")) is None
