"""ministack, an emulator of AWS services that runs Lambda functions as child processes when there is no Docker. It
does not check signatures and does not isolate.
"""

import os

import boto3
from botocore.config import Config

from bench.functions import PYTHON_ECHO, signed
from bench.peers.process import Peer
from tests.running import PYTHON_RUNTIME, REGION, ROLE, python_zip


class Ministack(Peer):
    """The Lambda API."""

    name = "ministack"

    def install(self) -> None:
        self._programs = self.pip("ministack==1.*")

    def start(self) -> None:
        state = self.folder / "state"
        state.mkdir(exist_ok=True)
        settings = {"GATEWAY_PORT": str(self.port), "MINISTACK_HOST": "127.0.0.1", "LAMBDA_EXECUTOR": "local"}
        path = f"{self._programs}{os.pathsep}{os.environ['PATH']}"
        self.run([self._programs / "ministack"], {**settings, "HOME": str(state), "PATH": path})
        endpoint = f"http://127.0.0.1:{self.port}"
        service = boto3.client(
            "lambda",
            endpoint_url=endpoint,
            region_name=REGION,
            aws_access_key_id="test",
            aws_secret_access_key="test",
            config=Config(retries={"max_attempts": 0}),
        )
        service.create_function(
            FunctionName="echo",
            Role=ROLE,
            Code={"ZipFile": python_zip(PYTHON_ECHO)},
            Runtime=PYTHON_RUNTIME,
            Handler="lambda_function.lambda_handler",
            Timeout=30,
        )
        service.get_waiter("function_active_v2").wait(FunctionName="echo")
        self.url, self.headers = signed(endpoint, "echo")
