"""What one answer of a series tells the next one, as text that the client carries. The server keeps nothing.

So a session goes on with any replica and after any restart, and belongs to whoever has its last answer. Nothing in it is
secret from that client or trusted: it is the client's own values, and it is read as strictly as they are.
"""

import struct
from binascii import Error, a2b_base64, b2a_base64
from dataclasses import dataclass
from hashlib import sha256
from typing import Final

import numpy as np
from numpy.typing import NDArray

from deployments.errors import BadRequest
from deployments.reconstruction.alarms import Watch

Doubles = NDArray[np.float64]

_HEAD: Final = struct.Struct("<8sQqdqI")
_CHECK: Final = 8
_MOST_STEPS: Final = 1 << 53


@dataclass(frozen=True, slots=True)
class Moments:
    """Of each channel's values: how many, their mean, the sum of squares around it."""

    count: Doubles
    mean: Doubles
    squares: Doubles


@dataclass(frozen=True, slots=True)
class State:
    """A series so far: `seen` steps, of which the last ones are `kept` [at most window - 1, channels]; NaN is missing."""

    seen: int
    kept: Doubles
    moments: Moments
    watch: Watch


def beginning(channels: int) -> State:
    """Nothing so far."""
    none = np.zeros(channels)
    return State(0, np.zeros((0, channels)), Moments(none, none, none), Watch())


def written(state: State, model: str) -> str:
    """The state as text, of one version of one model."""
    watch, moments = state.watch, state.moments
    head = _HEAD.pack(
        _digest(model.encode()), state.seen, watch.began, watch.peak, watch.quiet_until, len(state.kept)
    )
    arrays = (moments.count, moments.mean, moments.squares, state.kept)
    body = head + b"".join(each.astype("<f8").tobytes() for each in arrays)
    return b2a_base64(body + _digest(body), newline=False).decode()


def read(text: str, model: str, channels: int, window: int, param: str) -> State:
    """The state again. Raises BadRequest for what this model's server did not write so."""
    try:
        raw = a2b_base64(text, strict_mode=True)
    except (Error, ValueError):
        raise _damaged(param) from None
    body, check = raw[:-_CHECK], raw[-_CHECK:]
    if len(body) < _HEAD.size or check != _digest(body):
        raise _damaged(param)
    of, seen, began, peak, quiet_until, kept = _HEAD.unpack_from(body)
    if of != _digest(model.encode()):
        raise BadRequest(
            "The session is of another model, or of another version of it.",
            code="invalid_session",
            param=param,
        )
    numbers = (
        np.frombuffer(body, "<f8", offset=_HEAD.size) if (len(body) - _HEAD.size) % 8 == 0 else np.zeros(0)
    )
    if kept != min(seen, window - 1) or seen > _MOST_STEPS or len(numbers) != (3 + kept) * channels:
        raise _damaged(param)
    count, mean, squares, *rows = numbers.reshape(3 + kept, channels)
    values = np.array(rows).reshape(kept, channels)
    if not np.isfinite(numbers[: 3 * channels]).all() or np.isinf(values).any() or not np.isfinite(peak):
        raise _damaged(param)
    return State(seen, values, Moments(count, mean, squares), Watch(began, peak, quiet_until))


def _digest(raw: bytes) -> bytes:
    return sha256(raw).digest()[:_CHECK]


def _damaged(param: str) -> BadRequest:
    return BadRequest(
        "This is no session: send what the last answer gave, or an empty text to begin one.",
        code="invalid_session",
        param=param,
    )
