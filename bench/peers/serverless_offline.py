"""serverless-offline's Lambda endpoint with a Python handler: one child process behind a Node server, no isolation,
no signature. Version 13, because the Serverless Framework 4 wants an account.
"""

from bench.peers.process import Peer, free_port
from tests.running import PYTHON_RUNTIME

SERVICE = """
service: peer
frameworkVersion: "3"
provider: {name: aws, runtime: %s}
functions: {echo: {handler: handler.echo}}
plugins: [serverless-offline]
"""
HANDLER = "def echo(event, context):\n    return event\n"
SILENT = {"SLS_TELEMETRY_DISABLED": "1", "SLS_TRACKING_DISABLED": "1", "SLS_NOTIFICATIONS_MODE": "off"}


class ServerlessOffline(Peer):
    """The endpoint that the AWS SDK's Invoke speaks to."""

    name = "serverless-offline"

    def install(self) -> None:
        self._programs = self.npm("serverless-offline@13", "serverless@3")

    def start(self) -> None:
        (self.folder / "serverless.yml").write_text(SERVICE % PYTHON_RUNTIME)
        (self.folder / "handler.py").write_text(HANDLER)
        self.url = f"http://127.0.0.1:{self.port}/2015-03-31/functions/peer-dev-echo/invocations"
        ports = ["--lambdaPort", str(self.port), "--httpPort", str(free_port()), "--host", "127.0.0.1"]
        self.run([self._programs / "serverless", "offline", *ports, "--noTimeout"], SILENT)
