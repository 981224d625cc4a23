"""The asynchronous plane: durable 202s a second and their latency under load, and how soon a handler starts after
its 202 when nothing else happens. The yardstick of the first is the synchronous echo on the same stack.
"""

import json
import time
from typing import Any

from bench.figures import Figure, Missing, Options
from bench.functions import BODY, create_echo, echoes, load, metrics, serving, signed
from bench.percentiles import grown, median, percentile
from bench.wrk import drive
from tests.running import PYTHON_RUNTIME, RunningStoker, python_zip

CLIENTS = 32
SINGLE_EVENTS = 50
PAUSE_S = 0.05
DRAINED_WITHIN_S = 300
SYNCHRONOUS = "synchronous, 32 clients"
TIMED = """
import time
def lambda_handler(event, context):
    print("began", event["number"], time.time())
"""


def measure(options: Options) -> list[Figure]:
    """Under load, then alone."""
    return [*accepted(options.seconds), *alone()]


def accepted(seconds: float) -> list[Figure]:
    """202s a second while the events are run, and how fast what waited is run afterwards."""
    with serving() as stoker:
        create_echo(stoker, echoes()[0], "echo")
        synchronous = load(stoker, "echo", clients=CLIENTS, seconds=seconds)
        url, headers = signed(stoker.endpoint, "echo", **{"X-Amz-Invocation-Type": "Event"})
        before = metrics(stoker)
        result = drive(url, headers, BODY, clients=CLIENTS, seconds=seconds)
        begun_s, between = time.monotonic(), metrics(stoker)
        if result.errors:
            raise Missing(f"{result.errors} of {result.requests} events were refused")
        after = drained(stoker, before, result.requests)
        left = result.requests - grown(before, between, SUCCEEDED)
        drain_s = time.monotonic() - begun_s
    rows = [
        ("events.accepted.rate", result.per_second, "1/s", synchronous.per_second, "over 3,000/s"),
        ("events.accepted.p50", result.p50_us, "us", synchronous.p50_us, ""),
        ("events.accepted.p99", result.p99_us, "us", synchronous.p99_us, "under 20,000 us"),
    ]
    figures = [
        Figure(
            name=name,
            value=value,
            unit=unit,
            n=result.requests,
            yardstick=yardstick,
            yardstick_name=SYNCHRONOUS,
            higher_is_better=unit == "1/s",
            goal=goal,
        )
        for name, value, unit, yardstick, goal in rows
    ]
    if left <= 0:  # they ran as fast as they came
        return figures
    run = grown(between, after, SUCCEEDED)
    return [
        *figures,
        Figure(
            name="events.drained.rate",
            value=run / drain_s,
            unit="1/s",
            n=int(left),
            yardstick=synchronous.per_second,
            yardstick_name=SYNCHRONOUS,
            higher_is_better=True,
        ),
    ]


SUCCEEDED = "stoker_events_succeeded_total"


def drained(stoker: RunningStoker, before: dict[str, float], count: int) -> dict[str, float]:
    """The metrics once every event has run."""
    until_s = time.monotonic() + DRAINED_WITHIN_S
    while time.monotonic() < until_s:
        now = metrics(stoker)
        if grown(before, now, SUCCEEDED) >= count:
            return now
        time.sleep(0.2)
    raise Missing(f"not every event of {count} had run within {DRAINED_WITHIN_S} s")


def alone() -> list[Figure]:
    """From having the 202 to the handler's first line, one event at a time, the sandbox warm."""
    with serving() as stoker:
        stoker.create(
            "timed",
            python_zip(TIMED),
            Runtime=PYTHON_RUNTIME,
            Handler="lambda_function.lambda_handler",
            Timeout=30,
        )
        client = stoker.client("lambda")
        client.invoke(FunctionName="timed", Payload=b'{"number": -1}')
        told_s: list[float] = []
        for number in range(SINGLE_EVENTS):
            time.sleep(PAUSE_S)
            client.invoke(
                FunctionName="timed", InvocationType="Event", Payload=json.dumps({"number": number}).encode()
            )
            told_s.append(time.time())
        began_s = begun(stoker.client("logs"))
    waits_ms = [(began_s[number] - told) * 1000 for number, told in enumerate(told_s)]
    return [
        Figure(name=f"events.idle.{part}", value=value, unit="ms", n=len(waits_ms), tolerance=None, goal=goal)
        for part, value, goal in (
            ("p50", median(waits_ms), "under 5 ms"),
            ("p99", percentile(waits_ms, 99), ""),
        )
    ]


def begun(logs: Any) -> dict[int, float]:
    """When each handler began, as it printed; waits until all have."""
    until_s = time.monotonic() + 30
    while time.monotonic() < until_s:
        lines = [
            event["message"].split()
            for page in logs.get_paginator("filter_log_events").paginate(
                logGroupName="/aws/lambda/timed", filterPattern="began"
            )
            for event in page["events"]
        ]
        found = {int(words[1]): float(words[2]) for words in lines if words and words[0] == "began"}
        if len(found) > SINGLE_EVENTS:
            return found
        time.sleep(0.2)
    raise Missing("not every event was logged")
