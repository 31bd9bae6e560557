"""Grammars for tool calls, in Lark's notation: to force calls, or to hold those that a model makes to their schemas."""

import json
from collections.abc import Sequence
from typing import Any, Final

from deployments.messages import Grammar
from service.openai.schemas.messages import Function

_ANYTHING: Final[dict[str, Any]] = {"type": "object"}
# As templates write JSON; and white space without end is no way out of an object.
_WRITTEN: Final = {"whitespace_flexible": False, "item_separator": ", ", "key_separator": ": "}
# Any text that is not taken for calls though nothing marks them.
_NOT_BARE: Final = {
    "llama3": r"/([ \t\r\n]*[^{ \t\r\n](.|\n)*)?/",
    "mistral": r"/([ \t\r\n]*[^\[ \t\r\n](.|\n)*)?/",
}


def forced(form: str, functions: Sequence[Function], *, parallel: bool) -> Grammar:
    """Nothing but calls of these functions, at least one; only one unless `parallel`."""
    return _grammar([*_calls(form, functions, parallel=parallel), "start: calls"])


def held(form: str, functions: Sequence[Function], *, parallel: bool) -> Grammar:
    """Any text, in which the calls fit the schemas of these functions."""
    if form != "hermes":
        rules = _calls(form, functions, parallel=parallel)
        return _grammar([*rules, "start: calls | TEXT", f"TEXT: {_NOT_BARE[form]}"])
    rules = [
        f"start: marked{'*' if parallel else '?'} rest",
        r"rest: TEXT",
        r"TEXT: /(.|\n)*/",
        'begin[lazy]: TEXT "<tool_call>"',
        'marked: begin "\\n" body "\\n</tool_call>"',
    ]
    return _grammar([*rules, *_bodies(form, functions)])


def either(
    form: str, functions: Sequence[Function], schema: dict[str, Any] | None, *, parallel: bool
) -> Grammar:
    """Calls of these functions, or an answer that fits the schema (None: any JSON object). Not for `llama3`.

    Its calls and a JSON object begin alike, which llguidance's lexer, looking for the longest word, cannot tell apart.
    """
    rules = _calls(form, functions, parallel=parallel)
    return _grammar([*rules, "start: calls | answer", f"answer: {_json(schema)}"])


def _grammar(rules: Sequence[str]) -> Grammar:
    return Grammar("lark", "\n".join(rules))


def _calls(form: str, functions: Sequence[Function], *, parallel: bool) -> list[str]:
    rules = _bodies(form, functions)
    match form:
        case "hermes":
            more = ' ("\\n" marked)*' if parallel else ""
            return [*rules, f"calls: marked{more}", 'marked: "<tool_call>\\n" body "\\n</tool_call>"']
        case "mistral":
            more = ' (", " body)*' if parallel else ""
            return [*rules, f'calls: "[" body{more} "]"']
    return [*rules, "calls: body"]


def _bodies(form: str, functions: Sequence[Function]) -> list[str]:
    """One rule for each function: as JSON, written the way templates write it.

    The arguments' schema stands alone, so that references in it keep their meaning.
    """
    member = "parameters" if form == "llama3" else "arguments"
    rules = ["body: " + " | ".join(f"body_{place}" for place in range(len(functions)))]
    for place, function in enumerate(functions):
        start = f'{{"name": {json.dumps(function.name)}, "{member}": '
        rules += [
            f'body_{place}: {json.dumps(start)} arguments_{place} "}}"',
            f"arguments_{place}: {_json(function.parameters)}",
        ]
    return rules


def _json(schema: dict[str, Any] | None) -> str:
    return f"%json {json.dumps({**(schema or _ANYTHING), 'x-guidance': _WRITTEN})}"
