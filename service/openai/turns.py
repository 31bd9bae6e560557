"""One choice of a chat on its way out: from text deltas to messages and chunks."""

from collections.abc import Iterator
from hashlib import sha256
from typing import Any

from deployments.messages import TextDelta, TokenLogprob
from service.openai.logprobs import chat_logprobs
from service.openai.tools import Said, ToolCall, ToolParser


class Turn:
    """The assistant's turn in one choice. `key` makes the ids of its calls; `short_ids` where a template wants 9 letters."""

    def __init__(
        self, key: str, parser: ToolParser | None, alternatives: int | None, *, short_ids: bool = False
    ) -> None:
        self._key = key
        self._parser = parser
        self._alternatives = alternatives
        self._short_ids = short_ids
        self._begun = False
        self._calls = 0
        self._scores: list[TokenLogprob] = []  # of tokens whose text was not told yet

    def whole(self, delta: TextDelta) -> dict[str, Any]:
        """A choice that is complete, without its index."""
        said, calls = self._hear(delta)
        message: dict[str, Any] = {"role": "assistant", "content": said, "refusal": None}
        if calls:
            message |= {"content": said or None, "tool_calls": calls}
        return {
            "message": message,
            "logprobs": self._logprobs(),
            "finish_reason": self._finish(delta),
        }

    def chunks(self, delta: TextDelta) -> Iterator[dict[str, Any]]:
        """Choices of the chunks that a delta makes, without their index: role, text, calls, end."""
        said, calls = self._hear(delta)
        if not self._begun and (said or calls or delta.finish):
            self._begun = True
            yield _chunk({"role": "assistant", "content": ""})
        if said:
            yield _chunk({"content": said}, self._logprobs())
        if calls:
            first = self._calls - len(calls)
            numbered = [{"index": first + place, **call} for place, call in enumerate(calls)]
            yield _chunk({"tool_calls": numbered}, self._logprobs())
        if delta.finish:
            yield _chunk({}, self._logprobs(), self._finish(delta))

    def _hear(self, delta: TextDelta) -> tuple[str, list[dict[str, Any]]]:
        self._scores += delta.logprobs
        if self._parser is None:
            return delta.text, []
        said = self._parser.feed(delta.text)
        last = self._parser.finish() if delta.finish else Said()
        return said.text + last.text, [self._call(call) for call in (*said.calls, *last.calls)]

    def _call(self, call: ToolCall) -> dict[str, Any]:
        digest = sha256(f"{self._key}:{self._calls}".encode()).hexdigest()
        self._calls += 1
        return {
            "id": digest[:9] if self._short_ids else f"call_{digest[:24]}",
            "type": "function",
            "function": {"name": call.name, "arguments": call.arguments},
        }

    def _logprobs(self) -> dict[str, Any] | None:
        """Of the tokens since they were last told."""
        if self._alternatives is None or not self._scores:
            return None
        scores, self._scores = self._scores, []
        return chat_logprobs(scores, self._alternatives)

    def _finish(self, delta: TextDelta) -> str | None:
        return "tool_calls" if self._calls and delta.finish == "stop" else delta.finish


def _chunk(
    delta: dict[str, Any], logprobs: dict[str, Any] | None = None, finish: str | None = None
) -> dict[str, Any]:
    return {"delta": delta, "logprobs": logprobs, "finish_reason": finish}
