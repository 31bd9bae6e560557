"""A small U-Net whose velocity a flow follows, under a time and a class.

Convolutions from end to end, each image normalised by itself, so an image's bytes do not depend on the batch it is in. Knows
neither data nor training.
"""

from dataclasses import dataclass
from typing import Final

from torch import Tensor, nn
from torch.nn import functional

from model_store.zoo.flow import chebyshev

GROUP: Final = 8  # channels that are normalised together


@dataclass(frozen=True)
class Config:
    """Channels of the image, and inside at the full side, half and a quarter of it; residual blocks; what tells time and class.

    There are `outer` blocks at half the side on the way down and as many on the way up, and `inner` at a quarter.
    """

    channels: int
    classes: int
    widths: tuple[int, int, int] = (16, 64, 128)
    outer: int = 2
    inner: int = 4
    condition: int = 128
    degree: int = 12


class Condition(nn.Module):
    """Time and class to one vector for each image."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        width = config.condition
        self.degree = config.degree
        self.embed = nn.Embedding(config.classes + 1, width)
        self.time = nn.Conv2d(config.degree, width, 1)
        self.mix = nn.Conv2d(width, width, 1)

    def forward(self, time: Tensor, label: Tensor) -> Tensor:
        """Map time f32 [batch] in [0, 1] and label i64 [batch] to conditions [batch, condition, 1, 1]."""
        told = chebyshev(time, self.degree).to(self.embed.weight.dtype)
        both = self.time(told[:, :, None, None]) + self.embed(label)[:, :, None, None]
        return functional.silu(self.mix(functional.silu(both)))


class Block(nn.Module):
    """Two normalised convolutions beside the stream, the second under the condition; at first they add nothing."""

    def __init__(self, channels: int, condition: int) -> None:
        super().__init__()
        self.norm1 = nn.GroupNorm(channels // GROUP, channels)
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1)
        self.affine = nn.Conv2d(condition, 2 * channels, 1)
        self.norm2 = nn.GroupNorm(channels // GROUP, channels, affine=False)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1)
        for parameter in (*self.affine.parameters(), *self.conv2.parameters()):
            nn.init.zeros_(parameter)

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        """Refine x [batch, C, H, W] under condition [batch, condition, 1, 1]."""
        gain, bias = self.affine(condition).chunk(2, dim=1)
        inner = self.conv1(functional.silu(self.norm1(x)))
        inner = self.conv2(functional.silu(self.norm2(inner) * (1.0 + gain) + bias))
        refined: Tensor = x + inner
        return refined


class Grow(nn.Module):
    """Twice the side: each place becomes four, which a 1x1 convolution computes."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, 4 * outputs, 1)

    def forward(self, x: Tensor) -> Tensor:
        """[batch, inputs, H, W] -> [batch, outputs, 2H, 2W]."""
        return functional.pixel_shuffle(self.conv(x), 2)


class Denoiser(nn.Module):
    """A U-Net over three sides, each half of the one before, that tells in which direction a noisy image moves."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        wide, half, quarter = config.widths
        self.condition = Condition(config)
        self.stem = nn.Conv2d(config.channels, wide, 3, padding=1)
        self.shrink1 = nn.Conv2d(wide, half, 3, stride=2, padding=1)
        self.down = nn.ModuleList(Block(half, config.condition) for _ in range(config.outer))
        self.shrink2 = nn.Conv2d(half, quarter, 3, stride=2, padding=1)
        self.middle = nn.ModuleList(Block(quarter, config.condition) for _ in range(config.inner))
        self.grow2 = Grow(quarter, half)
        self.up = nn.ModuleList(Block(half, config.condition) for _ in range(config.outer))
        self.grow1 = Grow(half, wide)
        self.top = Block(wide, config.condition)
        self.norm = nn.GroupNorm(wide // GROUP, wide)
        self.finish = nn.Conv2d(wide, config.channels, 3, padding=1)
        for parameter in self.finish.parameters():
            nn.init.zeros_(parameter)

    def forward(self, latent: Tensor, time: Tensor, label: Tensor) -> Tensor:
        """Map latent [batch, channels, H, W], time f32 [batch] (0 noise, 1 data) and label i64 [batch] to a velocity.

        Sides are multiples of 4, pixels are in [-1, 1]; the label `classes` stands for any class. The velocity
        [batch, channels, H, W] is that of a unit of time.
        """
        condition = self.condition(time, label)
        full = self.stem(latent)
        half = _through(self.down, self.shrink1(full), condition)
        quarter = _through(self.middle, self.shrink2(half), condition)
        half = _through(self.up, half + self.grow2(quarter), condition)
        full = self.top(full + self.grow1(half), condition)
        velocity: Tensor = self.finish(functional.silu(self.norm(full)))
        return velocity


def _through(blocks: nn.ModuleList, x: Tensor, condition: Tensor) -> Tensor:
    for block in blocks:
        x = block(x, condition)
    return x
