"""Tumbling windows in virtual time: state from batch to batch, the last invocation, early ends, restarts."""

import asyncio
from typing import Any

from tests.simulation.events.streams import Scene, played


def counting(event: dict[str, Any]) -> dict[str, Any]:
    return {"state": {"count": event["state"].get("count", 0) + len(event["Records"])}}


def shape(event: dict[str, Any]) -> tuple[int, Any, bool, bool]:
    return (
        len(event["Records"]),
        event["state"].get("count"),
        event["isFinalInvokeForWindow"],
        event["isWindowTerminatedEarly"],
    )


async def until_a_window_begins(scene: Scene, length_s: int) -> None:
    await asyncio.sleep(length_s - scene.clock.now_s() % length_s + 0.5)


def test_state_goes_from_batch_to_batch_and_the_window_ends_once() -> None:
    async def story(scene: Scene) -> None:
        scene.function.answer = counting
        await until_a_window_begins(scene, 30)
        scene.poller().start()
        for _ in range(3):
            scene.put("x", "y")
            await asyncio.sleep(5)
        await asyncio.sleep(40)
        assert [shape(event) for event in scene.function.events] == [
            (2, None, False, False),
            (2, 2, False, False),
            (2, 4, False, False),
            (0, 6, True, False),
        ]
        first, last = scene.function.events[0], scene.function.events[-1]
        assert first["window"] == last["window"]
        assert set(first) == {
            "Records",
            "window",
            "state",
            "shardId",
            "eventSourceARN",
            "isFinalInvokeForWindow",
            "isWindowTerminatedEarly",
        }

    played(story, tumbling_s=30)


def test_a_batch_never_crosses_windows() -> None:
    async def story(scene: Scene) -> None:
        scene.function.answer = counting
        await until_a_window_begins(scene, 30)
        scene.put("old", "old", age_s=30)
        scene.put("new")
        scene.poller().start()
        await asyncio.sleep(5)
        assert [shape(event)[:3] for event in scene.function.events] == [
            (2, None, False),
            (0, 2, True),
            (1, None, False),
        ]

    played(story, tumbling_s=30)


def test_state_survives_a_restart() -> None:
    async def story(scene: Scene) -> None:
        scene.function.answer = counting
        await until_a_window_begins(scene, 60)
        first = scene.poller()
        first.start()
        scene.put("x", "y")
        await asyncio.sleep(3)
        await first.stop()
        scene.put("z")
        scene.poller().start()
        await asyncio.sleep(90)
        assert [shape(event)[:3] for event in scene.function.events] == [
            (2, None, False),
            (1, 2, False),
            (0, 3, True),
        ]

    played(story, tumbling_s=60)


def test_a_last_invocation_that_fails_holds_up_what_comes_behind() -> None:
    async def story(scene: Scene) -> None:
        failing = True

        def answer(event: dict[str, Any]) -> Any:
            return (
                None
                if failing and not event["isFinalInvokeForWindow"] and "no" in str(event)
                else counting(event)
            )

        scene.function.answer = answer
        await until_a_window_begins(scene, 30)
        scene.put("no", "no")
        scene.poller().start()
        await asyncio.sleep(20)
        assert len(scene.function.events) > 2  # an answer without a state is a failure
        failing = False
        await asyncio.sleep(90)
        assert shape(scene.function.events[-1])[:3] == (0, 2, True)

    played(story, tumbling_s=30)


def test_too_large_a_state_ends_the_window_early() -> None:
    async def story(scene: Scene) -> None:
        scene.function.answer = lambda event: {"state": {"big": "x" * (1024 * 1024)}}
        await until_a_window_begins(scene, 60)
        scene.poller().start()
        scene.put("one")
        await asyncio.sleep(3)
        scene.function.answer = counting
        scene.put("two")
        await asyncio.sleep(3)
        assert shape(scene.function.events[-1]) == (1, None, False, True)
        assert scene.function.events[0]["window"] == scene.function.events[-1]["window"]
        scene.put("three")
        await asyncio.sleep(3)
        assert shape(scene.function.events[-1]) == (1, 1, False, False)

    played(story, tumbling_s=60)


def test_a_drained_shard_closes_its_window() -> None:
    async def story(scene: Scene) -> None:
        scene.function.answer = counting
        await until_a_window_begins(scene, 600)
        scene.put("one")
        scene.poller().start()
        await asyncio.sleep(3)
        scene.stream.reshard(["a"], ["b"])
        scene.put("b1", shard="b")
        await asyncio.sleep(10)
        assert [(event["shardId"], *shape(event)[:3]) for event in scene.function.events] == [
            ("a", 1, None, False),
            ("a", 0, 1, True),
            ("b", 1, None, False),
        ]

    played(story, tumbling_s=600)
