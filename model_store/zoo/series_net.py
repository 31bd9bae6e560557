"""The series model's net: how strange the last step of a window is, by three measures, beside the steps before it.

It judges steps in their window's own terms, so nothing depends on a series' unit, level or noise, and never looks ahead. Sums are
products with ones: ONNX Runtime's own depend on where a row stands in memory. Knows no data.
"""

import math
from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor, nn
from torch.nn import functional

SHARE: Final = 0.02
"""Of the steps before, those whose values make the tail that the last one is held against."""

LEAST: Final = 3
FEWEST: Final = 20
"""Steps before it, below which the last one is not judged."""

MOST: Final = 30.0
"""Nats that one measure says at most."""

_FLOOR: Final = 0.05  # of a measure's own deviation, which its tail is taken to be wide at least
_NOISE: Final = 0.02  # deviations of a window, by which shapes that are the same differ
_NOWHERE: Final = 1e6


@dataclass(frozen=True)
class Config:
    """Sizes in steps: of a window, of what a step is foretold by, of shapes, and how far apart those that are compared lie."""

    window: int = 3072
    past: int = 64
    shape: int = 48
    apart: int = 64
    width: int = 64
    latent: int = 16


def total(values: Tensor) -> Tensor:
    """Sums [...] over the last axis."""
    return values @ values.new_ones(values.shape[-1])


class Autoencoder(nn.Module):
    """The steps before one, as a latent, and from it the step itself: expected value and deviation."""

    places: Tensor  # where shapes begin that others are held against
    apart: Tensor  # bool [places, shapes]: which have no step in common

    def __init__(self, config: Config = Config()) -> None:
        super().__init__()
        self.config = config
        self.encoder = nn.Sequential(
            nn.Conv1d(2 * config.past, config.width, 1),
            nn.GELU(),
            nn.Conv1d(config.width, config.latent, 1),
        )
        self.decoder = nn.Sequential(
            nn.Conv1d(config.latent, config.width, 1), nn.GELU(), nn.Conv1d(config.width, 2, 1)
        )
        self.tail = Tail(config.window - 1)
        # By rounding alone, what repeats exactly would differ by many widths of its tail.
        self.shapes = Tail(len(self._references()), least=_NOISE * math.sqrt(config.shape))
        # As it is stored: in a graph the numbers it comes of would take eight times as much.
        places, every = torch.tensor(self._references()), torch.arange(config.window - config.shape + 1)
        apart = (places[:, None] - every).abs() >= config.shape
        self.register_buffer("places", places, persistent=False)
        self.register_buffer("apart", apart, persistent=False)

    # -- the step by those before it -----------------------------------------------------------------------------------

    def expect(self, values: Tensor, known: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Expected value, its deviation, that of the past, and latent [batch, latent, steps], of values [batch, steps].

        The others are [batch, steps]; each step is told those before it only.
        """
        past, told = (
            _cut(functional.pad(each, (self.config.past, 0)), self.config.past)[..., :-1]
            for each in (values, known)
        )
        ones = past.new_ones(1, self.config.past)
        count = (ones @ told).clamp_min(1.0)
        mean = ones @ (past * told) / count
        centred = (past - mean) * told
        deviation = (ones @ centred.square() / count + 1e-6).sqrt()
        latent = self.encoder(torch.cat([centred / deviation, told], 1))
        raw = self.decoder(latent)
        spread = raw[:, 1].clamp(-6.0, 3.0).exp() * deviation[:, 0]
        return mean[:, 0] + raw[:, 0] * deviation[:, 0], spread + 1e-3, deviation[:, 0], latent

    # -- scores --------------------------------------------------------------------------------------------------------

    def reconstruct(self, window: Tensor, known: Tensor) -> tuple[Tensor, ...]:
        """Reconstruction [batch, window, 1], latent [batch, latent] and the scores [batch] of windows [batch, window, 1]."""
        values, told = window[:, :, 0] * known[:, :, 0], known[:, :, 0]
        expected, spread, _, latent = self.expect(values, told)
        found = self._judged(values, told, _far(values, expected, spread), self._shapes(values, told))
        return expected.unsqueeze(2), latent[:, :, -1], *found

    def judge(self, stretch: Tensor, known: Tensor) -> tuple[Tensor, ...]:
        """The scores [steps] of the last steps of a stretch [1, window + steps - 1], each by its own window.

        But for shapes: those of all steps are held against what was usual in the first window.
        """
        expected, spread, _, _ = self.expect(stretch, known)
        size = self.config.window
        values, told, far = (
            each[0].unfold(0, size, 1) for each in (stretch, known, _far(stretch, expected, spread))
        )
        usual, there = (
            each.expand(len(values), -1) for each in self._usual(stretch[:, :size], known[:, :size])
        )
        last, judged = self._last(stretch, known, len(values))
        shapes = torch.cat([usual, last[0, :, None]], 1), torch.cat([there, judged[0, :, None]], 1)
        return self._judged(values, told, far, shapes)

    def _shapes(self, values: Tensor, told: Tensor) -> tuple[Tensor, Tensor]:
        """How far shapes of windows are from the nearest ones, the last window's last, and which there are."""
        usual, last = self._usual(values, told), self._last(values, told, 1)
        return torch.cat([usual[0], last[0]], 1), torch.cat([usual[1], last[1]], 1)

    def _judged(
        self, values: Tensor, told: Tensor, far: Tensor, shapes: tuple[Tensor, Tensor]
    ) -> tuple[Tensor, ...]:
        """Scores of windows [batch, window], which are told how far each step is from what was expected.

        `level`: the last value beside all before, upwards or downwards. `surprise`: how far it is beside the steps
        before. `shape`: the distance of the last steps from the most alike ones before, beside that of
        others. Each is a negative log-probability in nats, and `strangeness`, the first, their sum.
        """
        level = torch.maximum(self.tail(values, told), self.tail(-values, told))
        surprise = self.tail(far, told)
        shape = self.shapes(*shapes, fewest=LEAST + 1)
        return level + surprise + shape, level, surprise, shape

    def _references(self) -> list[int]:
        """Where shapes begin that the last one is held against: none of its own steps is among them."""
        first = self.config.window - 2 * self.config.shape
        return list(range(first % self.config.apart, first + 1, self.config.apart))

    def _usual(self, values: Tensor, told: Tensor) -> tuple[Tensor, Tensor]:
        """Of windows [batch, window], how far some shapes are from the nearest other ones."""
        return self._nearest(values, told, self.places, self.apart)

    def _last(self, values: Tensor, told: Tensor, count: int) -> tuple[Tensor, Tensor]:
        """How far the last shapes [batch, count] are from the nearest ones before, in a window each."""
        every = torch.arange(values.shape[1] - self.config.shape + 1)
        places = every[-count:]
        before = places[:, None] - every
        others = (before >= self.config.shape) & (before <= self.config.window - self.config.shape)
        return self._nearest(values, told, places, others)

    def _nearest(self, values: Tensor, told: Tensor, places: Tensor, others: Tensor) -> tuple[Tensor, Tensor]:
        """Distances [batch, places] of shapes to the nearest of those in bool [places, shapes], and 1 where there is one."""
        size = self.config.shape
        shapes = _cut(values, size)
        ones = values.new_ones(1, 1, size)
        whole = functional.conv1d(told.unsqueeze(1), ones) > size - 0.5  # [batch, 1, shapes]
        lengths = functional.conv1d(values.square().unsqueeze(1), ones)
        own = shapes.index_select(2, places).movedim(1, 2)
        squares = lengths.index_select(2, places).movedim(1, 2) + lengths - 2 * own @ shapes
        apart = torch.where(others & whole, squares.clamp_min(0.0), _NOWHERE).amin(2)
        there = whole[:, 0].index_select(1, places) & (apart < _NOWHERE)
        return apart.sqrt(), there.to(values.dtype)


class Tail(nn.Module):
    """How improbable the last of a row of values is by an exponential tail of those before it, in nats.

    The tail is `least` wide at least, and a share of their deviation: what repeats itself exactly has none of its own.
    What depends on their number alone is looked up: a logarithm's last bit depends on how many are taken at once.
    """

    sizes: Tensor  # [before + 1]: how many make the tail
    odds: Tensor  # [before + 1]: minus the logarithm of that share

    def __init__(self, before: int, least: float = 1e-6) -> None:
        super().__init__()
        self.least = least
        self.most = max(math.floor(before * SHARE), LEAST)
        counts = torch.arange(before + 1.0)
        sizes = (counts * SHARE).floor().clamp(float(LEAST), float(self.most))
        self.register_buffer("sizes", sizes, persistent=False)
        self.register_buffer("odds", (counts.clamp_min(1.0) / sizes).log(), persistent=False)

    def forward(self, values: Tensor, known: Tensor, fewest: int = FEWEST) -> Tensor:
        """[batch] of values [batch, steps]; what is not known is nothing to go by, and nothing to judge."""
        before, told = values[:, :-1], known[:, :-1]
        count = total(told)
        mean = total(before * told) / count.clamp_min(1.0)
        deviation = (total(((before - mean.unsqueeze(1)) * told).square()) / count.clamp_min(1.0)).sqrt()
        top = torch.where(told > 0, before, -_NOWHERE).topk(self.most + 1, dim=1).values
        size = self.sizes[count.long()]
        place = torch.arange(self.most + 1, dtype=values.dtype)
        inside = (place < size.unsqueeze(1)).to(values.dtype)
        start = total(top * (place == size.unsqueeze(1)).to(values.dtype))
        width = total(top * inside) / size - start + _FLOOR * deviation + self.least
        nats = (values[:, -1] - start) / width + self.odds[count.long()]
        judged = (count >= fewest) & (known[:, -1] > 0)
        return torch.where(judged, nats.clamp(0.0, MOST), 0.0)


def _cut(values: Tensor, size: int) -> Tensor:
    """All pieces [batch, size, count] of so many steps of values [batch, steps]."""
    return functional.conv1d(values.unsqueeze(1), torch.eye(size, dtype=values.dtype).unsqueeze(1))


def _far(values: Tensor, expected: Tensor, spread: Tensor) -> Tensor:
    """Distances from what was expected, of which large ones differ little."""
    return (1 + (values - expected).abs() / spread).log()
