"""One row's edits of its logits: penalties, bias and bans as a few tokens each, kept up to date as it generates.

A logit becomes `(logit / scale if logit > 0 else logit * scale) + add`. Knows no graph.
"""

from collections.abc import Iterable, Sequence
from typing import Final

import numpy as np

from deployments.messages import Complete
from model_store.session import Array

BANNED: Final = -1e30


class Edits:
    """Tokens with what changes their logits, in the order in which they first came up."""

    def __init__(self, request: Complete, prompt: Sequence[int], ends: Iterable[int]) -> None:
        """`ends` are the tokens that may not come before `min_tokens`."""
        self._repetition = request.repetition_penalty
        self._presence = request.presence_penalty
        self._frequency = request.frequency_penalty
        self._place: dict[int, int] = {}
        self._token, self._scale, self._add = np.zeros(8, np.int64), np.ones(8, np.float32), np.zeros(8, np.float32)  # fmt: skip
        self._said: set[int] = set()
        self._ban_until = request.min_tokens
        self._banned = dict.fromkeys(ends, 0.0) if request.min_tokens else {}
        for token, bias in request.logit_bias:
            at = self._at(token)  # first: it may make the arrays longer
            self._add[at] += bias
        if self._repetition != 1:
            for token in prompt:
                at = self._at(token)
                self._scale[at] = self._repetition
        for token in self._banned:
            at = self._at(token)
            self._banned[token], self._add[at] = float(self._add[at]), BANNED

    @classmethod
    def of(cls, request: Complete, prompt: Sequence[int], ends: Iterable[int]) -> "Edits | None":
        """A request's edits, None where it wants nothing that needs them."""
        plain = (
            request.repetition_penalty == 1
            and not request.presence_penalty
            and not request.frequency_penalty
            and not request.logit_bias
            and not request.min_tokens
        )
        return None if plain else cls(request, prompt, ends)

    def __len__(self) -> int:
        """How many tokens have an edit."""
        return len(self._place)

    def write(self, token: Array, scale: Array, add: Array) -> None:
        """Fill rows of at least this length; what is left over repeats the first edit, or changes nothing."""
        size = len(self._place)
        for row, own, nothing in ((token, self._token, 0), (scale, self._scale, 1), (add, self._add, 0)):
            row[:size] = own[:size]
            row[size:] = own[0] if size else nothing

    def push(self, token: int, generated: int) -> None:
        """The row has generated this token, and so many in all."""
        if generated == self._ban_until:
            for banned, add in self._banned.items():
                self._add[self._place[banned]] = add
        if self._repetition != 1:
            at = self._at(token)
            self._scale[at] = self._repetition
        if self._presence or self._frequency:
            at = self._at(token)
            self._add[at] -= self._frequency + (0 if token in self._said else self._presence)
            self._said.add(token)

    def _at(self, token: int) -> int:
        place = self._place.setdefault(token, len(self._place))
        if place == len(self._token):
            more = len(self._token)
            self._token = np.concatenate([self._token, np.zeros(more, np.int64)])
            self._scale = np.concatenate([self._scale, np.ones(more, np.float32)])
            self._add = np.concatenate([self._add, np.zeros(more, np.float32)])
        self._token[place] = token
        return place
