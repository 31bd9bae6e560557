"""What completions and chat share: how tokens are drawn, when a text ends, and what it must be."""

from typing import Annotated, Any, Final, Literal

from pydantic import (
    AfterValidator,
    Discriminator,
    Field,
    StringConstraints,
    Tag,
    WithJsonSchema,
    model_validator,
)
from pydantic_core import PydanticCustomError

from service.openai.schemas.fields import Body, Neutral, Nullable, Priority, Seed, Short
from service.openai.schemas.limits import MAX_SCHEMA_BYTES, MAX_SCHEMA_DEPTH, MAX_TOKEN_ID, bounded

MAX_CHOICES: Final = 8
MAX_BEST_OF: Final = 20
MAX_ALTERNATIVES: Final = 20
MAX_BIASES: Final = 300
CONSTRAINTS: Final = ("response_format", "regex", "choice", "grammar")


def _list_or_one(value: Any) -> str:
    return "<list>" if isinstance(value, list) else "<one>"


def _ids(biases: dict[str, float]) -> dict[str, float]:
    """Keys are token ids, in JSON written as text: each in one way only, so that none is given twice."""
    for key in biases:
        if not (key.isascii() and key.isdigit() and len(key) <= 10 and int(key) <= MAX_TOKEN_ID):
            raise PydanticCustomError("invalid_value", "keys must be token ids")
        if key != str(int(key)):
            raise PydanticCustomError("invalid_value", "token ids have no leading zeros")
    return biases


TokenId = Annotated[int, Field(ge=0, le=MAX_TOKEN_ID)]
StopText = Annotated[str, StringConstraints(min_length=1, max_length=256)]
Stop = Annotated[
    Annotated[StopText, Tag("<one>")]
    | Annotated[list[StopText], Field(max_length=16, fail_fast=True), Tag("<list>")],
    Discriminator(_list_or_one),
    Field(description="Up to 16 texts that end a choice; they are not part of it.", default_factory=list),
]
Bias = Annotated[
    dict[str, Annotated[float, Field(ge=-100, le=100)]],
    Field(
        max_length=MAX_BIASES,
        description="Added to the logits of token ids, -100 to 100.",
        default_factory=dict,
    ),
    AfterValidator(_ids),
]
Schema = Annotated[
    dict[str, Any],
    AfterValidator(bounded(MAX_SCHEMA_BYTES, MAX_SCHEMA_DEPTH)),
    WithJsonSchema({"type": "object", "description": "A JSON schema of at most 64 KiB, 32 levels deep."}),
]


class JsonSchema(Nullable):
    """A JSON schema by name."""

    name: Annotated[str, StringConstraints(pattern=r"^[a-zA-Z0-9_-]{1,64}$"), Field(description="Ignored.")]
    schema_: Annotated[Schema, Field(alias="schema")]
    description: Annotated[str | None, Field(max_length=1024, description="Ignored.")] = None
    strict: Annotated[bool | None, Field(description="Ignored: answers always fit the schema.")] = None


class ResponseFormat(Nullable):
    """`text`: anything; `json_object`: a JSON object; `json_schema`: JSON that fits the schema."""

    type: Literal["text", "json_object", "json_schema"]
    json_schema: JsonSchema | None = None

    @model_validator(mode="after")
    def _schema_where_it_belongs(self) -> "ResponseFormat":
        if (self.json_schema is not None) != (self.type == "json_schema"):
            raise PydanticCustomError("invalid_value", "'json_schema' goes with 'type': 'json_schema'")
        return self


class StreamOptions(Nullable):
    """What else a stream carries."""

    include_usage: Annotated[bool, Field(description="One more event before `[DONE]`, with the usage.")] = (
        False
    )
    include_obfuscation: Annotated[Any, Neutral((False,))] = None


class Sampling(Body):
    """Fields of every request that continues text."""

    min_tokens: Annotated[
        int, Field(ge=0, le=MAX_TOKEN_ID, description="Before them nothing ends a choice.")
    ] = 0
    n: Annotated[int, Field(ge=1, le=MAX_CHOICES, description="Choices of each prompt.")] = 1
    best_of: Annotated[
        int | None,
        Field(ge=1, le=MAX_BEST_OF, description="Choices computed, of which the `n` most probable are sent."),
    ] = None
    stop: Stop
    stop_token_ids: Annotated[
        list[TokenId],
        Field(max_length=128, fail_fast=True, default_factory=list, description="Tokens that end a choice."),
    ]
    ignore_eos: Annotated[bool, Field(description="Go on after the model's own end.")] = False
    seed: Annotated[
        Seed | None, Field(description="Same seed, same answer. Absent: drawn, and reported.")
    ] = None
    temperature: Annotated[float, Field(ge=0, le=2, description="0: the most probable token, always.")] = 1.0
    top_p: Annotated[float, Field(gt=0, le=1, description="Sample from the smallest set this probable.")] = (
        1.0
    )
    top_k: Annotated[
        int,
        Field(ge=-1, le=MAX_TOKEN_ID, description="Sample from this many tokens; 0 or -1: from all."),
    ] = 0
    min_p: Annotated[
        float, Field(ge=0, le=1, description="Least probability, as a share of the most probable token's.")
    ] = 0.0
    presence_penalty: Annotated[float, Field(ge=-2, le=2, description="Against tokens already made.")] = 0.0
    frequency_penalty: Annotated[
        float, Field(ge=-2, le=2, description="The same, for each time they were made.")
    ] = 0.0
    repetition_penalty: Annotated[
        float,
        Field(
            ge=0.01, le=10, description="Divides the logits of tokens of the prompt and the answer; 1: off."
        ),
    ] = 1.0
    logit_bias: Bias
    response_format: ResponseFormat | None = None
    regex: Annotated[
        str | None,
        StringConstraints(min_length=1, max_length=4096),
        Field(description="What a choice must match."),
    ] = None
    choice: Annotated[
        list[Annotated[str, StringConstraints(min_length=1, max_length=1024)]] | None,
        Field(min_length=1, max_length=256, description="Texts, one of which a choice must be."),
    ] = None
    grammar: Annotated[
        str | None,
        StringConstraints(min_length=1, max_length=32_768),
        Field(description="What a choice must be, in Lark's notation."),
    ] = None
    stream: Annotated[bool, Field(description="Send text as it is made, as server-sent events.")] = False
    stream_options: StreamOptions | None = None
    cache_prompt: Annotated[
        bool, Field(description="Reuse the state of earlier prompts that start alike, and keep this one's.")
    ] = True
    priority: Priority = 0
    # SDKs send these; they change nothing here.
    safety_identifier: Annotated[Short | None, Field(description="Ignored.")] = None
    prompt_cache_key: Annotated[Short | None, Field(description="Ignored.")] = None
