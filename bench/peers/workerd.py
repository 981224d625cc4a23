"""Cloudflare's workerd: JavaScript isolates in one process, no Lambda API, no signature."""

from bench.peers.process import Peer

SOURCE = """
export default {
  async fetch(request) {
    return Response.json(await request.json());
  },
};
"""
CONFIGURATION = """
using Workerd = import "/workerd/workerd.capnp";
const config :Workerd.Config = (
  services = [(name = "echo", worker = .echo)],
  sockets = [(name = "http", address = "127.0.0.1:%d", http = (), service = "echo")],
);
const echo :Workerd.Worker = (
  modules = [(name = "echo", esModule = embed "echo.js")],
  compatibilityDate = "2025-01-01",
);
"""


class Workerd(Peer):
    """POST / runs the worker."""

    name = "workerd"

    def install(self) -> None:
        self._programs = self.npm("workerd")

    def start(self) -> None:
        (self.folder / "echo.js").write_text(SOURCE)
        (self.folder / "config.capnp").write_text(CONFIGURATION % self.port)
        self.run([self._programs / "workerd", "serve", "config.capnp"])
