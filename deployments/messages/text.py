"""Text that is continued, read, or cut into tokens."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

from deployments.messages.answers import Timings, Usage
from deployments.messages.items import Item


@dataclass(frozen=True, slots=True)
class Chat:
    """A conversation to be written out by the package's chat template; arguments of calls are objects, as templates take them."""

    messages: tuple[Mapping[str, Any], ...]
    tools: tuple[Mapping[str, Any], ...] = ()
    # What the template takes beside (`enable_thinking`, ...).
    variables: Mapping[str, Any] = field(default_factory=dict)


Prompt: TypeAlias = str | tuple[int, ...] | Chat


@dataclass(frozen=True, slots=True)
class Grammar:
    """What the text must be: `source` is a JSON schema, a regular expression, a JSON list of strings, or Lark."""

    kind: Literal["json_schema", "json_object", "regex", "choice", "lark"]
    source: str = ""


@dataclass(frozen=True, slots=True)
class Complete:
    """Continue each prompt `n` times. Row `p * n + i` is choice i of prompt p; choices draw from different streams."""

    model: str
    prompts: tuple[Prompt, ...]
    request_id: str = ""
    version: str | None = None
    max_tokens: int | None = 16  # None: as many as the context holds
    min_tokens: int = 0  # before them neither an end token nor a stop ends the text
    n: int = 1
    best_of: int | None = None  # rows computed for each prompt, of which the `n` most probable are kept
    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    repetition_penalty: float = 1.0
    logit_bias: tuple[tuple[int, float], ...] = ()
    seed: int = 0
    stop: tuple[str, ...] = ()
    stop_token_ids: tuple[int, ...] = ()
    ignore_eos: bool = False
    logprobs: int | None = None  # how many alternatives; 0 gives the chosen tokens' own
    echo: bool = False
    grammar: Grammar | None = None
    # Who asks ("" without a key), for fairness; lower priorities first among one principal's own requests.
    principal: str = ""
    priority: int = 0
    reuse_prefix: bool = (
        True  # whether state of earlier prompts that start alike may be used, and this one's kept
    )
    timeout_seconds: float | None = None

    @property
    def rows_each(self) -> int:
        """Rows computed for each prompt."""
        return max(self.n, self.best_of or 0)


@dataclass(frozen=True, slots=True)
class TokenLogprob:
    """One token's bytes with its log-probability (nats) and the most probable alternatives, best first.

    `offset` is where the token's text starts in the row's text. The first token of a prompt has no probability.
    """

    token: bytes
    logprob: float | None
    top: tuple[tuple[bytes, float], ...]
    offset: int


@dataclass(frozen=True, slots=True)
class TextDelta:
    """What one step added to one row. The last of a row has `finish`; the last of a request has `usage`, `timings`."""

    row: int
    text: str
    token_ids: tuple[int, ...] = ()
    logprobs: tuple[TokenLogprob, ...] = ()
    finish: Literal["stop", "length"] | None = None
    usage: Usage | None = None
    timings: Timings | None = None
    version: str = ""
    mean_logprobs: tuple[float, ...] = ()  # of every row's generated tokens, with `usage`


@dataclass(frozen=True, slots=True)
class Tokenize:
    """Token ids of a text or a conversation. `special`: with the tokens a prompt of this model begins with."""

    model: str
    prompt: str | Chat
    request_id: str = ""
    version: str | None = None
    special: bool = True
    timeout_seconds: float | None = None


@dataclass(frozen=True, slots=True)
class Detokenize:
    """Text of token ids."""

    model: str
    tokens: tuple[int, ...]
    request_id: str = ""
    version: str | None = None
    timeout_seconds: float | None = None


@dataclass(frozen=True, slots=True)
class Embed:
    """One vector for each text or item. `dimensions`: only the first ones, scaled to length 1 again."""

    model: str
    inputs: tuple[str | tuple[int, ...] | Item, ...]
    request_id: str = ""
    version: str | None = None
    dimensions: int | None = None
    principal: str = ""
    priority: int = 0
    timeout_seconds: float | None = None


@dataclass(frozen=True, slots=True)
class Classify:
    """Probability of each of the model's classes for each text."""

    model: str
    inputs: tuple[str | tuple[int, ...], ...]
    request_id: str = ""
    version: str | None = None
    principal: str = ""
    priority: int = 0
    timeout_seconds: float | None = None
