"""Google's functions-framework for Python in its production form: gunicorn, one worker with threads. A handler in
the server's own process: no isolation, no signature, no time limit.
"""

from bench.peers.process import Peer

SOURCE = """
import functions_framework

@functions_framework.http
def echo(request):
    return request.get_json()
"""


class FunctionsFramework(Peer):
    """POST / runs the handler."""

    name = "functions-framework"

    def install(self) -> None:
        self._programs = self.pip("functions-framework==3.*")

    def start(self) -> None:
        (self.folder / "main.py").write_text(SOURCE)
        self.run(
            [
                self._programs / "functions-framework",
                "--target",
                "echo",
                "--host",
                "127.0.0.1",
                "--port",
                str(self.port),
            ]
        )
