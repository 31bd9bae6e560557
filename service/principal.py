"""Who asks: a short digest of the API key, so that keys can be told apart without being kept. Enforces nothing."""

from collections.abc import Mapping
from hashlib import sha256
from typing import Final

DIGITS: Final = 16
_BEARER: Final = b"bearer "


def principal_of(fields: Mapping[bytes, bytes]) -> str:
    """Hexadecimal digits of the key's SHA-256, "" without a key. `fields` are headers, names in lower case."""
    authorization = fields.get(b"authorization", b"")
    key = b""
    if authorization[: len(_BEARER)].lower() == _BEARER:
        key = authorization[len(_BEARER) :].strip()
    key = key or fields.get(b"api-key", b"").strip()
    return sha256(key).hexdigest()[:DIGITS] if key else ""
