"""Where a load test ran: what a reader needs to compare two reports."""

import os
import platform
from importlib.metadata import version
from typing import Any


def describe() -> dict[str, Any]:
    """Machine and versions of the load generator, not of the server."""
    return {
        "atelier": version("atelier"),
        "aiohttp": version("aiohttp"),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "machine": platform.machine(),
        "cpus": os.cpu_count(),
        "load_average": list(os.getloadavg()) if hasattr(os, "getloadavg") else None,
    }
