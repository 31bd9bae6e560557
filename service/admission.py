"""What a request must satisfy before any work is done for it: type, size, pace and a well-formed body.

Everything here is paid by every request, so the exact checks run only where a cheap one cannot rule the fault out.
"""

import asyncio
import json
import math
import re
from typing import Any, Final

import numpy as np
import orjson

from deployments.errors import BadRequest, Cancelled
from service.call import Call
from service.errors import SlowBody, TooLarge, UnsupportedMedia
from service.multipart import parse_form
from service.settings import Settings

MAX_DEPTH: Final = 100
MAX_MEMBERS: Final = 4096
MAX_CONTAINERS: Final = 1 << 18
# A duplicate key is named only where looking for its name costs little.
NAMED_BYTES: Final = 65_536

# Looking for so many marks takes as long as counting them all.
_RARE: Final = 128
_CONTAINERS: Final = (dict, list)
_STRING: Final = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"', re.DOTALL)


async def read_body(call: Call, settings: Settings) -> bytes:
    """The body of a request that says it is JSON. Raises BadRequest and the refusals of `service.errors`."""
    content_type = call.fields.get(b"content-type", b"")
    if content_type != b"application/json" and not _is_json(content_type):
        raise UnsupportedMedia("Send the body as JSON, with 'content-type: application/json'.")
    _check_headers(call, settings)
    return await _read(call, settings)


async def read_form(call: Call, settings: Settings) -> dict[str, Any]:
    """The fields of a request's form, under the same limits. Raises BadRequest and the refusals of `service.errors`."""
    _check_headers(call, settings)
    return parse_form(await _read(call, settings), call.fields[b"content-type"])


def time_limit(call: Call, timeout_seconds: float | None, settings: Settings) -> float:
    """Seconds this request may still take. A client can only shorten the service's own limit. Raises BadRequest."""
    limit = settings.request_timeout_seconds
    if timeout_seconds is not None:
        limit = min(limit, timeout_seconds)
    header = call.fields.get(b"x-request-timeout")
    if header is not None:
        limit = min(limit, _seconds(header))
    return limit - call.elapsed()


def _seconds(header: bytes) -> float:
    try:
        seconds = float(header)
    except ValueError:
        seconds = math.nan
    if not 0 < seconds < math.inf:
        raise BadRequest(
            "'x-request-timeout' must be a number of seconds above 0.", param="x-request-timeout"
        )
    return seconds


def _check_headers(call: Call, settings: Settings) -> None:
    encoding = call.fields.get(b"content-encoding", b"identity")
    if encoding.lower() != b"identity":
        raise UnsupportedMedia("Send the body without a content encoding.")
    length = call.fields.get(b"content-length")
    if length is not None:
        if not length.isdigit():
            raise BadRequest("The content-length is not a number.", code="invalid_content_length")
        # Digits alone can be long enough to refuse without counting them.
        if len(length) > 15 or int(length) > settings.max_body_bytes:
            raise _too_large(settings)


def _is_json(content_type: bytes) -> bool:
    kind, _, parameters = content_type.lower().partition(b";")
    charset = parameters.replace(b" ", b"").replace(b'"', b"")
    return kind.strip() == b"application/json" and charset in (b"", b"charset=utf-8")


def _too_large(settings: Settings) -> TooLarge:
    return TooLarge(f"The body is larger than {settings.max_body_bytes} bytes.")


async def _read(call: Call, settings: Settings) -> bytes:
    message = await call.receive()
    if message["type"] == "http.request" and not message.get("more_body", False):
        body: bytes = message.get("body", b"")
        if len(body) > settings.max_body_bytes:
            raise _too_large(settings)
        return body
    try:
        async with asyncio.timeout(settings.body_timeout_seconds):
            return await _read_on(call, message, settings)
    except TimeoutError:
        raise SlowBody("The body did not arrive in time.") from None


async def _read_on(call: Call, message: Any, settings: Settings) -> bytes:
    pieces: list[bytes] = []
    size = 0
    while message["type"] == "http.request":
        piece: bytes = message.get("body", b"")
        size += len(piece)
        pieces.append(piece)
        if size > settings.max_body_bytes:
            raise _too_large(settings)
        if len(pieces) > settings.max_body_messages:
            raise SlowBody("The body arrived in too many pieces.")
        if not message.get("more_body", False):
            return b"".join(pieces)
        message = await call.receive()
    raise Cancelled("The client left while it sent the body.")


def parse(body: bytes) -> dict[str, Any]:
    """A JSON object without duplicate keys, at most 100 deep, numbers finite, UTF-8 without BOM or lone surrogates.

    Raises BadRequest.
    """
    colons, brackets = marks(body)
    try:
        # Refuses NaN, numbers beyond a double, BOM, bad UTF-8 and half a surrogate pair by itself.
        value = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise BadRequest(f"The body is not valid JSON: {error}.", code="invalid_json") from None
    if not isinstance(value, dict):
        raise BadRequest("The body must be a JSON object.", code="invalid_type")
    members, containers, depth = _measure(value, thorough=False)
    if (members, containers) != (colons, brackets):
        members, containers, depth = _measure(value, thorough=True)
        if members != colons and members != _bare(body).count(b":"):
            raise _given_twice(body)
    if depth > MAX_DEPTH:
        raise BadRequest(f"The body is nested more than {MAX_DEPTH} levels deep.", code="invalid_json")
    return value


def marks(body: bytes) -> tuple[int, int]:
    """How many colons and opening brackets there are, in strings as well. Raises BadRequest for too many outside.

    Every member of an object has a colon of its own in the text, and every object and list a bracket; a parser keeps
    one member of a key that is given twice. So where these counts equal what a quick look at the parsed value finds,
    the quick look saw everything, and nothing was given twice. Parsing many small parts is slow: they are counted first.
    """
    colons, brackets = _count(body, b":"), _count(body, b"[") + _count(body, b"{")
    if colons > MAX_MEMBERS or brackets > MAX_CONTAINERS:
        bare = _bare(body)
        if bare.count(b":") > MAX_MEMBERS or bare.count(b"[") + bare.count(b"{") > MAX_CONTAINERS:
            raise BadRequest("The body has too many parts.", code="invalid_json")
    return colons, brackets


def _bare(body: bytes) -> bytes:
    """The body without its strings."""
    return _STRING.sub(b"", body)


def _measure(value: Any, *, thorough: bool) -> tuple[int, int, int]:
    """Members of all objects; objects and lists; levels. Level by level, so that no depth is too deep to look at.

    Unless thorough, a list is judged by its first element: long lists hold numbers.
    """
    members = containers = depth = 0
    level = [value]
    while level:
        depth += 1
        containers += len(level)
        below: list[Any] = []
        for part in level:
            if isinstance(part, dict):
                members += len(part)
                below += [inner for inner in part.values() if isinstance(inner, _CONTAINERS)]
            elif thorough or (part and isinstance(part[0], _CONTAINERS)):
                below += [inner for inner in part if isinstance(inner, _CONTAINERS)]
        level = below
    return members, containers, depth


def _given_twice(body: bytes) -> BadRequest:
    key = _duplicate(body) if len(body) <= NAMED_BYTES else None
    message = "A key is given twice." if key is None else f"The key '{key}' is given twice."
    return BadRequest(message, code="duplicate_key", param=key)


def _duplicate(body: bytes) -> str | None:
    """The first key that an object of this body gives twice."""
    found: list[str] = []

    def pairs(members: list[tuple[str, Any]]) -> None:
        keys = [key for key, _ in members]
        found.extend(key for place, key in enumerate(keys) if key in keys[:place])

    json.loads(body, object_pairs_hook=pairs)
    return found[0] if found else None


def _count(body: bytes, mark: bytes) -> int:
    """`body.count(mark)`, faster where marks are rare, by the word, and where bodies are large, by the vector."""
    total, place = 0, body.find(mark)
    while place >= 0:
        total += 1
        if total > _RARE:
            return int(np.count_nonzero(np.frombuffer(body, np.uint8) == ord(mark)))
        place = body.find(mark, place + 1)
    return total
