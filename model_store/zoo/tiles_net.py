"""The net of tiles-flow: a text encoder, and a U-shaped velocity net that reads its context. Knows no training.

Convolutions from end to end, 1x1 ones in the place of matrices: ONNX Runtime computes them row by row of the batch, so a
picture's bytes do not depend on its neighbours.
"""

from dataclasses import dataclass
from typing import Final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model_store.zoo.flow import chebyshev
from model_store.zoo.tiles import CHANNELS, SIDE
from model_store.zoo.tiles_prompts import TOKENS, VOCABULARY


@dataclass(frozen=True)
class Config:
    """Sizes: `fine` channels at half the picture's side, `coarse` at a quarter, where text is read in `layers` blocks."""

    fine: int = 96
    coarse: int = 192
    layers: int = 5
    heads: int = 4
    words: int = 128
    readers: int = 2
    condition: int = 128
    vocabulary: int = VOCABULARY
    degree: int = 16


SIZES: Final = Config()


class Attention(nn.Module):
    """Tokens [batch, width, count] look at those of another sequence [batch, other, count], or at themselves."""

    def __init__(self, width: int, other: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query = nn.Conv1d(width, width, 1, bias=False)
        self.seen = nn.Conv1d(other, 2 * width, 1, bias=False)
        self.out = nn.Conv1d(width, width, 1)
        nn.init.zeros_(self.out.weight)

    def forward(self, x: Tensor, other: Tensor) -> Tensor:
        """What x adds to itself [batch, width, count]."""
        key, value = self.seen(other).chunk(2, dim=1)
        parts = (self._headed(self.query(x)), self._headed(key), self._headed(value))
        mixed = F.scaled_dot_product_attention(*parts)
        found: Tensor = self.out(mixed.mT.flatten(1, 2))
        return found

    def _headed(self, x: Tensor) -> Tensor:
        headed: Tensor = x.unflatten(1, (self.heads, -1)).mT
        return headed


class Feed(nn.Sequential):
    """Two 1x1 convolutions over tokens [batch, width, count]."""

    def __init__(self, width: int, hidden: int) -> None:
        last = nn.Conv1d(hidden, width, 1)
        super().__init__(nn.Conv1d(width, hidden, 1), nn.SiLU(), last)
        nn.init.zeros_(last.weight)


class Reader(nn.Module):
    """One layer of the text encoder."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.first, self.second = nn.GroupNorm(1, width), nn.GroupNorm(1, width)
        self.attention = Attention(width, width, heads)
        self.feed = Feed(width, 3 * width)

    def forward(self, x: Tensor) -> Tensor:
        """Tokens [batch, width, count] to the same."""
        normal = self.first(x)
        x = x + self.attention(normal, normal)
        done: Tensor = x + self.feed(self.second(x))
        return done


class Words(nn.Module):
    """The text encoder: token ids to as many vectors; padding is a word as any other."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.embed = nn.Embedding(config.vocabulary, config.words)
        self.place = nn.Parameter(0.02 * torch.randn(TOKENS, config.words))
        self.readers = nn.Sequential(*(Reader(config.words, config.heads) for _ in range(config.readers)))
        self.norm = nn.GroupNorm(1, config.words)
        nn.init.normal_(self.embed.weight, std=0.3)

    def forward(self, text: Tensor, length: Tensor) -> Tensor:
        """Context [batch, TOKENS, words] of token ids [batch, TOKENS], of which the first `length` [batch] count."""
        counts = torch.arange(TOKENS) < length[:, None]
        x = (self.embed(torch.where(counts, text, 0)) + self.place).mT
        context: Tensor = self.norm(self.readers(x)).mT
        return context


class Modulated(nn.Module):
    """Group normalisation whose gain and bias come from the condition; at first it moves nothing."""

    def __init__(self, channels: int, condition: int) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(8, channels)
        self.affine = nn.Conv2d(condition, 2 * channels, 1)
        nn.init.zeros_(self.affine.weight)
        nn.init.zeros_(self.affine.bias)  # type: ignore[arg-type]

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        """Normalise x [batch, C, H, W] under condition [batch, condition, 1, 1]."""
        gain, bias = self.affine(condition).chunk(2, dim=1)
        normal: Tensor = self.norm(x) * (1.0 + gain) + bias
        return normal


class Residual(nn.Module):
    """Two 3x3 convolutions beside a shortcut."""

    def __init__(self, inputs: int, outputs: int, condition: int) -> None:
        super().__init__()
        self.first_norm, self.second_norm = nn.GroupNorm(8, inputs), Modulated(outputs, condition)
        self.first = nn.Conv2d(inputs, outputs, 3, padding=1)
        self.second = nn.Conv2d(outputs, outputs, 3, padding=1)
        self.short = nn.Conv2d(inputs, outputs, 1) if inputs != outputs else nn.Identity()
        nn.init.zeros_(self.second.weight)

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        """Map [batch, inputs, H, W] to [batch, outputs, H, W]."""
        inner = self.first(F.silu(self.first_norm(x)))
        inner = self.second(F.silu(self.second_norm(inner, condition)))
        done: Tensor = self.short(x) + inner
        return done


class Block(nn.Module):
    """One layer at the coarse side: places look at each other and at the words, each thinks for itself."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        width = config.coarse
        self.first, self.third = Modulated(width, config.condition), Modulated(width, config.condition)
        self.second = nn.GroupNorm(8, width)
        self.near = nn.Conv2d(width, width, 3, padding=1, groups=width)
        self.attention = Attention(width, width, config.heads)
        self.reading = Attention(width, config.words, config.heads)
        self.feed = Feed(width, 5 * width // 2)

    def forward(self, x: Tensor, condition: Tensor, words: Tensor) -> Tensor:
        """Map [batch, coarse, H, W] to the same; `words` are [batch, words, TOKENS]."""
        shape = x.shape[2:]
        normal = self.first(x + self.near(x), condition).flatten(2)
        x = x + self.attention(normal, normal).unflatten(2, shape)
        x = x + self.reading(self.second(x).flatten(2), words).unflatten(2, shape)
        done: Tensor = x + self.feed(self.third(x, condition).flatten(2)).unflatten(2, shape)
        return done


class Velocity(nn.Module):
    """dx/dt of x_t = (1 - t) noise + t picture, given t and what the words say."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        fine, coarse, condition = config.fine, config.coarse, config.condition
        self.degree = config.degree
        self.time = nn.Conv2d(config.degree, condition, 1)
        self.gist = nn.Conv2d(config.words, condition, 1)
        self.mix = nn.Conv2d(condition, condition, 1)
        self.start = nn.Conv2d(4 * CHANNELS, fine, 3, padding=1)
        self.down = Residual(fine, fine, condition)
        self.shrink = nn.Conv2d(4 * fine, coarse, 1)
        self.place = nn.Parameter(0.02 * torch.randn(coarse, SIDE // 4, SIDE // 4))
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.layers))
        self.grow = nn.Conv2d(coarse, 4 * fine, 1)
        self.up = Residual(2 * fine, fine, condition)
        self.last = Residual(fine, fine, condition)
        self.norm = nn.GroupNorm(8, fine)
        self.finish = nn.Conv2d(fine, 4 * CHANNELS, 3, padding=1)
        nn.init.zeros_(self.finish.weight)
        nn.init.zeros_(self.finish.bias)  # type: ignore[arg-type]

    def forward(self, latent: Tensor, time: Tensor, context: Tensor) -> Tensor:
        """Velocity [batch, 4, 32, 32] of `latent` at `time` [batch] under `context` [batch, TOKENS, words]."""
        words = context.mT
        told = chebyshev(time, self.degree)[:, :, None, None]
        gist = self.gist(words.mean(2)[:, :, None, None])
        condition = F.silu(self.mix(F.silu(self.time(told) + gist)))
        fine = self.down(self.start(F.pixel_unshuffle(latent, 2)), condition)
        x = self.shrink(F.pixel_unshuffle(fine, 2)) + self.place
        for block in self.blocks:
            x = block(x, condition, words)
        x = self.up(torch.cat([F.pixel_shuffle(self.grow(x), 2), fine], dim=1), condition)
        x = self.last(x, condition)
        velocity: Tensor = F.pixel_shuffle(self.finish(F.silu(self.norm(x))), 2)
        return velocity


class TextToImage(nn.Module):
    """Both nets, trained together; served as the graphs `condition` and `denoise`."""

    def __init__(self, config: Config = SIZES) -> None:
        super().__init__()
        self.config = config
        self.words = Words(config)
        self.velocity = Velocity(config)

    def condition(self, text: Tensor, length: Tensor) -> Tensor:
        """Context [batch, TOKENS, words] of a prompt; length 0 asks for nothing in particular."""
        context: Tensor = self.words(text, length)
        return context

    def denoise(self, latent: Tensor, time: Tensor, context: Tensor) -> Tensor:
        """Velocity of noisy pictures; see `Velocity`."""
        velocity: Tensor = self.velocity(latent, time, context)
        return velocity

    def forward(self, latent: Tensor, time: Tensor, text: Tensor, length: Tensor) -> Tensor:
        """Velocity of noisy pictures under prompts: what is trained."""
        return self.denoise(latent, time, self.condition(text, length))
