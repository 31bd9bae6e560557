"""Seeds that the service draws where a request has none, so that every answer can be asked for again."""

import secrets


def draw_seed() -> int:
    """A seed below 2**32: short to copy, and exact in every JSON reader."""
    return secrets.randbits(32)
