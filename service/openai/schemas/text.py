"""`/v1/completions` on the wire."""

from typing import Annotated, Any, Final, Literal

from pydantic import AfterValidator, BeforeValidator, Discriminator, Field, Tag

from service.openai.schemas.fields import Neutral, Wire, example
from service.openai.schemas.limits import MAX_TOKEN_ID, few, fits
from service.openai.schemas.sampling import MAX_ALTERNATIVES, Sampling, TokenId

MAX_PROMPTS: Final = 128


def prompt_form(value: Any) -> str:
    """Which of the four forms of a prompt this is."""
    if not isinstance(value, list):
        return "<text>"
    match value[:1]:
        case [int()]:
            return "<ids>"
        case [list()]:
            return "<rows of ids>"
    return "<texts>"


Texts = Annotated[list[str], Field(min_length=1, max_length=MAX_PROMPTS, fail_fast=True)]
Ids = Annotated[list[TokenId], Field(min_length=1, fail_fast=True)]
RowsOfIds = Annotated[list[Ids], Field(min_length=1, max_length=MAX_PROMPTS, fail_fast=True)]
Prompt = Annotated[
    Annotated[str, Tag("<text>")]
    | Annotated[Texts, Tag("<texts>")]
    | Annotated[Ids, Tag("<ids>")]
    | Annotated[RowsOfIds, Tag("<rows of ids>")],
    Discriminator(prompt_form),
    BeforeValidator(few),
    AfterValidator(fits),
    Field(description="A text, token ids, or a list of either: each is continued on its own."),
]


class CompletionRequest(Sampling):
    """Continue each prompt `n` times."""

    model_config = example(model="shakespeare-gpt", prompt="ROMEO:", max_tokens=64, temperature=0.8, seed=1)

    prompt: Prompt
    max_tokens: Annotated[int, Field(ge=0, le=MAX_TOKEN_ID, description="Most tokens of each choice.")] = 16
    echo: Annotated[bool, Field(description="Begin each choice with its prompt.")] = False
    logprobs: Annotated[
        int | None,
        Field(
            ge=0,
            le=MAX_ALTERNATIVES,
            description="Log-probabilities of the tokens and of this many alternatives.",
        ),
    ] = None
    # OpenAI's, not here: no model of ours fills gaps.
    suffix: Annotated[Any, Neutral(("",))] = None


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


class PromptTokens(Wire):
    """Of the prompt's tokens, those whose state was there already."""

    cached_tokens: int


class TextUsage(Wire):
    """Tokens of all prompts and choices."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    prompt_tokens_details: PromptTokens


class Completion(Wire):
    """An answer, or one event of a stream: then `text` is what was added, and only the last event has a usage."""

    id: str
    object: Literal["text_completion"]
    created: int
    model: str
    system_fingerprint: str
    seed: int
    choices: list[CompletionChoice]
    usage: TextUsage | None = None
