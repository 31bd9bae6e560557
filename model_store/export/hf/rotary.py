"""Rotary positions of a transformers model, left to GroupQueryAttention where it turns as the model does. Knows no graph."""

import inspect
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, cast

import torch
from torch import Tensor, nn

ROTATE: Final = "apply_rotary_pos_emb"
ROTARY_STEP: Final = 8
"""GroupQueryAttention turns a multiple of this many pairs."""


@dataclass(frozen=True)
class Tables:
    """Cosines and sines [context, pairs] of each position's rotation; pairs are neighbours if `interleaved`, else halves."""

    cos: Tensor
    sin: Tensor
    interleaved: bool


def turn_inside(model: nn.Module, context: int, told: Callable[[Tables], None]) -> None:
    """Leave rotations to GroupQueryAttention where it knows how: the model's own then only say which tables to use.

    `told` is called before each layer's attention with the tables that it is to turn by.
    """
    rotaries = [each for each in model.modules() if type(each).__name__.endswith("RotaryEmbedding")]
    homes = {sys.modules[type(each).__module__] for each in model.modules()}
    rotates = [home for home in homes if hasattr(home, ROTATE)]
    if not rotaries or len(rotates) != 1:
        return
    rotate = getattr(rotates[0], ROTATE)
    known: dict[tuple[int, str | None], Tables] = {}
    for rotary in rotaries:
        for kind in _kinds(rotary):
            tables = _tables(rotary, kind, context, rotate)
            if tables is None:
                return
            known[id(rotary), kind] = tables
    for rotary in rotaries:
        rotary.forward = _looks_up(rotary, known)

    def leave(
        query: Tensor, key: Tensor, cos: Tensor | Tables, *more: Any, **named: Any
    ) -> tuple[Tensor, Tensor]:
        if not isinstance(cos, Tables):  # another model of the family
            return cast("tuple[Tensor, Tensor]", rotate(query, key, cos, *more, **named))
        told(cos)
        return query, key

    setattr(rotates[0], ROTATE, leave)


def _kinds(rotary: nn.Module) -> list[str | None]:
    """Names of the layer types that rotate differently (Gemma 3), or None for all alike."""
    if "layer_type" not in inspect.signature(rotary.forward).parameters or not hasattr(rotary, "layer_types"):
        return [None]
    return list(cast("Sequence[str]", rotary.layer_types))


def _looks_up(
    rotary: nn.Module, known: Mapping[tuple[int, str | None], Tables]
) -> Callable[..., tuple[Tables, None]]:
    def forward(*given: Any, layer_type: str | None = None, **_: Any) -> tuple[Tables, None]:
        # Gemma 3 gives the layer type by position, after the hidden states and the positions.
        return known[id(rotary), given[2] if len(given) > 2 else layer_type], None

    return forward


def _tables(rotary: nn.Module, kind: str | None, context: int, rotate: Callable[..., Any]) -> Tables | None:
    """Tables for every position, if the model's rotation by them is one that GroupQueryAttention makes."""
    like = next(rotary.buffers())
    named = {} if kind is None else {"layer_type": kind}
    with torch.no_grad():
        cos, sin = rotary(torch.zeros(1), torch.arange(context)[None], **named)
        width = cos.shape[-1]
        query = torch.randn(1, 1, context, width, generator=torch.Generator().manual_seed(0)).to(like.device)
        expected = rotate(query, query, cos, sin)[0]
        for pick in (slice(None, width // 2), slice(None, None, 2)):
            for interleaved in (False, True):
                tables = Tables(cos[0, :, pick].contiguous(), sin[0, :, pick].contiguous(), interleaved)
                if tables.cos.shape[-1] % ROTARY_STEP == 0 and torch.allclose(
                    _turned(query, tables), expected, atol=1e-5
                ):
                    return tables
    return None


def _turned(query: Tensor, tables: Tables) -> Tensor:
    """What GroupQueryAttention makes of [batch, heads, time, width]."""
    if tables.interleaved:
        first, second = query[..., ::2], query[..., 1::2]
    else:
        first, second = query.chunk(2, dim=-1)
    turned = first * tables.cos - second * tables.sin, second * tables.cos + first * tables.sin
    return torch.stack(turned, -1).flatten(-2) if tables.interleaved else torch.cat(turned, -1)
