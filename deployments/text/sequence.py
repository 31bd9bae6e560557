"""One sequence on its way: what it was asked, what it has said, what may be sent. Knows no graph and no slot."""

from collections.abc import Sequence as Seq
from functools import cached_property
from typing import Final, Literal, NamedTuple, Protocol

import numpy as np

from deployments.messages import Complete, TextDelta, TokenLogprob
from deployments.randomness import stream
from deployments.text.edits import Edits
from deployments.text.prefixes import as_array
from deployments.text.stops import StopMatcher
from deployments.text.vocabulary import Vocabulary
from model_store.session import Array

_BLOCK: Final = 64


class Uniforms:
    """Random numbers in [0, 1) of one row: number k depends on (seed, place, k) alone."""

    def __init__(self, seed: int, place: int) -> None:
        self._bits = stream(seed, place)
        self._block: list[float] = []

    def next(self) -> float:
        """The next number of the stream."""
        if not self._block:
            # Rounding to float32 must not make a 1.0: keep 24 bits, as float32 does.
            self._block = (self._bits.integers(0, 1 << 24, _BLOCK) / (1 << 24)).tolist()[::-1]
        return self._block.pop()


class Chosen(NamedTuple):
    """What the graph says of one position: the token, its log-probability, the most probable tokens with theirs."""

    token: int
    logprob: float = 0.0
    top: tuple[tuple[int, float], ...] = ()


class Constraint(Protocol):
    """What a grammar says of the next token of one row."""

    @property
    def done(self) -> bool:
        """Whether nothing may follow any more."""

    def fill(self, words: Array) -> bool:
        """Write which tokens may come next: int32 [vocabulary / 32, rounded up], bit j of word i for token 32 i + j.

        False: it cannot tell, the text cannot go on.
        """

    def advance(self, token: int) -> bool:
        """Take the next token. False if the grammar does not allow it, or it cannot tell."""


class Sequence:
    """State of one row. `fed` counts tokens whose state is in the slot: the next one to feed is token number `fed`."""

    def __init__(
        self,
        request: Complete,
        row: int,
        prompt: tuple[int, ...],
        vocabulary: Vocabulary,
        eos: frozenset[int],
        *,
        limit: int,
        source: tuple[int, ...] = (),
        leader: "Sequence | None" = None,
        scope: str | None = None,
        adapter: int = 0,
        constraint: Constraint | None = None,
        fresh: bool = False,
    ) -> None:
        """`limit`: most tokens to generate. `source`: what an encoder reads. `leader`: another row of the same prompt, which computes it.

        `scope`: who may use its state again (None: nobody). `adapter`: which of the model's it has, from 1 on (0: none). `fresh`: the text is one of its own and no continuation.
        """
        self.request = request
        self.row = row
        self.prompt = prompt
        self.source = source
        self.unread = bool(source)  # by the encoder
        self.leader = leader
        self.scope = scope
        self.adapter = adapter
        self.constraint = constraint
        self.limit = limit
        self.generated: list[int] = []
        self.fed = 0
        self.cached = 0  # tokens of the prompt whose state was there already
        self.total_logprob = 0.0  # of the generated tokens, in nats
        self.uniforms = Uniforms(request.seed, row)
        self.last_seconds = 0.0  # when the latest token came, by the program's clock
        self.first_seconds = 0.0
        self.opened = False  # what comes before the first token was sent
        self.prompt_scores: list[Chosen | None] = [None]  # where they are wanted; the first token has none
        self._vocabulary = vocabulary
        self._ends = frozenset(request.stop_token_ids) | (frozenset() if request.ignore_eos else eos)
        # Which tokens may come next, known as soon as the one before is.
        self.words: Array | None = None
        self.broken = False  # by its grammar
        if constraint is not None:
            self.words = np.zeros(-(-vocabulary.size // 32), np.int32)
            self.broken = not constraint.fill(self.words)
        self.edits = Edits.of(request, prompt, self._ends)
        self._detokenizer = vocabulary.stream(fresh=fresh)
        self._stops = StopMatcher(request.stop)
        self._cut = False  # by a stop string
        self._sent = 0  # characters
        self._read = 0  # characters of the generated text so far, sent or held back
        self._tokens: list[int] = []  # generated, not yet sent
        self._scores: list[TokenLogprob] = []  # of tokens whose text is still held back

    @cached_property
    def prompt_array(self) -> Array:
        """The prompt in the form in which prefixes are compared."""
        return as_array(self.prompt)

    @property
    def wants_prompt_scores(self) -> bool:
        """Whether the prompt's own log-probabilities are part of the answer."""
        return self.request.echo and self.request.logprobs is not None

    @property
    def ready(self) -> bool:
        """Whether only the prompt's last token is left, which is fed in a decode as every token after it."""
        return not self.unread and self.fed >= len(self.prompt) - 1

    @property
    def next_token(self) -> int:
        """The token to feed."""
        return self.prompt[self.fed] if self.fed < len(self.prompt) else self.generated[-1]

    @property
    def tokens(self) -> tuple[int, ...]:
        """The tokens whose state is in the slot."""
        return (*self.prompt, *self.generated)[: self.fed]

    @property
    def mean_logprob(self) -> float:
        """Of the generated tokens: by what the best of several is chosen."""
        return self.total_logprob / max(1, len(self.generated))

    def opening(self) -> TextDelta | None:
        """What is sent before the first generated token: the prompt, where it is echoed."""
        self.opened = True
        if not self.request.echo:
            return None
        text = self._vocabulary.stream().feed_all(self.prompt)
        scores: list[TokenLogprob] = []
        offset = 0
        if self.wants_prompt_scores:
            detokenizer = self._vocabulary.stream()
            for token, chosen in zip(self.prompt, self.prompt_scores, strict=True):
                scores.append(self._score(token, chosen, offset))
                offset += len(detokenizer.feed(token))
        self._sent = self._read = len(text)
        return TextDelta(self.row, text, (), tuple(scores))

    def nothing_to_generate(self) -> TextDelta:
        """The end of a row that asked for no tokens."""
        return TextDelta(self.row, "", (), (), "length")

    def push(self, chosen: Chosen) -> TextDelta | None:
        """Take one generated token; return what can be sent now, None if its text must wait."""
        token = chosen.token
        self.generated.append(token)
        self.total_logprob += chosen.logprob
        self._tokens.append(token)
        if self.edits is not None:
            self.edits.push(token, len(self.generated))
        if token in self._ends and len(self.generated) > self.request.min_tokens:
            return self._end("stop", self._detokenizer.flush())
        if self.request.logprobs is not None:
            self._scores.append(self._score(token, chosen, self._read))
        text = self._detokenizer.feed(token)
        self._read += len(text)
        if len(self.generated) >= self.request.min_tokens:
            text, self._cut = self._stops.feed(text)
        if self._cut:
            return self._end("stop", "", text)
        if self.constraint is not None and self._constrained(token):
            return self._end("stop", self._detokenizer.flush(), text)
        if len(self.generated) >= self.limit:
            return self._end("length", self._detokenizer.flush(), text)
        if not text:
            return None
        return self._delta(text, None)

    def _constrained(self, token: int) -> bool:
        """Tell the grammar, and ask it for what may come next; whether the text is complete."""
        constraint, words = self.constraint, self.words
        if constraint is None or words is None:
            return False
        self.broken = not constraint.advance(token)
        if not (self.broken or constraint.done):
            self.broken = not constraint.fill(words)
        return self.broken or constraint.done

    def _end(self, finish: Literal["stop", "length"], tail: str, text: str = "") -> TextDelta:
        if tail:
            more, self._cut = self._stops.feed(tail)
            text, finish = text + more, "stop" if self._cut else finish
        return self._delta(text + self._stops.flush(), finish)

    def _delta(self, text: str, finish: Literal["stop", "length"] | None) -> TextDelta:
        self._sent += len(text)
        # A token's figures travel with its text; what stands behind a stop string was never said.
        whole = finish is not None and not self._cut
        ready = [score for score in self._scores if whole or score.offset < self._sent]
        self._scores = self._scores[len(ready) :]
        tokens, self._tokens = tuple(self._tokens), []
        return TextDelta(self.row, text, tokens, tuple(ready), finish)

    def _score(self, token: int, chosen: Chosen | None, offset: int) -> TokenLogprob:
        piece = self._vocabulary.token_bytes
        if chosen is None:
            return TokenLogprob(piece(token), None, (), offset)
        top: Seq[tuple[int, float]] = chosen.top[: self.request.logprobs or 0]
        return TokenLogprob(piece(token), chosen.logprob, tuple((piece(t), p) for t, p in top), offset)
