"""The table model's net: what each value of a row should be by the others, and how far the row is from normal ones.

Rows are independent to the last bit: sums are products with ones, and numbers lie in fours, because ONNX Runtime's own sums
and functions treat what does not fill a register otherwise. Knows no data.
"""

import math
from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor, nn
from torch.nn import functional

MODES: Final = 4
"""Gaussians that a value's distribution is made of."""

NEAREST: Final = 4
SPARE: Final = 12
"""Nearest rows are found by rounded distances, and this many more than wanted measured exactly."""

FAR: Final = 6.0
"""Deviations that no value is taken to exceed, however large it is."""

TOUCHING: Final = 0.02
"""Distance in deviations, below which rows are the same."""

_ANYTHING: Final = 0.05  # share of values that may be anything within FAR: none surprises without end
_DOUBTED: Final = 100.0  # rows a feature at which the net is trusted half
_WEIGHT: Final = 2.0  # of the distance beside the trusted net


@dataclass(frozen=True)
class Config:
    """Sizes: the columns and the rows that are kept of the data, and the net's own."""

    features: int
    rows: int
    width: int = 128
    latent: int = 32
    blocks: int = 3


def trust(rows: int, features: int) -> float:
    """Of a net that learned from so many rows: between 0 and 1."""
    return rows / (rows + _DOUBTED * features)


def squash(columns: Tensor) -> Tensor:
    """Columns within FAR deviations, small ones as they are: of square roots, which are exact whoever computes them."""
    return columns / (1 + (columns / FAR).square()).sqrt()


def stretch(squashed: Tensor) -> Tensor:
    """What `squash` made of columns, as columns again."""
    inside = squashed.clamp(-0.99 * FAR, 0.99 * FAR)
    return inside / (1 - (inside / FAR).square()).sqrt()


def total(values: Tensor) -> Tensor:
    """Sums [...] over the last axis."""
    return values @ values.new_ones(values.shape[-1])


@dataclass(frozen=True)
class Beliefs:
    """Distributions of values: weights, centres and deviations of Gaussians, each [..., MODES]."""

    weight: Tensor
    centre: Tensor
    deviation: Tensor

    def mean(self) -> Tensor:
        """Expected values [...]."""
        return total(self.weight * self.centre)

    def variance(self) -> Tensor:
        """Of the values [...]."""
        apart = self.centre - self.mean().unsqueeze(-1)
        return total(self.weight * (self.deviation.square() + apart.square()))

    def surprise(self, values: Tensor) -> Tensor:
        """Negative log-likelihoods [...] in nats."""
        far = (values.unsqueeze(-1) - self.centre) / self.deviation
        exponents = -0.5 * far.square() - 0.5 * math.log(2 * math.pi)
        likely = total(self.weight / self.deviation * exponents.exp())
        return -((1 - _ANYTHING) * likely + _ANYTHING / (2 * FAR)).log()


class Block(nn.Module):
    """A residual layer."""

    def __init__(self, width: int, dropout: float = 0.1) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.first, self.second = nn.Linear(width, width), nn.Linear(width, width)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        """Of [batch, width]."""
        found: Tensor = x + self.second(self.dropout(functional.gelu(self.first(self.norm(x)))))
        return found


class Autoencoder(nn.Module):
    """A row of which some values are hidden, to a latent, to distributions of all of its values; and the normal rows."""

    kept: Tensor  # [rows, features], squashed
    trust: Tensor  # [1]: what the surprise counts in a row's score

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        width = config.width
        self.first = nn.Linear(2 * config.features, width)
        self.encoder = nn.Sequential(
            *(Block(width) for _ in range(config.blocks)),
            nn.LayerNorm(width),
            nn.Linear(width, config.latent),
        )
        self.decoder = nn.Sequential(
            nn.Linear(config.latent, width),
            Block(width),
            nn.LayerNorm(width),
            nn.Linear(width, 3 * MODES * config.features),
        )
        self.kept = nn.Parameter(torch.zeros(config.rows, config.features), requires_grad=False)
        self.trust = nn.Parameter(torch.ones(1), requires_grad=False)

    def read(self, squashed: Tensor, known: Tensor) -> Tensor:
        """Latents [batch, latent] of squashed columns [batch, features], where `known` is 1."""
        latent: Tensor = self.encoder(self.first(torch.cat([squashed * known, known], 1)))
        return latent

    def believe(self, latent: Tensor) -> Beliefs:
        """What every value [batch, features] may be."""
        raw = self.decoder(latent).unflatten(1, (3, self.config.features, MODES))
        weight = raw[:, 0].clamp(-10.0, 10.0).exp()
        return Beliefs(weight / total(weight).unsqueeze(-1), raw[:, 1], raw[:, 2].clamp(-1.5, 1.5).exp())

    def forward(self, squashed: Tensor, known: Tensor) -> Beliefs:
        """What the values may be by those that are known."""
        return self.believe(self.read(squashed, known))

    def decode(self, latent: Tensor) -> Tensor:
        """Columns [batch, features] of latents."""
        return stretch(self.believe(latent).mean())

    def fill(self, squashed: Tensor, known: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Columns [batch, features], latents, and distances [batch] from the nearest normal rows.

        What is not known is the mean of what the net expects and of what those rows have there.
        """
        latent = self.read(squashed, known)
        expected = self.believe(latent).mean()
        distance, theirs = self._nearest(squashed, known)
        return stretch(expected + (1 - known) * (theirs - expected) / 2), latent, distance

    def reconstruct(self, columns: Tensor, known: Tensor) -> tuple[Tensor, ...]:
        """Reconstruction, latent, the scores `density`, `surprise` and `distance`, and contributions [batch, features].

        `surprise`: nats a known value, each by the other ones. `distance`: the logarithm of the distance from the nearest
        normal rows. Both are estimates of a density's logarithm, by value; `density` is a sum, in which the surprise counts the
        more the more rows it was learned from. Contributions are squared errors of the values by the others, in their
        expected deviation.
        """
        squashed = squash(columns) * known
        redrawn, latent, distance = self.fill(squashed, known)
        surprise, squares = self._each_by_the_others(squashed, known)
        mean = total(surprise * known) / _count(known)
        density = self.trust * mean + _WEIGHT * distance
        return redrawn, latent, density, mean, distance, squares * known

    def _each_by_the_others(self, squashed: Tensor, known: Tensor) -> tuple[Tensor, Tensor]:
        """Surprise at each value and its squared error, [batch, features]: a row becomes one for each feature, without it."""
        size = self.config.features
        one = torch.eye(size, dtype=squashed.dtype)
        without = (known.unsqueeze(1) * (1 - one)).flatten(0, 1)
        rows = squashed.unsqueeze(1).expand(-1, size, -1).flatten(0, 1)
        beliefs = self(rows, without)
        own = Beliefs(*(_own(each, one) for each in (beliefs.weight, beliefs.centre, beliefs.deviation)))
        return own.surprise(squashed), (squashed - own.mean()).square() / own.variance()

    def _nearest(self, squashed: Tensor, known: Tensor) -> tuple[Tensor, Tensor]:
        """Mean logarithm of the distances [batch] to the nearest of the kept rows, and the mean of these [batch, features].

        |x - t|^2 as |x|^2 - 2xt + |t|^2 is two products for all rows, but only chooses which are measured.
        """
        rough = known @ self.kept.square().T - 2 * squashed @ self.kept.T
        most = min(NEAREST + SPARE, len(self.kept))
        chosen = self.kept[rough.topk(most, dim=1, largest=False).indices]
        squares = total((squashed.unsqueeze(1) - chosen).square() * known.unsqueeze(1))
        nearest, places = squares.topk(min(NEAREST, most), dim=1, largest=False)
        theirs = chosen.gather(1, places.unsqueeze(2).expand(-1, -1, chosen.shape[2]))
        share = theirs.new_full((1, theirs.shape[1]), 1 / theirs.shape[1])
        # Of a value, so that rows of which little is known are no nearer.
        logs = (nearest / _count(known).unsqueeze(1) + TOUCHING**2).log()
        return total(logs) / (2 * logs.shape[1]), (share @ theirs).squeeze(1)


def _count(known: Tensor) -> Tensor:
    return total(known).clamp_min(1.0)


def _own(values: Tensor, one: Tensor) -> Tensor:
    """Of values [batch * features, features, MODES] what each of a row's copies says of the feature it is without."""
    size = len(one)
    copies = values.unflatten(0, (-1, size)) * one.unsqueeze(-1)
    # From the left: ONNX Runtime 1.31 fuses a transposition into a product with a vector, and gets it wrong.
    own: Tensor = (one.new_ones(1, size) @ copies).squeeze(2)
    return own
