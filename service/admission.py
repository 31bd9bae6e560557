"""What a request must satisfy before any work is done for it: type, size, pace and well-formed JSON.

Everything here is paid by every request, so the exact checks run only where a cheap one cannot rule the fault out.
"""

import asyncio
import json
import math
import re
from typing import Any, Final

import orjson

from deployments.errors import BadRequest, Cancelled
from service.call import Call
from service.errors import SlowBody, TooLarge, UnsupportedMedia
from service.settings import Settings

MAX_DEPTH: Final = 100
MAX_MEMBERS: Final = 4096
# A duplicate key is named only where looking for its name costs little.
NAMED_BYTES: Final = 65_536

_CONTAINERS: Final = (dict, list)
_STRING: Final = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"', re.DOTALL)
_SQUARE: Final = bytes.maketrans(b"{}", b"[]")
_NO_BRACKET: Final = bytes(set(range(256)) - set(b"[]{}"))


async def read_object(call: Call, settings: Settings) -> dict[str, Any]:
    """The request's JSON object. Raises BadRequest and the refusals of `service.errors`."""
    _check_headers(call, settings)
    return parse(await _read(call, settings))


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
    content_type = call.fields.get(b"content-type", b"")
    if content_type != b"application/json" and not _is_json(content_type):
        raise UnsupportedMedia("Send the body as JSON, with 'content-type: application/json'.")
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
    try:
        # Refuses NaN, numbers beyond a double, BOM, bad UTF-8 and half a surrogate pair by itself.
        value = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise BadRequest(f"The body is not valid JSON: {error}.", code="invalid_json") from None
    if not isinstance(value, dict):
        raise BadRequest("The body must be a JSON object.", code="invalid_type")
    _check_depth(body)
    _check_members(body, value)
    return value


def _check_depth(body: bytes) -> None:
    # Depth n needs n brackets: most bodies have too few to be examined.
    if _count(body, b"[") + _count(body, b"{") <= MAX_DEPTH:
        return
    brackets = _STRING.sub(b"", body).translate(_SQUARE, _NO_BRACKET)
    for _ in range(MAX_DEPTH):
        brackets = brackets.replace(b"[]", b"")  # peels one level
        if not brackets:
            return
    raise BadRequest(f"The body is nested more than {MAX_DEPTH} levels deep.", code="invalid_json")


def _check_members(body: bytes, value: dict[str, Any]) -> None:
    """Every member of an object has a colon of its own; a parser keeps one member of a key that is given twice.

    Colons inside strings only add to the count, so that equal numbers prove that nothing was lost. Where they
    differ, the colons are counted again without the strings.
    """
    colons = _count(body, b":")
    if colons == _members(value, thorough=False) <= MAX_MEMBERS:
        return
    colons = _STRING.sub(b"", body).count(b":")
    if colons > MAX_MEMBERS:
        raise BadRequest(f"The body has more than {MAX_MEMBERS} members.", code="invalid_json")
    if colons != _members(value, thorough=True):
        key = _duplicate(body) if len(body) <= NAMED_BYTES else None
        raise BadRequest(
            f"The key {key!r} is given twice." if key else "A key is given twice.",
            code="duplicate_key",
            param=key,
        )


def _members(value: Any, *, thorough: bool) -> int:
    """Members of all objects inside. Unless thorough, a list is judged by its first element: long lists hold numbers."""
    total = 0
    waiting = [value]
    while waiting:
        part = waiting.pop()
        if isinstance(part, dict):
            total += len(part)
            waiting += [inner for inner in part.values() if isinstance(inner, _CONTAINERS)]
        elif thorough or (part and isinstance(part[0], _CONTAINERS)):
            waiting += [inner for inner in part if isinstance(inner, _CONTAINERS)]
    return total


def _duplicate(body: bytes) -> str | None:
    """The first key that an object of this body gives twice."""
    found: list[str] = []

    def pairs(members: list[tuple[str, Any]]) -> None:
        keys = [key for key, _ in members]
        found.extend(key for place, key in enumerate(keys) if key in keys[:place])

    json.loads(body, object_pairs_hook=pairs)
    return found[0] if found else None


def _count(body: bytes, mark: bytes) -> int:
    """`body.count(mark)`, faster where there are few: `find` skips by the word, `count` goes byte by byte."""
    total = 0
    place = body.find(mark)
    while place >= 0:
        total += 1
        if total > MAX_DEPTH:
            return body.count(mark)
        place = body.find(mark, place + 1)
    return total
