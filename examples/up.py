"""What ./dev up does: starts Stoker, deploys the thumbnail example, invokes it, then serves until Ctrl-C."""

import base64
import json
import os
import signal
import struct
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

EXAMPLES = Path(__file__).parent
READY_WITHIN_S = 60
STOP_WITHIN_S = 40


def main() -> int:
    """Returns the service's exit code, or 1 when the example failed."""
    arguments = sys.argv[1:]
    service = subprocess.Popen([*stoker(), "up", *arguments], start_new_session=True)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    try:
        wait_until_ready(service, endpoint(arguments))
        show_thumbnail(arguments)
        print("\nserving until Ctrl-C; in another shell:\n")
        print('  eval "$(./dev stoker env)"')
        print("  aws lambda list-functions --query 'Functions[].FunctionName'\n", flush=True)
        return service.wait()
    except KeyboardInterrupt:
        return 0
    except ExampleFailed as problem:
        print(f"dev up: {problem}", file=sys.stderr)
        return 1
    finally:
        stop(service)


class ExampleFailed(Exception):
    """The service or the example did not do what it is there for."""


def stoker() -> list[str]:
    """The command line of this checkout."""
    return [sys.executable, "-m", "stoker.cli.main"]


def flag(arguments: list[str], name: str, default: str) -> str:
    """The value of ``--name`` among the arguments of ``up``, or STOKER_NAME, or the default."""
    for position, argument in enumerate(arguments):
        if argument == f"--{name}" and position + 1 < len(arguments):
            return arguments[position + 1]
        if argument.startswith(f"--{name}="):
            return argument.partition("=")[2]
    return os.environ.get(f"STOKER_{name.upper()}", default)


def endpoint(arguments: list[str]) -> str:
    """Where the service will listen."""
    return f"http://{flag(arguments, 'listen', '127.0.0.1:9797')}"


def data_option(arguments: list[str]) -> list[str]:
    """The --data option for the commands that follow, where ``up`` was given one."""
    data = flag(arguments, "data", "")
    return ["--data", data] if data else []


def wait_until_ready(service: subprocess.Popen[bytes], url: str) -> None:
    """Until GET /ready answers 200."""
    deadline = time.monotonic() + READY_WITHIN_S
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    while time.monotonic() < deadline:
        if service.poll() is not None:
            raise ExampleFailed(f"the service ended with {service.returncode}")
        try:
            with opener.open(f"{url}/ready", timeout=2):
                return
        except (OSError, urllib.error.URLError):
            time.sleep(0.1)
    raise ExampleFailed(f"{url}/ready did not answer within {READY_WITHIN_S} s")


def show_thumbnail(arguments: list[str]) -> None:
    """Deploy the example, resize a JPEG and a PNG, print what came back."""
    data = data_option(arguments)
    run([*stoker(), "deploy", str(EXAMPLES / "thumbnail"), "--memory", "512", "--timeout", "30", *data])
    for picture in sorted((EXAMPLES / "pictures").glob("*.[jp][pn]g")):
        event = {"image": base64.b64encode(picture.read_bytes()).decode(), "width": 128}
        answer = json.loads(run([*stoker(), "invoke", "thumbnail", "-", *data], json.dumps(event)))
        image = base64.b64decode(answer["image"])
        print(
            f"thumbnail of {picture.name}: {answer['format']} "
            f"{answer['original_size'][0]}x{answer['original_size'][1]} -> "
            f"{answer['size'][0]}x{answer['size'][1]}, {len(image)} bytes{png_check(image)}"
        )


def png_check(image: bytes) -> str:
    """For a PNG, the width its own header claims: proof that these bytes are a picture."""
    if not image.startswith(b"\x89PNG"):
        return ""
    return f" (its header says {struct.unpack('>I', image[16:20])[0]} wide)"


def run(command: list[str], standard_input: str | None = None) -> str:
    """Standard output of a command that must succeed."""
    # Without the variables of another Stoker or of AWS: this one is found by its data folder.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
    done = subprocess.run(
        command, input=standard_input, stdout=subprocess.PIPE, env=environment, text=True, check=False
    )
    if done.returncode != 0:
        raise ExampleFailed(f"{' '.join(command[3:5])} ended with {done.returncode}: {done.stdout}")
    if standard_input is None:
        print(done.stdout, end="")
    return done.stdout


def stop(service: subprocess.Popen[bytes]) -> None:
    """SIGTERM, and SIGKILL for a service that does not end."""
    if service.poll() is None:
        service.terminate()
        try:
            service.wait(STOP_WITHIN_S)
        except subprocess.TimeoutExpired:
            os.killpg(service.pid, signal.SIGKILL)


if __name__ == "__main__":
    sys.exit(main())
