"""Our edge in every process of Ray Serve that listens: replicas, and the proxy that HAProxy falls back to.

Imports nothing that a proxy has no use for.
"""

from ray.serve._private import http_util
from starlette.middleware import Middleware

from service.edge import Edge


def edge_first() -> list[Middleware]:
    """Ray Serve's hook, called before it listens. Our edge takes the place of Ray's request-id middleware."""
    http_util.RequestIdMiddleware = Edge  # type: ignore[assignment,misc]
    return []
