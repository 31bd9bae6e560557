"""From a request to rows: tokens of prompts and conversations, checked against the model. Runs before the engine."""

from collections.abc import Callable

from deployments.errors import BadRequest
from deployments.messages import Chat, Complete, Grammar, Prompt
from deployments.text.sequence import Constraint, Sequence
from deployments.text.template import Template
from deployments.text.vocabulary import Vocabulary
from model_store.manifest import Text


class Prompts:
    """Prepares requests for one model. May be used from any thread; may take long for a long prompt."""

    def __init__(
        self,
        text: Text,
        vocabulary: Vocabulary,
        context: int,
        *,
        template: Template | None = None,
        constrain: Callable[[Grammar], Callable[[], Constraint]] | None = None,
        share_prefixes: bool = False,
    ) -> None:
        """`constrain` reads a grammar and gives what makes a constraint for each row."""
        self.vocabulary = vocabulary
        self.context = context
        self._text = text
        self._template = template
        self._constrain = constrain
        self._share_prefixes = share_prefixes
        self._eos = frozenset(text.eos_token_ids)

    def prepare(self, request: Complete) -> list[Sequence]:
        """Check a request against the model and make its rows. Raises BadRequest."""
        self._check(request)
        constraint = self._constraint(request)
        adapter = self._adapter(request)
        rows: list[Sequence] = []
        for place, prompt in enumerate(request.prompts):
            param = f"prompt[{place}]"
            tokens = self.tokens(prompt, param)
            source, tokens = (tokens, self._start()) if self._text.source else ((), tokens)
            param = "messages" if isinstance(prompt, Chat) else param
            limit = self._limit(request, len(tokens), param)
            leader: Sequence | None = None
            for choice in range(request.rows_each):
                row = Sequence(
                    request,
                    place * request.rows_each + choice,
                    tokens,
                    self.vocabulary,
                    self._eos,
                    limit=limit,
                    source=source,
                    leader=leader,
                    scope=self._scope(request, adapter),
                    adapter=adapter,
                    constraint=constraint() if constraint else None,
                    fresh=bool(source) or isinstance(prompt, Chat),
                )
                # A prompt whose own probabilities are wanted is computed by every row that wants them.
                leader = leader or (None if row.wants_prompt_scores else row)
                rows.append(row)
        return rows

    def tokens(self, prompt: Prompt, param: str = "prompt") -> tuple[int, ...]:
        """Token ids of a prompt, with what every prompt of this model begins with. Raises BadRequest."""
        if isinstance(prompt, Chat):
            return self._chat(prompt)
        tokens = self._encode(prompt, param) if isinstance(prompt, str) else prompt
        self.vocabulary.check(tokens, param)
        source = self._text.source
        if source:
            tokens = (*tokens, *source.suffix)
        elif not tokens and self._text.bos_token_id is not None:
            tokens = (self._text.bos_token_id,)
        if not tokens:
            raise BadRequest("The prompt must not be empty.", param=param)
        if source and len(tokens) > source.context:
            raise _too_long(source.context, str(len(tokens)), 0, param)
        return tokens

    def _encode(self, prompt: str, param: str) -> tuple[int, ...]:
        most = self._text.source.context if self._text.source else self.context
        if (least := self.vocabulary.least_tokens(prompt)) > most:
            raise _too_long(most, f"at least {least}", 0, param)
        return (*self._text.prefix, *self.vocabulary.encode(prompt, param))

    def _start(self) -> tuple[int, ...]:
        source = self._text.source
        return (source.start_token_id, *source.forced) if source else ()

    def _chat(self, chat: Chat) -> tuple[int, ...]:
        if self._template is None:
            raise BadRequest("This model has no chat template.", code="task_not_supported", param="model")
        written = self._template.write(chat)
        if (least := self.vocabulary.least_tokens(written.text)) > self.context:
            raise _too_long(self.context, f"at least {least}", 0, "messages")
        return self._template.encode(written)

    def _limit(self, request: Complete, prompt: int, param: str) -> int:
        """Most tokens that a row of this prompt may generate."""
        asked = max(self.context - prompt, 1) if request.max_tokens is None else request.max_tokens
        if prompt + asked > self.context:
            raise _too_long(self.context, str(prompt), request.max_tokens or 0, param)
        return asked

    def _adapter(self, request: Complete) -> int:
        """The adapter that a request names behind its model, by its place; 0: none."""
        _, named, adapter = request.model.partition(":")
        return self._text.adapters.index(adapter) + 1 if named else 0

    def _scope(self, request: Complete, adapter: int) -> str | None:
        """Whose prompts a row's state may continue: what one adapter has computed is of no use to another."""
        if not request.reuse_prefix or (request.echo and request.logprobs is not None):
            return None
        return f"{adapter} {'' if self._share_prefixes else request.principal}"

    def _constraint(self, request: Complete) -> Callable[[], Constraint] | None:
        if request.grammar is None:
            return None
        if self._constrain is None:
            raise BadRequest("This model cannot be constrained.", code="task_not_supported", param="model")
        return self._constrain(request.grammar)

    def _check(self, request: Complete) -> None:
        for param, tokens in (
            ("logit_bias", [token for token, _ in request.logit_bias]),
            ("stop_token_ids", request.stop_token_ids),
        ):
            self.vocabulary.check(tokens, param)
        if request.best_of is not None and request.best_of < request.n:
            raise BadRequest("'best_of' must be at least 'n'.", param="best_of")
        if request.echo and self._text.source:
            raise BadRequest(
                "This model's answer does not continue the prompt: it has no echo.", param="echo"
            )


def _too_long(limit: int, prompt: str, asked: int, param: str) -> BadRequest:
    more = f" and {asked} more were asked for" if asked else ""
    return BadRequest(
        f"The model's context is {limit} tokens; the prompt has {prompt}{more}.",
        code="context_length_exceeded",
        param=param,
    )
