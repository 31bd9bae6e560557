r"""Calls of tools in a model's text, found as the text comes. Knows no wire format and no model.

Three ways of writing them, by what a model was trained on:
hermes   text <tool_call>\n{"name": ..., "arguments": {...}}\n</tool_call>, once for each call
llama3   nothing but {"name": ..., "parameters": {...}}; several with `;` between them
mistral  text [TOOL_CALLS][{"name": ..., "arguments": {...}}, ...]
"""

import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, Final


@dataclass(frozen=True, slots=True)
class Notation:
    """How a format writes calls."""

    begin: str
    end: str  # "": the end of the text
    bare: str | None  # what a text without the marker begins with, if it is all calls
    arguments: tuple[str, ...]  # names of the arguments' member, the usual one first


NOTATIONS: Final[Mapping[str, Notation]] = {
    "hermes": Notation("<tool_call>", "</tool_call>", None, ("arguments", "parameters")),
    "llama3": Notation("<|python_tag|>", "", "{", ("parameters", "arguments")),
    # The marker is a control token, which is not always part of the text.
    "mistral": Notation("[TOOL_CALLS]", "", "[", ("arguments", "parameters")),
}


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A function's name, and its arguments as a JSON object."""

    name: str
    arguments: str


@dataclass(frozen=True, slots=True)
class Said:
    """What can be told by now: text for the reader, then calls."""

    text: str = ""
    calls: tuple[ToolCall, ...] = ()


class ToolParser:
    """Reads one text piece by piece. What is told does not depend on where the pieces end.

    A call is told when it is complete. What looks like one and is none (broken JSON, a function that was not offered)
    is text. White space around calls is theirs.
    """

    def __init__(self, notation: Notation, names: Collection[str], *, parallel: bool = True) -> None:
        self._notation = notation
        self._names = names
        self._most = 1 << 30 if parallel else 1
        self._held = ""  # not told yet; where `inside`, from a marker on
        self._gap = ""  # white space before that marker
        self._inside = False
        self._looked = 0  # where in `held` to look for an end
        self._begun = False  # there was text, or a call
        self.called = 0

    def feed(self, piece: str) -> Said:
        """Read on."""
        self._held += piece
        texts: list[str] = []
        calls: list[ToolCall] = []
        while True:
            if not self._inside:
                texts.append(self._before())
            if not self._inside or not self._notation.end:
                break
            found = self._closed()
            if found is None:
                break
            said = self._judge(*found)
            # Text behind a call that was told in the same piece follows it all the same: nobody sees the order.
            texts.append(said.text)
            calls += said.calls
        return Said("".join(texts), tuple(calls))

    def finish(self) -> Said:
        """Tell what is left: the text has ended."""
        if self._inside:
            return self._judge(self._held, "")
        left, self._held = self._held, ""
        return Said("" if self.called and not left.strip() else left)

    def _before(self) -> str:
        """Text that belongs to no call for certain; stops at the beginning of what may be one."""
        held = self._held
        start = self._start()
        if start is None:
            end = len(held) - self._tail()
            self._held = held[end:]
        else:
            end = len(held[:start].rstrip())
            self._gap, self._held = held[end:start], held[start:]
            self._inside, self._looked = True, 0
        self._begun = self._begun or end > 0
        return held[:end]

    def _start(self) -> int | None:
        bare = self._notation.bare
        space = len(self._held) - len(self._held.lstrip())
        if bare is not None and not self._begun and self._held.startswith(bare, space):
            return space
        found = self._held.find(self._notation.begin)
        return None if found < 0 else found

    def _tail(self) -> int:
        """How much of the end may still become a marker, with the white space before it."""
        held, begin = self._held, self._notation.begin
        part = next((k for k in range(len(begin) - 1, 0, -1) if held.endswith(begin[:k])), 0)
        body = held[: len(held) - part]
        return part + len(body) - len(body.rstrip())

    def _closed(self) -> tuple[str, str] | None:
        """What is held, up to its end marker, and the rest; None until there is one."""
        end = self._notation.end
        while (place := self._held.find(end, self._looked)) >= 0:
            self._looked = place + len(end)
            if not _open_string(self._held[len(self._notation.begin) : place]):
                return self._held[: self._looked], self._held[self._looked :]
        self._looked = max(0, len(self._held) - len(end) + 1)
        return None

    def _judge(self, raw: str, rest: str) -> Said:
        """Tell what was held, as calls or as text, and go on with the rest."""
        self._inside, self._held, self._begun = False, rest, True
        body = raw.removeprefix(self._notation.begin).removesuffix(self._notation.end)
        calls, left = self._read(body)
        if not calls or (self._notation.end and left.strip()):
            return Said(self._gap + raw)
        kept = calls[: self._most - self.called]
        self.called += len(kept)
        return Said(left if left.strip() else "", tuple(kept))

    def _read(self, body: str) -> tuple[list[ToolCall], str]:
        """Calls that a text begins with, and what follows them."""
        calls: list[ToolCall] = []
        left = body
        while True:
            value, after = _value(left.lstrip("; \t\r\n") if calls else left.lstrip())
            found = self._calls(value if isinstance(value, list) else [value])
            if not found:
                return calls, left
            calls += found
            left = after

    def _calls(self, values: list[Any]) -> list[ToolCall]:
        """These values as calls: all of them, or none."""
        calls = [call for value in values if (call := self._call(value))]
        return calls if len(calls) == len(values) else []

    def _call(self, value: Any) -> ToolCall | None:
        name = value.get("name") if isinstance(value, dict) else None
        if not isinstance(name, str) or name not in self._names:
            return None
        given = [value[key] for key in self._notation.arguments if key in value]
        arguments: Any = given[0] if given else {}
        return ToolCall(name, _written(arguments)) if isinstance(arguments, dict) else None


def _value(text: str) -> tuple[Any, str]:
    """The JSON value that a text begins with, None if there is none; and what follows it."""
    try:
        value, end = _DECODER.raw_decode(text)
    except (ValueError, RecursionError):
        return None, text
    return value, text[end:]


def _no_constant(name: str) -> Any:
    raise ValueError(name)  # NaN and Infinity are no JSON


_DECODER: Final = json.JSONDecoder(parse_constant=_no_constant)


def _open_string(text: str) -> bool:
    """Whether a JSON text ends inside a string."""
    inside = escaped = False
    for letter in text:
        if escaped:
            escaped = False
        elif letter == "\\":
            escaped = inside
        elif letter == '"':
            inside = not inside
    return inside


def _written(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    # Half a surrogate pair can be written as an escape only.
    return text if _encodable(text) else json.dumps(value)


def _encodable(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
