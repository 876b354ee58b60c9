"""The real tritonserver on this machine, without Docker or a GPU."""

from embedded_triton.server import EmbeddedServer, ServerSettings

__all__ = ["EmbeddedServer", "ServerSettings"]
