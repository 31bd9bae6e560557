"""`/v1/completions` on the wire."""

from typing import Annotated, Any, Final, Literal

from pydantic import AfterValidator, Discriminator, Field, StringConstraints, Tag
from pydantic_core import PydanticCustomError

from service.openai.schemas.fields import Body, Neutral, Nullable, Seed, Wire, example

MAX_PROMPTS: Final = 128
MAX_PROMPT_BYTES: Final = 1024 * 1024
MAX_TOKEN_ID: Final = 2**31 - 1


def _prompt_form(value: Any) -> str:
    if not isinstance(value, list):
        return "<text>"
    match value[:1]:
        case [int()]:
            return "<ids>"
        case [list()]:
            return "<rows of ids>"
    return "<texts>"


def _list_or_one(value: Any) -> str:
    return "<list>" if isinstance(value, list) else "<one>"


def _fits(prompt: Any) -> Any:
    """Refuse before any tokenizer sees it what no context can hold."""
    texts = [prompt] if isinstance(prompt, str) else prompt
    if sum(len(text.encode()) for text in texts if isinstance(text, str)) > MAX_PROMPT_BYTES:
        raise PydanticCustomError("context_length_exceeded", "the text is longer than 1 MiB")
    return prompt


Texts = Annotated[list[str], Field(min_length=1, max_length=MAX_PROMPTS, fail_fast=True)]
Ids = Annotated[list[Annotated[int, Field(ge=0, le=MAX_TOKEN_ID)]], Field(min_length=1, fail_fast=True)]
RowsOfIds = Annotated[list[Ids], Field(min_length=1, max_length=MAX_PROMPTS, fail_fast=True)]
Prompt = Annotated[
    Annotated[str, Tag("<text>")]
    | Annotated[Texts, Tag("<texts>")]
    | Annotated[Ids, Tag("<ids>")]
    | Annotated[RowsOfIds, Tag("<rows of ids>")],
    Discriminator(_prompt_form),
    AfterValidator(_fits),
    Field(description="A text, token ids, or a list of either: each is continued on its own."),
]
StopText = Annotated[str, StringConstraints(min_length=1, max_length=256)]
Stop = Annotated[
    Annotated[StopText, Tag("<one>")]
    | Annotated[list[StopText], Field(max_length=16, fail_fast=True), Tag("<list>")],
    Discriminator(_list_or_one),
    Field(description="Up to 16 texts that end a choice; they are not part of it.", default_factory=list),
]


class StreamOptions(Nullable):
    """What else a stream carries."""

    include_usage: Annotated[bool, Field(description="One more event before `[DONE]`, with the usage.")] = (
        False
    )
    include_obfuscation: Annotated[Any, Neutral((False,))] = None


class CompletionRequest(Body):
    """Continue each prompt `n` times."""

    model_config = example(model="shakespeare-gpt", prompt="ROMEO:", max_tokens=64, temperature=0.8, seed=1)

    prompt: Prompt
    max_tokens: Annotated[int, Field(ge=0, description="Most tokens of each choice.")] = 16
    n: Annotated[int, Field(ge=1, le=8, description="Choices of each prompt.")] = 1
    stop: Stop
    seed: Annotated[
        Seed | None, Field(description="Same seed, same answer. Absent: drawn, and reported.")
    ] = None
    temperature: Annotated[float, Field(ge=0, le=2, description="0: the most probable token, always.")] = 1.0
    top_p: Annotated[float, Field(gt=0, le=1, description="Sample from the smallest set this probable.")] = (
        1.0
    )
    top_k: Annotated[int, Field(ge=-1, description="Sample from this many tokens; 0 or -1: from all.")] = 0
    echo: Annotated[bool, Field(description="Begin each choice with its prompt.")] = False
    logprobs: Annotated[
        int | None,
        Field(ge=0, le=5, description="Log-probabilities of the tokens and of this many alternatives."),
    ] = None
    stream: Annotated[bool, Field(description="Send text as it is made, as server-sent events.")] = False
    stream_options: StreamOptions | None = None
    # OpenAI's, not here yet.
    suffix: Annotated[Any, Neutral(("",))] = None
    best_of: Annotated[int | None, Field(ge=1, description="Accepted where it equals `n`.")] = None
    presence_penalty: Annotated[Any, Neutral((0,))] = None
    frequency_penalty: Annotated[Any, Neutral((0,))] = None
    logit_bias: Annotated[Any, Neutral(({},))] = None


class Logprobs(Wire):
    """One entry a token, in nats. The first token of an echoed prompt has no probability."""

    tokens: list[str]
    token_logprobs: list[float | None]
    top_logprobs: list[dict[str, float] | None]
    text_offset: list[int]


class CompletionChoice(Wire):
    """One continuation. Choice i of prompt p has the index `p * n + i`."""

    index: int
    text: str
    logprobs: Logprobs | None
    finish_reason: Literal["stop", "length"] | None


class CompletionUsage(Wire):
    """Tokens of all prompts and choices."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int


class Completion(Wire):
    """An answer, or one event of a stream: then `text` is what was added, and only the last event has a usage."""

    id: str
    object: Literal["text_completion"]
    created: int
    model: str
    system_fingerprint: str
    seed: int
    choices: list[CompletionChoice]
    usage: CompletionUsage | None = None
