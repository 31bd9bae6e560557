"""A conversation as chat templates take it, and which tools the model may, must or must not call."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import orjson

from deployments.errors import BadRequest
from deployments.messages import Card, Chat, Grammar
from service.openai.forced import either, forced, held
from service.openai.generation import constraints
from service.openai.schemas.chat import ChatRequest
from service.openai.schemas.messages import Function, Message, NamedTool, Tool, ToolCall
from service.openai.tools import NOTATIONS, ToolParser


@dataclass(frozen=True, slots=True)
class ToolUse:
    """What a request says about tools: `parser` reads one choice's calls."""

    offered: tuple[Tool, ...] = ()
    form: str = ""
    parallel: bool = True
    grammar: Grammar | None = None

    def parser(self) -> ToolParser | None:
        """A reader for one choice; None where no call is expected."""
        if not self.offered:
            return None
        names = {tool.function.name for tool in self.offered}
        return ToolParser(NOTATIONS[self.form], names, parallel=self.parallel)


def tool_use(body: ChatRequest, card: Card) -> ToolUse:
    """Check what the request says about tools against itself and the model. Raises BadRequest."""
    if not body.tools:
        _check_without_tools(body)
        return ToolUse()
    form = form_of(card)
    functions = [tool.function for tool in body.tools]
    if len({function.name for function in functions}) < len(functions):
        raise BadRequest("Two tools have the same name.", param="tools")
    if body.tool_choice == "none":
        return ToolUse()
    grammar = _grammar(body, form, functions)
    return ToolUse(tuple(body.tools), form, body.parallel_tool_calls, grammar)


def form_of(card: Card) -> str:
    """How this model writes calls of tools. Raises BadRequest where its template has none."""
    form: str | None = card.limits.get("tools")
    if form is None:
        raise BadRequest(
            "The chat template of this model has no tools.", code="task_not_supported", param="tools"
        )
    return form


def _check_without_tools(body: ChatRequest) -> None:
    if body.tool_choice not in (None, "none", "auto"):
        raise BadRequest("'tool_choice' needs 'tools'.", param="tool_choice")
    if not body.parallel_tool_calls:
        raise BadRequest("'parallel_tool_calls' needs 'tools'.", param="parallel_tool_calls")


def _grammar(body: ChatRequest, form: str, functions: Sequence[Function]) -> Grammar | None:
    parallel = body.parallel_tool_calls
    _check_room(body, form)
    if isinstance(body.tool_choice, NamedTool):
        name = body.tool_choice.function.name
        named = [function for function in functions if function.name == name]
        if not named:
            raise BadRequest(f"There is no tool '{name}'.", param="tool_choice")
        return forced(form, named, parallel=False)
    if body.tool_choice == "required":
        return forced(form, functions, parallel=parallel)
    loose = [f if f.strict else f.model_copy(update={"parameters": None}) for f in functions]
    if constraints(body) and body.response_format:
        wanted = body.response_format.json_schema
        return either(form, loose, None if wanted is None else wanted.schema_, parallel=parallel)
    if not any(function.strict for function in functions):
        return None
    return held(form, loose, parallel=parallel)


def _check_room(body: ChatRequest, form: str) -> None:
    """An answer may have to be JSON where it is not a call, unless calls are JSON themselves."""
    given = constraints(body)
    free = body.tool_choice in (None, "auto") and given == ["response_format"] and form != "llama3"
    if given and not free:
        raise BadRequest(f"'{given[0]}' leaves no room for this model's calls of 'tools'.", param=given[0])


def chat_of(messages: Sequence[Message], tools: Sequence[Tool], variables: Mapping[str, Any]) -> Chat:
    """The message to the template. Raises BadRequest for a message that lacks a part or has one of another role's."""
    called: dict[str, str] = {}
    turns = []
    for number, message in enumerate(messages):
        place = f"messages[{number}]"
        _check(message, place)
        called.update((call.id, call.function.name) for call in message.tool_calls or ())
        turns.append(_turn(message, place, called))
    offered = tuple(tool.model_dump(exclude_none=True, exclude_unset=True) for tool in tools)
    return Chat(tuple(turns), offered, dict(variables))


def _check(message: Message, place: str) -> None:
    if message.tool_calls and message.role != "assistant":
        raise BadRequest("Only an assistant calls tools.", param=f"{place}.tool_calls")
    if message.content is None and not message.tool_calls:
        raise BadRequest(
            f"Missing required parameter: '{place}.content'.",
            code="missing_required_parameter",
            param=f"{place}.content",
        )
    if (message.tool_call_id is None) == (message.role == "tool"):
        raise BadRequest(
            "A message of a tool, and no other, has a 'tool_call_id'.", param=f"{place}.tool_call_id"
        )
    if message.reasoning_content is not None and message.role != "assistant":
        raise BadRequest("Only an assistant reasons.", param=f"{place}.reasoning_content")


def _turn(message: Message, place: str, called: Mapping[str, str]) -> dict[str, Any]:
    """One message in the words that templates know."""
    turn: dict[str, Any] = {
        "role": "system" if message.role == "developer" else message.role,
        "content": _content(message),
    }
    name = message.name or called.get(message.tool_call_id or "")
    given = {
        "name": name,
        "tool_call_id": message.tool_call_id,
        "reasoning_content": message.reasoning_content,
        "tool_calls": [
            _call(call, f"{place}.tool_calls[{number}]")
            for number, call in enumerate(message.tool_calls or ())
        ],
    }
    return turn | {key: value for key, value in given.items() if value}


def _content(message: Message) -> str | list[dict[str, str]]:
    """Text, or its pieces as they came: a template that reads no pieces is given them joined."""
    content = message.content or ""
    if isinstance(content, str):
        return content
    return [{"type": part.type, "text": part.text} for part in content]


def _call(call: ToolCall, place: str) -> dict[str, Any]:
    """A call with its arguments as an object: templates write them out themselves."""
    try:
        arguments = orjson.loads(call.function.arguments or "{}")
    except orjson.JSONDecodeError:
        arguments = None
    if not isinstance(arguments, dict):
        raise BadRequest("The arguments of a call are a JSON object.", param=f"{place}.function.arguments")
    return {
        "id": call.id,
        "type": "function",
        "function": {"name": call.function.name, "arguments": arguments},
    }
