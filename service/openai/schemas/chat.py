"""`/v1/chat/completions` on the wire."""

from typing import Annotated, Any, Literal

from pydantic import Field

from service.openai.schemas.fields import Neutral, Wire, example
from service.openai.schemas.limits import MAX_TOKEN_ID
from service.openai.schemas.messages import FunctionCall, Messages, ToolChoice, Tools, Variables
from service.openai.schemas.sampling import MAX_ALTERNATIVES, Sampling
from service.openai.schemas.text import TextUsage


class ChatRequest(Sampling):
    """Answer a conversation, `n` times."""

    model_config = example(
        model="tldr-gpt", messages=[{"role": "user", "content": "show disk usage"}], max_tokens=64, seed=1
    )

    messages: Messages
    max_tokens: Annotated[
        int | None, Field(ge=1, le=MAX_TOKEN_ID, description="An older word for `max_completion_tokens`.")
    ] = None
    max_completion_tokens: Annotated[
        int | None,
        Field(
            ge=1, le=MAX_TOKEN_ID, description="Most tokens of each choice. Absent: what the context holds."
        ),
    ] = None
    logprobs: Annotated[bool, Field(description="Log-probabilities of the tokens.")] = False
    top_logprobs: Annotated[
        int | None, Field(ge=0, le=MAX_ALTERNATIVES, description="And of this many alternatives.")
    ] = None
    tools: Tools
    tool_choice: Annotated[ToolChoice | None, Field(description="Absent: `auto`.")] = None
    parallel_tool_calls: Annotated[bool, Field(description="Whether a choice may have several calls.")] = True
    chat_template_kwargs: Variables
    reasoning_effort: Annotated[
        Literal["none", "minimal", "low", "medium", "high", "xhigh"] | None,
        Field(description="For templates that take it."),
    ] = None
    # OpenAI's, not here.
    echo: Annotated[Any, Neutral((False,))] = None
    functions: Annotated[Any, Neutral(([],))] = None
    function_call: Annotated[Any, Neutral(("none",))] = None
    modalities: Annotated[Any, Neutral((["text"],))] = None
    audio: Annotated[Any, Neutral(())] = None
    prediction: Annotated[Any, Neutral(())] = None
    verbosity: Annotated[Any, Neutral(("medium",))] = None
    web_search_options: Annotated[Any, Neutral(())] = None
    prompt_cache_retention: Annotated[Any, Neutral(("in_memory",))] = None
    prompt_cache_options: Annotated[Any, Neutral(({},))] = None


class TokenEntry(Wire):
    """A token; where it is part of a character, `token` lists its bytes."""

    token: str
    logprob: float
    bytes: list[int]


class ChosenToken(TokenEntry):
    """The token that was taken, and the most probable ones at its place."""

    top_logprobs: list[TokenEntry]


class ChatLogprobs(Wire):
    """One entry a token, in nats."""

    content: list[ChosenToken]
    refusal: None


class AnsweredCall(Wire):
    """A call that the model makes. The caller runs it and answers with a message of the role `tool`."""

    id: str
    type: Literal["function"]
    function: FunctionCall


class AssistantMessage(Wire):
    """The model's turn."""

    role: Literal["assistant"]
    content: str | None
    refusal: None
    tool_calls: list[AnsweredCall] | None = None


class ChatChoice(Wire):
    """One answer."""

    index: int
    message: AssistantMessage
    logprobs: ChatLogprobs | None
    finish_reason: Literal["stop", "length", "tool_calls"]


class ChatCompletion(Wire):
    """An answer. A stream sends OpenAI's `chat.completion.chunk` objects, whose `delta` is what was added."""

    id: str
    object: Literal["chat.completion"]
    created: int
    model: str
    system_fingerprint: str
    seed: int
    choices: list[ChatChoice]
    usage: TextUsage
