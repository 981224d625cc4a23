"""Rising concurrency: one more invocation every little while, none of which ends meanwhile. How long each waits
for its handler, with sandboxes made ahead and, as the yardstick, without.
"""

import json
import time
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from bench.figures import Figure, Options
from bench.functions import serving
from bench.percentiles import median
from tests.running import PYTHON_RUNTIME, ROLE, python_zip

STEPS = 12
STEP_S = 0.4
FIRST_STEPS = 2
"""Not counted: concurrency has to rise before anything is made ahead."""
SOURCE = f"""
import time
time.sleep(0.2)
def lambda_handler(event, context):
    began = time.time()
    time.sleep({STEPS * STEP_S + 1})
    return began
"""


def measure(_options: Options) -> list[Figure]:
    """Both ways, each on a Stoker of its own."""
    ahead, behind = waits_ms(proactive=True), waits_ms(proactive=False)
    return [
        Figure(
            name=f"rising.{part}",
            value=choose(ahead),
            unit="ms",
            n=len(ahead),
            yardstick=choose(behind),
            yardstick_name="nothing made ahead",
            tolerance=None,
        )
        for part, choose in (("p50", median), ("max", max))
    ]


def waits_ms(*, proactive: bool) -> list[float]:
    """From sending an event to the handler's first line, for every step that counts. Init takes 0.2 s and more."""
    with serving(proactive_inits=proactive, pool_runtimes=PYTHON_RUNTIME) as stoker:
        client = stoker.client("lambda", max_pool_connections=STEPS)
        client.create_function(
            FunctionName="rising",
            Role=ROLE,
            Runtime=PYTHON_RUNTIME,
            Handler="lambda_function.lambda_handler",
            Code={"ZipFile": python_zip(SOURCE)},
            Timeout=30,
        )
        client.get_waiter("function_active_v2").wait(FunctionName="rising", WaiterConfig={"Delay": 1})
        with ThreadPoolExecutor(STEPS) as callers:
            begun: list[Future[float]] = []
            for _ in range(STEPS):
                begun.append(callers.submit(wait_ms, client))
                time.sleep(STEP_S)
            return [step.result() for step in begun][FIRST_STEPS:]


def wait_ms(client: Any) -> float:
    """One invocation's wait for its handler."""
    sent_s = time.time()
    answer = client.invoke(FunctionName="rising")
    return (json.loads(answer["Payload"].read()) - sent_s) * 1000
