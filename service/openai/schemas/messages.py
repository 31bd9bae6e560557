"""A conversation, its tools and what else a chat template takes, on the wire."""

from typing import Annotated, Any, Final, Literal

from pydantic import AfterValidator, BeforeValidator, Discriminator, Field, StringConstraints, Tag
from pydantic_core import PydanticCustomError

from service.openai.schemas.fields import Neutral, Nullable
from service.openai.schemas.limits import bounded, short
from service.openai.schemas.sampling import Schema

MAX_MESSAGES: Final = 256
MAX_TOOLS: Final = 128
# What a template is told by whoever renders it, never by the client.
RESERVED: Final = frozenset(
    {"messages", "tools", "documents", "bos_token", "eos_token", "add_generation_prompt"}
)

FunctionName = Annotated[str, StringConstraints(pattern=r"^[a-zA-Z0-9_.-]{1,64}$")]
CallId = Annotated[str, StringConstraints(min_length=1, max_length=128)]


class TextPart(Nullable):
    """A piece of a message's text."""

    type: Literal["text"]
    text: str


class FunctionCall(Nullable):
    """What a tool was called with."""

    name: FunctionName
    arguments: Annotated[str, Field(description="A JSON object, as text.")]


class ToolCall(Nullable):
    """One call that a model made."""

    id: CallId
    type: Literal["function"] = "function"
    function: FunctionCall


Parts = Annotated[list[TextPart], Field(min_length=1, max_length=MAX_MESSAGES, fail_fast=True)]
Content = Annotated[
    Annotated[str, Tag("<text>")] | Annotated[Parts, Tag("<parts>")],
    Discriminator(lambda value: "<parts>" if isinstance(value, list) else "<text>"),
]


class Message(Nullable):
    """One turn of a conversation."""

    role: Annotated[
        Literal["system", "developer", "user", "assistant", "tool"],
        Field(description="`developer` is another word for `system`."),
    ]
    content: Annotated[Content | None, Field(description="May be left out where there are `tool_calls`.")] = (
        None
    )
    name: Annotated[str | None, StringConstraints(min_length=1, max_length=64)] = None
    tool_calls: Annotated[
        list[ToolCall] | None, Field(min_length=1, max_length=MAX_TOOLS, description="Of an `assistant`.")
    ] = None
    tool_call_id: Annotated[CallId | None, Field(description="Of a `tool`: which call this answers.")] = None
    reasoning_content: Annotated[
        str | None, Field(description="Of an `assistant`, for templates that use it.")
    ] = None
    # In the messages that OpenAI's client gives back.
    refusal: Annotated[Any, Neutral(())] = None
    annotations: Annotated[Any, Neutral(([],))] = None
    audio: Annotated[Any, Neutral(())] = None
    function_call: Annotated[Any, Neutral(())] = None


class Function(Nullable):
    """A function that the model may call."""

    name: FunctionName
    description: Annotated[str | None, StringConstraints(max_length=16_384)] = None
    parameters: Annotated[Schema | None, Field(description="JSON schema of the arguments.")] = None
    strict: Annotated[bool, Field(description="Arguments always fit the schema.")] = False


class Tool(Nullable):
    """Something that the model may call."""

    type: Literal["function"]
    function: Function


class NamedFunction(Nullable):
    """A function by name."""

    name: FunctionName


class NamedTool(Nullable):
    """The one tool that the model must call."""

    type: Literal["function"]
    function: NamedFunction


Messages = Annotated[
    list[Message],
    Field(min_length=1, max_length=MAX_MESSAGES, fail_fast=True, description="The conversation so far."),
    BeforeValidator(short),
]
Tools = Annotated[
    list[Tool],
    Field(
        max_length=MAX_TOOLS,
        fail_fast=True,
        default_factory=list,
        description="Functions that the model may call, where its template has tools.",
    ),
    BeforeValidator(short),
]
ToolChoice = Annotated[
    Annotated[Literal["none", "auto", "required"], Tag("<word>")] | Annotated[NamedTool, Tag("<tool>")],
    Discriminator(lambda value: "<word>" if isinstance(value, str) else "<tool>"),
    Field(description="`auto`: as the model likes; `required`: at least one call; or one function by name."),
]


def _free(variables: dict[str, Any]) -> dict[str, Any]:
    taken = sorted(RESERVED & variables.keys())
    if taken:
        raise PydanticCustomError(
            "invalid_value", "'{name}' is not for the client to say", {"name": taken[0]}
        )
    return variables


Variables = Annotated[
    dict[Annotated[str, StringConstraints(pattern=r"^[a-zA-Z_][a-zA-Z0-9_]{0,63}$")], Any],
    Field(
        max_length=16,
        default_factory=dict,
        description="What else the chat template takes, `enable_thinking` for example.",
    ),
    AfterValidator(_free),
    AfterValidator(bounded(16_384, 8)),
]
