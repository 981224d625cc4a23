"""Images of real functions: awslambdaric on Python, aws-lambda-ric on Node.js, a static bootstrap; made once."""

import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.images.layout import write_image
from tests.images.roots import CACHE, PYTHON, host_python_root, libraries, making, plain_member

INSTALL_TIMEOUT_S = 1200
BUILD_NODE_CLIENT = "STOKER_TEST_BUILD_NODE_CLIENT"
PYTHON_APP = """
import json, os, sys

def handler(event, context):
    print("from the image")
    if event.get("fail"):
        raise ValueError("as asked")
    return {
        "event": event,
        "remaining": context.get_remaining_time_in_millis() > 0,
        "id": context.aws_request_id,
        "folder": os.getcwd(),
        "from_image": os.environ.get("FROM_IMAGE"),
        "from_function": os.environ.get("FROM_FUNCTION"),
        "uid": os.getuid(),
        "python": sys.executable,
    }

def other(event, context):
    return "other"
"""
NODE_APP = """
exports.handler = async (event, context) => {
  if (event.fail) throw new Error('as asked');
  return { event, node: process.version, id: context.awsRequestId, folder: process.cwd() };
};
"""
BOOTSTRAP_C = r"""
#include <arpa/inet.h>
#include <netdb.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

static char answer[65536];

static int ask(const char *head, const char *body) {
    char api[256], *colon;
    snprintf(api, sizeof api, "%s", getenv("AWS_LAMBDA_RUNTIME_API"));
    colon = strchr(api, ':');
    *colon = 0;
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(atoi(colon + 1))};
    inet_pton(AF_INET, api, &to.sin_addr);
    int s = socket(AF_INET, SOCK_STREAM, 0);
    if (connect(s, (struct sockaddr *)&to, sizeof to) != 0) return -1;
    dprintf(s, "%s HTTP/1.1\r\nHost: %s\r\nConnection: close\r\nContent-Length: %zu\r\n\r\n%s", head, api,
            strlen(body), body);
    size_t got = 0;
    ssize_t n;
    while ((n = read(s, answer + got, sizeof answer - 1 - got)) > 0) got += n;
    answer[got] = 0;
    close(s);
    return 0;
}

int main(void) {
    for (;;) {
        if (ask("GET /2018-06-01/runtime/invocation/next", "") != 0) return 1;
        char id[64] = "", head[200], body[66000];
        char *found = strcasestr(answer, "lambda-runtime-aws-request-id:");
        if (!found) return 2;
        sscanf(found + 30, " %63[^\r]", id);
        char *event = strstr(answer, "\r\n\r\n") + 4;
        if (strcasestr(answer, "transfer-encoding: chunked")) {
            event = strstr(event, "\r\n") + 2;
            *strstr(event, "\r\n") = 0;
        }
        snprintf(head, sizeof head, "POST /2018-06-01/runtime/invocation/%s/response", id);
        snprintf(body, sizeof body, "{\"bootstrap\": \"C\", \"event\": %s}", event);
        ask(head, body);
    }
}
"""


def python_image(layout: Path, tag: str = "latest") -> str:
    """The host's Python, awslambdaric from its package, one module."""
    task = {"var/task/app.py": PYTHON_APP}
    config = {
        "Entrypoint": [str(PYTHON), "-m", "awslambdaric"],
        "Cmd": ["app.handler"],
        "WorkingDir": "/var/task",
        "Env": ["PATH=/usr/bin:/bin", "FROM_IMAGE=yes"],
    }
    return write_image(layout, [host_python_root(), _python_client(), task], config, tag=tag)


def node_image(layout: Path, tag: str = "latest") -> str:
    """The host's Node.js, aws-lambda-ric from its package, one module."""
    config = {
        "Entrypoint": ["/usr/bin/node", "/var/task/node_modules/aws-lambda-ric/bin/index.mjs"],
        "Cmd": ["app.handler"],
        "WorkingDir": "/var/task",
        "Env": ["PATH=/usr/bin:/bin", "HOME=/tmp"],
    }
    return write_image(layout, [_node_root(), _node_client(), {"var/task/app.js": NODE_APP}], config, tag=tag)


def bootstrap_image(layout: Path, tag: str = "latest") -> str:
    """Nothing but one static program."""
    if shutil.which("gcc") is None:
        pytest.skip("no gcc on this host (Debian: gcc)")

    def build(folder: Path) -> None:
        (folder / "bootstrap.c").write_text(BOOTSTRAP_C)
        (folder / "root" / "var" / "runtime").mkdir(parents=True)
        program = str(folder / "root" / "var" / "runtime" / "bootstrap")
        _run("gcc", "-D_GNU_SOURCE", "-O1", "-static", "-o", program, str(folder / "bootstrap.c"))

    layer = _built("bootstrap", [BOOTSTRAP_C], build)
    config = {"Entrypoint": ["/var/runtime/bootstrap"], "Cmd": ["function.handler"]}
    return write_image(layout, [layer], config, tag=tag)


def _python_client() -> Path:
    if sys.version_info[:2] != (3, 11):
        pytest.skip("the tests' Python is not the 3.11 of the image")

    def build(folder: Path) -> None:
        target = folder / "root" / "var" / "task"
        wheels = ("--only-binary", ":all:")
        _run(sys.executable, "-m", "pip", "install", "-q", *wheels, "--target", str(target), "awslambdaric")
        _add_libraries(folder / "root", list(target.glob("*.so")))

    return _built("awslambdaric", ["2"], build)


def _add_libraries(root: Path, programs: list[Path]) -> None:
    """The host's shared libraries that these programs need, where the loader finds them."""
    for file in libraries(programs):
        if not file.is_relative_to(root):
            copy = root / re.sub(r"^(lib64|lib)/", r"usr/\1/", str(file).lstrip("/"))
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(file.resolve(), copy)


def _node_client() -> Path:
    for tool, package in (
        ("npm", "npm"),
        ("cmake", "cmake"),
        ("autoreconf", "autoconf"),
        ("libtoolize", "libtool"),
    ):
        if shutil.which(tool) is None:
            pytest.skip(
                f"aws-lambda-ric is compiled with {tool}, which is not on this host (Debian: {package})"
            )

    def build(folder: Path) -> None:
        if not os.environ.get(BUILD_NODE_CLIENT):
            pytest.skip(f"aws-lambda-ric compiles for minutes: {BUILD_NODE_CLIENT}=1 has it done, once")
        task = folder / "root" / "var" / "task"
        task.mkdir(parents=True)
        _run("npm", "install", "--no-audit", "--no-fund", "--prefix", str(task), "aws-lambda-ric")
        # Its sources and objects are ten times what runs.
        for left in ("deps", "build/Release/obj.target"):
            shutil.rmtree(task / "node_modules" / "aws-lambda-ric" / left, ignore_errors=True)
        native = task / "node_modules" / "aws-lambda-ric"
        _add_libraries(folder / "root", list(native.rglob("*.node")))

    return _built("aws-lambda-ric", ["1"], build)


def _node_root() -> Path:
    node = Path("/usr/bin/node")
    if not node.exists():
        pytest.skip("no /usr/bin/node on this host (Debian: nodejs)")

    def build(folder: Path) -> None:
        root = folder / "root"
        (root / "usr" / "bin").mkdir(parents=True)
        shutil.copy(node.resolve(), root / "usr" / "bin" / "node")
        _add_libraries(root, [node])
        for link in ("lib", "lib64", "bin"):
            (root / "usr" / link).mkdir(exist_ok=True)
            (root / link).symlink_to(f"usr/{link}")
        (root / "tmp").mkdir(mode=0o1777)

    return _built("node", ["2", str(node.stat().st_mtime_ns)], build)


def _built(kind: str, parts: list[str], build: Callable[[Path], None]) -> Path:
    """The tar of the folder ``root`` that ``build`` fills, made once."""
    with making(kind, parts) as target:
        if target.exists():
            return target
        with tempfile.TemporaryDirectory(dir=CACHE) as scratch:
            build(Path(scratch))
            partial = target.with_suffix(".partial.tar")
            with tarfile.open(partial, "w", format=tarfile.PAX_FORMAT) as tar:
                tar.add(Path(scratch) / "root", ".", filter=plain_member)
            partial.rename(target)
    return target


def _run(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=INSTALL_TIMEOUT_S)
    if done.returncode:
        pytest.skip(f"{command[0]} could not make an image here: {done.stderr.strip()[-400:]}")
