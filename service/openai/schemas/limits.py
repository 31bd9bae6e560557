"""How large parts of a text request may be: refused here, before a template, tokenizer or grammar sees them."""

from collections.abc import Callable
from typing import Any, Final

import orjson
from pydantic_core import PydanticCustomError

MAX_TEXT_BYTES: Final = 1024 * 1024
MAX_TOKEN_ID: Final = 2**31 - 1
MAX_IDS: Final = 262_144
MAX_SCHEMA_BYTES: Final = 64 * 1024
MAX_SCHEMA_DEPTH: Final = 32
_CONTAINERS: Final = (dict, list)


def fits(value: Any) -> Any:
    """Refuse what no context can hold: strings of more than 1 MiB together, at any depth of lists."""
    if _bytes(value) > MAX_TEXT_BYTES:
        raise PydanticCustomError("context_length_exceeded", "the text is longer than 1 MiB")
    return value


def _bytes(value: Any) -> int:
    if isinstance(value, str):
        return len(value.encode())
    if isinstance(value, list) and value and isinstance(value[0], (str, list)):
        return sum(map(_bytes, value))
    return 0


def few(value: Any) -> Any:
    """The same for token ids, by how many there are: before each is looked at."""
    if isinstance(value, list) and _parts(value) > MAX_IDS:
        raise PydanticCustomError("context_length_exceeded", "more than {limit} parts", {"limit": MAX_IDS})
    return value


def _parts(value: list[Any]) -> int:
    if len(value) > MAX_IDS:
        return len(value)
    return max(len(value), sum(len(row) for row in value if isinstance(row, list)))


def short(value: Any) -> Any:
    """The same for whatever goes through a template, as it is written in JSON."""
    if len(orjson.dumps(value)) > MAX_TEXT_BYTES:
        raise PydanticCustomError("context_length_exceeded", "longer than 1 MiB")
    return value


def bounded(max_bytes: int, max_depth: int) -> Callable[[Any], Any]:
    """A check that JSON is at most this long, written out, and this many levels deep."""

    def check(value: Any) -> Any:
        if len(orjson.dumps(value)) > max_bytes:
            raise PydanticCustomError("too_large", "longer than {limit} bytes", {"limit": max_bytes})
        if depth(value) > max_depth:
            raise PydanticCustomError(
                "too_deep", "nested more than {limit} levels deep", {"limit": max_depth}
            )
        return value

    return check


def depth(value: Any) -> int:
    """Levels of objects and lists, level by level: no depth is too deep to look at."""
    levels = 0
    level = [value]
    while level:
        levels += 1
        below: list[Any] = []
        for part in level:
            parts = part.values() if isinstance(part, dict) else part if isinstance(part, list) else ()
            below += [inner for inner in parts if isinstance(inner, _CONTAINERS)]
        level = below
    return levels
