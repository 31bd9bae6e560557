"""An encoder-decoder Transformer: a source is read once, both ways, and a target is written from it token by token.

Built of the decoder Transformer's blocks, and served like it; what a source leaves is the keys and values that every decoder
layer looks at. Knows no data and no training.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model_store.zoo import transformer
from model_store.zoo.training import dropout
from model_store.zoo.transformer import Block, Cache, Lengths, attend, rotary_tables

HIDDEN: Final = -1e30
"""Added to the score of a place that may not be seen. Finite, so that a row without a source gives numbers."""


@dataclass(frozen=True)
class Config:
    """Sizes. `source` and `target` are the longest sequences in tokens; vocabulary and embedding are shared by both."""

    vocabulary: int = 4096
    source: int = 64
    target: int = 96
    encoder_layers: int = 4
    decoder_layers: int = 2
    width: int = 192
    heads: int = 4
    hidden: int = 768
    dropout: float = 0.1

    @property
    def head_dim(self) -> int:
        """Width of one head."""
        return self.width // self.heads

    def blocks(self, context: int, layers: int) -> transformer.Config:
        """The same sizes for one of the two stacks."""
        return transformer.Config(
            vocabulary=self.vocabulary,
            context=context,
            layers=layers,
            width=self.width,
            heads=self.heads,
            kv_heads=self.heads,
            hidden=self.hidden,
            dropout=self.dropout,
        )


def unseen_beyond(length: Tensor, places: int, dtype: torch.dtype) -> Tensor:
    """[batch, 1, places]: 0 before each row's `length` [batch] and HIDDEN from there on."""
    beyond = torch.arange(places) >= length[:, None]
    return torch.zeros(beyond.shape, dtype=dtype).masked_fill(beyond, HIDDEN)[:, None]


class CrossAttention(nn.Module):
    """Attention of a target [batch, time, width] to a source's keys and values. Positions play no part."""

    def __init__(self, config: transformer.Config) -> None:
        super().__init__()
        self.head_dim = config.head_dim
        self.query = nn.Linear(config.width, config.width, bias=False)
        self.key = nn.Linear(config.width, config.width, bias=False)
        self.value = nn.Linear(config.width, config.width, bias=False)
        self.out = nn.Linear(config.width, config.width, bias=False)
        nn.init.zeros_(self.out.weight)

    def heads(self, wide: Tensor) -> Tensor:
        """[batch, time, width] -> [batch, heads, time, head_dim]."""
        batch, time, _ = wide.shape
        return wide.reshape(batch, time, -1, self.head_dim).transpose(1, 2)

    def memory(self, source: Tensor) -> Cache:
        """What a target looks at: keys and values [batch, heads, source, head_dim] of [batch, source, width]."""
        return self.heads(self.key(source)), self.heads(self.value(source))

    def forward(self, x: Tensor, memory: Cache, unseen: Tensor) -> Tensor:
        """[batch, time, width] -> the same shape; `unseen` [batch, 1, source] is added to the scores."""
        mixed: Tensor = self.out(attend(self.heads(self.query(x)), *memory, unseen))
        return mixed


class CrossBlock(Block):
    """A decoder block that looks at the source after it looked at the target."""

    def __init__(self, config: transformer.Config) -> None:
        super().__init__(config)
        self.cross_norm = nn.LayerNorm(config.width, bias=False)
        self.cross = CrossAttention(config)

    def look(self, x: Tensor, memory: Cache, unseen: Tensor) -> Tensor:
        """What the source adds to [batch, time, width]."""
        seen: Tensor = self.cross(self.cross_norm(x), memory, unseen)
        return seen

    def reading(self, x: Tensor, tables: Cache, ahead: Tensor, memory: Cache, beyond: Tensor) -> Tensor:
        """Whole targets, for training: `ahead` hides later places of the target, `beyond` the source's padding."""
        chance = self.dropout if self.training else 0.0
        x = x + dropout(self.attention(self.attention_norm(x), *tables, ahead), chance)
        x = x + dropout(self.look(x, memory, beyond), chance)
        return x + dropout(self.feed_forward(x), chance)


class EncoderDecoder(nn.Module):
    """Source ids and target ids -> next-token logits of the target; no cache."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        encoder = config.blocks(config.source, config.encoder_layers)
        decoder = config.blocks(config.target, config.decoder_layers)
        self.embedding = nn.Embedding(config.vocabulary, config.width)
        nn.init.normal_(self.embedding.weight, std=0.02)
        self.encoder = nn.ModuleList(Block(encoder) for _ in range(encoder.layers))
        self.encoder_norm = nn.LayerNorm(config.width, bias=False)
        self.decoder = nn.ModuleList(CrossBlock(decoder) for _ in range(decoder.layers))
        self.norm = nn.LayerNorm(config.width, bias=False)
        for side, sizes in (("source", encoder), ("target", decoder)):
            cos, sin = rotary_tables(sizes)
            self.register_buffer(f"{side}_cos", cos, persistent=False)
            self.register_buffer(f"{side}_sin", sin, persistent=False)

    def tables(self, side: str, places: Tensor) -> Cache:
        """Rotations of `places` of the `source` or `target`."""
        cos, sin = self.get_buffer(f"{side}_cos"), self.get_buffer(f"{side}_sin")
        return cos[places], sin[places]

    def embed(self, ids: Tensor) -> Tensor:
        """Token ids [batch, time] -> [batch, time, width]."""
        return dropout(self.embedding(ids), self.config.dropout if self.training else 0.0)

    def read(self, source: Tensor, length: Tensor) -> Tensor:
        """Source ids [batch, time], of which `length` [batch] are real -> what they mean, [batch, time, width]."""
        places = torch.arange(source.shape[1])
        tables, x = self.tables("source", places), self.embed(source)
        beyond = unseen_beyond(length, source.shape[1], x.dtype)
        for block in self.encoder:
            x = block(x, *tables, beyond)
        meaning: Tensor = self.encoder_norm(x)
        return meaning

    def forward(self, source: Tensor, length: Tensor, target: Tensor) -> Tensor:
        """Logits [batch, time, vocabulary] of what follows each token of `target` [batch, time]."""
        meaning = self.read(source, length)
        x, time = self.embed(target), target.shape[1]
        tables = self.tables("target", torch.arange(time))
        ahead = torch.full((1, time, time), HIDDEN, dtype=x.dtype).triu(1)
        beyond = unseen_beyond(length, source.shape[1], x.dtype)
        for block in cast("Sequence[CrossBlock]", self.decoder):
            x = block.reading(x, tables, ahead, block.cross.memory(meaning), beyond)
        return F.linear(self.norm(x), self.embedding.weight)


class Step(nn.Module):
    """The two graphs that serve, but for the sampler: `encode` reads sources, `forward` writes one step of their targets."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.model = EncoderDecoder(config)

    def encode(self, input_ids: Tensor, length: Tensor) -> tuple[Tensor, ...]:
        """Right-padded sources i64 [batch, time] and their lengths i32 [batch] -> what every decoder layer looks at.

        These are the layers' keys and values in turn, each f32 [batch, heads, source, head_dim], zero beyond the length.
        """
        model = self.model
        meaning = model.read(input_ids, length)
        places = torch.arange(model.config.source)
        # Places that the batch does not have repeat its last one, and are zeroed with all that is beyond a row's length.
        meaning = meaning[:, places.clamp(max=input_ids.shape[1] - 1)]
        real = (places < length[:, None])[:, None, :, None]
        return tuple(
            torch.where(real, part, torch.zeros_like(part))
            for block in cast("Sequence[CrossBlock]", model.decoder)
            for part in block.cross.memory(meaning)
        )

    def forward(
        self,
        input_ids: Tensor,
        select: Tensor,
        seqlens_k: Tensor,
        total_sequence_length: Tensor,
        source_length: Tensor,
        *state: Tensor,
    ) -> tuple[Tensor, ...]:
        """As the decoder Transformer's step; `state` is its cache and then what `encode` gave, of sources of `source_length` [batch]."""
        model = self.model
        lengths = Lengths(seqlens_k, total_sequence_length)
        past, cross = state[: len(state) // 2], state[len(state) // 2 :]
        x = model.embedding(input_ids)
        beyond = unseen_beyond(source_length, model.config.source, x.dtype)
        tables = (model.get_buffer("target_cos"), model.get_buffer("target_sin"))
        present: list[Tensor] = []
        for layer, block in enumerate(cast("Sequence[CrossBlock]", model.decoder)):
            pair = slice(2 * layer, 2 * layer + 2)
            before, memory = cast("Cache", past[pair]), cast("Cache", cross[pair])
            mixed, after = block.attention.cached(block.attention_norm(x), before, lengths, tables)
            x = x + mixed
            x = x + block.look(x, memory, beyond)
            x = x + block.feed_forward(x)
            present.extend(after)
        chosen = x.gather(1, select[..., None].expand(-1, -1, x.shape[-1]))
        return (F.linear(model.norm(chosen), model.embedding.weight), *present)
