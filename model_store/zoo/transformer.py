"""A decoder Transformer: grouped-query attention, rotary positions, squared ReLU, tied embeddings; and the step that serves it.

Knows no data and no training. In eager torch everything is computed in plain operations; an exported step holds
GroupQueryAttention nodes, of which the plain operations are the oracle.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model_store.zoo.training import dropout

Cache = tuple[Tensor, Tensor]
"""Keys and values f32 [batch, kv_heads, context, head_dim]."""


class Lengths(NamedTuple):
    """`last` i32 [batch] is each row's length - 1 with the new positions in it; `total` i32 [] the longest length."""

    last: Tensor
    total: Tensor


@dataclass(frozen=True)
class Config:
    """Sizes. `context` is the longest sequence and the length of the key-value cache, in tokens."""

    vocabulary: int = 512
    context: int = 512
    layers: int = 6
    width: int = 256
    heads: int = 4
    kv_heads: int = 2
    hidden: int = 608
    dropout: float = 0.15
    rotary_base: float = 10_000.0

    @property
    def head_dim(self) -> int:
        """Width of one head."""
        return self.width // self.heads


def rotary_tables(config: Config) -> tuple[Tensor, Tensor]:
    """Cosines and sines f32 [context, head_dim / 2] of each position's rotation."""
    half = config.head_dim // 2
    frequencies = config.rotary_base ** (-torch.arange(half, dtype=torch.float64) / half)
    angles = torch.arange(config.context, dtype=torch.float64)[:, None] * frequencies
    return angles.cos().float(), angles.sin().float()


def rotate(heads: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotate `heads` [batch, heads, time, head_dim] by `cos`, `sin` broadcast to [batch, 1, time, head_dim / 2]."""
    first, second = heads.chunk(2, dim=-1)
    return torch.cat((first * cos - second * sin, second * cos + first * sin), dim=-1)


def attend(query: Tensor, key: Tensor, value: Tensor, unseen: Tensor) -> Tensor:
    """Attention of [batch, heads, time, head_dim] over [batch, kv_heads, length, head_dim] -> [batch, time, width].

    `unseen` [batch or 1, time, length] is 0 where a query may look and -inf elsewhere. Query heads of a group are one
    matrix product with their key head. Written out: at these sizes it trains three times as fast on a CPU in bfloat16
    as the fused kernel.
    """
    batch, heads, time, head_dim = query.shape
    kv_heads, length = key.shape[1:3]
    grouped = (query * head_dim**-0.5).reshape(batch, kv_heads, -1, head_dim)
    scores = (grouped @ key.transpose(-1, -2)).reshape(batch, heads, time, length)
    mixed = (scores + unseen[:, None]).softmax(-1).reshape(batch, kv_heads, -1, length) @ value
    joined: Tensor = mixed.reshape(batch, heads, time, head_dim).transpose(1, 2).flatten(2)
    return joined


class Attention(nn.Module):
    """Grouped-query self-attention over [batch, time, width]."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        narrow = config.kv_heads * config.head_dim
        self.query = nn.Linear(config.width, config.width, bias=False)
        self.key = nn.Linear(config.width, narrow, bias=False)
        self.value = nn.Linear(config.width, narrow, bias=False)
        self.out = nn.Linear(config.width, config.width, bias=False)
        nn.init.zeros_(self.out.weight)

    def heads(self, wide: Tensor) -> Tensor:
        """[batch, time, heads * head_dim] -> [batch, heads, time, head_dim]."""
        batch, time, _ = wide.shape
        return wide.reshape(batch, time, -1, self.config.head_dim).transpose(1, 2)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor, unseen: Tensor) -> Tensor:
        """Attention over whole windows, for training; `unseen` is added to the scores."""
        query = rotate(self.heads(self.query(x)), cos, sin)
        key = rotate(self.heads(self.key(x)), cos, sin)
        mixed: Tensor = self.out(attend(query, key, self.heads(self.value(x)), unseen))
        return mixed

    def cached(self, x: Tensor, past: Cache, lengths: Lengths, tables: Cache) -> tuple[Tensor, Cache]:
        """Attention to a cache and to x, which are the last positions of each row, and the cache with x in it.

        `tables` are the cosines and sines of `rotary_tables`. An exported graph holds one GroupQueryAttention node, which writes
        in place where past and present share memory; eager torch computes what that node must give.
        """
        projected = (self.query(x), self.key(x), self.value(x))
        if torch.onnx.is_in_onnx_export():
            mixed, *present = self._fused([*projected, *past, *lengths, *tables])
            return self.out(mixed), (present[0], present[1])
        places = lengths.last[:, None].long() + 1 - x.shape[1] + torch.arange(x.shape[1])
        cos, sin = (table[places][:, None] for table in tables)
        query, key, value = (self.heads(each) for each in projected)
        index = places[:, None, :, None].expand_as(key)
        keys = past[0].scatter(2, index, rotate(key, cos, sin))
        values = past[1].scatter(2, index, value)
        ahead = torch.arange(keys.shape[2]) > places[:, :, None]
        unseen = torch.zeros(ahead.shape).masked_fill(ahead, -torch.inf)
        return self.out(attend(rotate(query, cos, sin), keys, values, unseen)), (keys, values)

    def _fused(self, inputs: list[Tensor]) -> Sequence[Tensor]:
        query, _, _, past_key, past_value, *_ = inputs
        return torch.onnx.ops.symbolic_multi_out(
            "com.microsoft::GroupQueryAttention",
            inputs,
            attrs={"num_heads": self.config.heads, "kv_num_heads": self.config.kv_heads, "do_rotary": 1},
            dtypes=[query.dtype] * 3,
            shapes=[query.shape, past_key.shape, past_value.shape],
            version=1,
        )


class Block(nn.Module):
    """Pre-norm attention and a squared-ReLU feed-forward, each added to the stream."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.dropout = config.dropout
        self.attention_norm = nn.LayerNorm(config.width, bias=False)
        self.attention = Attention(config)
        self.norm = nn.LayerNorm(config.width, bias=False)
        self.up = nn.Linear(config.width, config.hidden, bias=False)
        self.down = nn.Linear(config.hidden, config.width, bias=False)
        nn.init.zeros_(self.down.weight)

    def feed_forward(self, x: Tensor) -> Tensor:
        """[batch, time, width] -> the same shape."""
        hidden = F.relu(self.up(self.norm(x)))
        out: Tensor = self.down(hidden * hidden)
        return out

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor, unseen: Tensor) -> Tensor:
        """[batch, time, width] -> the same shape."""
        mixed = self.attention(self.attention_norm(x), cos, sin, unseen)
        x = x + dropout(mixed, self.dropout if self.training else 0.0)
        return x + dropout(self.feed_forward(x), self.dropout if self.training else 0.0)


class Transformer(nn.Module):
    """Token ids [batch, time] -> next-token logits [batch, time, vocabulary]; no cache."""

    cos: Tensor
    sin: Tensor

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        self.embedding = nn.Embedding(config.vocabulary, config.width)
        nn.init.normal_(self.embedding.weight, std=0.02)
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.layers))
        self.norm = nn.LayerNorm(config.width, bias=False)
        cos, sin = rotary_tables(config)
        self.register_buffer("cos", cos, persistent=False)
        self.register_buffer("sin", sin, persistent=False)

    def forward(self, ids: Tensor) -> Tensor:
        """Whole windows, each from position 0."""
        cos, sin = self.cos[: ids.shape[1]], self.sin[: ids.shape[1]]
        square = torch.full((1, *ids.shape[1:] * 2), -torch.inf, dtype=cos.dtype)
        unseen = square.triu(1)
        x = dropout(self.embedding(ids), self.config.dropout if self.training else 0.0)
        for block in self.blocks:
            x = block(x, cos, sin, unseen)
        return F.linear(self.norm(x), self.embedding.weight)


class Step(nn.Module):
    """The graph that serves, but for the sampler: new tokens of each row and its cache -> logits, and the cache with them."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.model = Transformer(config)

    def forward(
        self,
        input_ids: Tensor,
        select: Tensor,
        seqlens_k: Tensor,
        total_sequence_length: Tensor,
        *past: Tensor,
    ) -> tuple[Tensor, ...]:
        """`input_ids` and `select` are i64 [batch, time] and [batch, selected]; see `Lengths` and `Cache`.

        `past` holds the layers' keys and values in turn. Several new tokens on top of a past need batch 1.
        """
        model = self.model
        lengths = Lengths(seqlens_k, total_sequence_length)
        x = model.embedding(input_ids)
        present: list[Tensor] = []
        for layer, block in enumerate(cast("Sequence[Block]", model.blocks)):
            before = (past[2 * layer], past[2 * layer + 1])
            mixed, after = block.attention.cached(
                block.attention_norm(x), before, lengths, (model.cos, model.sin)
            )
            x = x + mixed
            x = x + block.feed_forward(x)
            present.extend(after)
        chosen = x.gather(1, select[..., None].expand(-1, -1, x.shape[-1]))
        logits = F.linear(model.norm(chosen), model.embedding.weight)
        return (logits, *present)
