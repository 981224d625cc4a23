"""Events and answers of 1 KB to 6 MB, one client, beside the bare HTTP hello with the same bodies."""

from bench.figures import Figure, Options
from bench.functions import body_of, create_echo, echoes, load, serving
from bench.hello import hello_server
from bench.wrk import Load, drive

MIB = 1024 * 1024
SIZES = {"1k": 1024, "16k": 16 * 1024, "128k": 128 * 1024, "1m": MIB, "6m": 6 * MIB}
"""6 MiB is the largest event, and answers may be a little larger."""


def measure(options: Options) -> list[Figure]:
    """Every size in every runtime."""
    seconds = min(options.seconds, 3)
    hello: dict[str, Load] = {}
    with hello_server() as url:
        for label, size_bytes in SIZES.items():
            hello[label] = drive(url, {}, body_of(size_bytes), clients=1, seconds=seconds)
    figures: list[Figure] = []
    with serving() as stoker:
        for echo in echoes():
            create_echo(stoker, echo, echo.label)
            for label, size_bytes in SIZES.items():
                result = load(
                    stoker, echo.label, clients=1, seconds=seconds, warm_up_s=1, body=body_of(size_bytes)
                )
                figures.append(
                    Figure(
                        name=f"payload.{echo.label}.{label}.p50",
                        value=result.p50_us / 1000,
                        unit="ms",
                        n=result.requests,
                        yardstick=hello[label].p50_us / 1000,
                        yardstick_name="bare HTTP hello, same body",
                        tolerance=0.75,
                    )
                )
    return figures
