"""One sequence on its way: what it was asked, what it has said, what may be sent. Knows no graph and no slot."""

from collections.abc import Sequence as Seq
from dataclasses import dataclass
from typing import Final, Literal

from deployments.messages import Complete, TextDelta, TokenLogprob
from deployments.randomness import stream
from deployments.text.stops import StopMatcher
from deployments.text.vocabulary import Vocabulary

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


@dataclass(frozen=True, slots=True)
class Chosen:
    """What the graph says of one position: the token, its log-probability, the most probable tokens with theirs."""

    token: int
    logprob: float = 0.0
    top: tuple[tuple[int, float], ...] = ()


class Sequence:
    """State of one row. `fed` counts tokens whose state is in the slot."""

    def __init__(
        self,
        request: Complete,
        row: int,
        prompt: tuple[int, ...],
        vocabulary: Vocabulary,
        eos: frozenset[int],
    ) -> None:
        self.request = request
        self.row = row
        self.prompt = prompt
        self.generated: list[int] = []
        self.fed = 0
        self.uniforms = Uniforms(request.seed, row)
        self.last_seconds = 0.0  # when the latest token came, by the program's clock
        self.first_seconds = 0.0
        self.prompt_scores: list[Chosen | None] = []
        self._vocabulary = vocabulary
        self._eos = eos
        self._detokenizer = vocabulary.stream()
        self._stops = StopMatcher(request.stop)
        self._cut = False  # by a stop string
        self._sent = 0  # characters
        self._read = 0  # characters of the generated text so far, sent or held back
        self._tokens: list[int] = []  # generated, not yet sent
        self._scores: list[TokenLogprob] = []  # of tokens whose text is still held back

    @property
    def wants_prompt_scores(self) -> bool:
        """Whether the prompt's own log-probabilities are part of the answer."""
        return self.request.echo and self.request.logprobs is not None

    @property
    def ready(self) -> bool:
        """Whether the prompt is in the state and the next step is a decode."""
        return self.fed >= len(self.prompt)

    def opening(self) -> TextDelta | None:
        """What is sent before the first generated token: the prompt, where it is echoed."""
        if not self.request.echo:
            return None
        text = self._vocabulary.decode(self.prompt)
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
        self._tokens.append(token)
        if token in self._eos:
            return self._end("stop", self._detokenizer.flush())
        if self.request.logprobs is not None:
            self._scores.append(self._score(token, chosen, self._read))
        text = self._detokenizer.feed(token)
        self._read += len(text)
        text, self._cut = self._stops.feed(text)
        if self._cut:
            return self._end("stop", "", text)
        if len(self.generated) >= self.request.max_tokens:
            return self._end("length", self._detokenizer.flush(), text)
        if not text:
            return None
        return self._delta(text, None)

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
        text = self._vocabulary.text
        if chosen is None:
            return TokenLogprob(text(token), None, (), offset)
        top: Seq[tuple[int, float]] = chosen.top[: self.request.logprobs or 0]
        return TokenLogprob(text(token), chosen.logprob, tuple((text(t), p) for t, p in top), offset)
