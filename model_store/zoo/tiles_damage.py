"""The four ways in which tiles-edit's pictures are damaged, what anyone would do about each, and how near one comes.

Knows no model. Pictures are premultiplied RGBA [batch, 4, H, W] in [0, 1]; a mask [batch, 1, H, W] is 1 where pixels are lost.
"""

from collections.abc import Callable, Mapping
from typing import Final

import torch
import torch.nn.functional as F
from torch import Tensor

from model_store.imaging import EditTask
from model_store.zoo.fashion_metrics import StructuralSimilarity
from model_store.zoo.tiles import SIDE, on_grey

TASKS: Final[tuple[EditTask, ...]] = ("inpaint", "colorize", "upscale", "denoise")
LUMINANCE: Final = (0.299, 0.587, 0.114)
NOISE: Final = 25 / 255
"""Standard deviation of the noise that figures are measured at; training sees from a third to twice as much."""

WINDOW: Final = 7
BEST_SNR: Final = 50.0
"""Where an error is too small to be seen: a picture that is exactly right counts as this many decibels."""


def luminance(pictures: Tensor) -> Tensor:
    """How bright the premultiplied colours are [batch, 1, H, W]."""
    red, green, blue = pictures[:, 0:1], pictures[:, 1:2], pictures[:, 2:3]
    return LUMINANCE[0] * red + LUMINANCE[1] * green + LUMINANCE[2] * blue


def damage(
    task: str, pictures: Tensor, generator: torch.Generator, noise: float | None = None
) -> tuple[Tensor, Tensor]:
    """Damaged pictures and the mask of what is lost in them; without `noise` its strength is drawn for each."""
    whole = torch.zeros_like(pictures[:, :1])
    alpha = pictures[:, 3:]
    if task == "inpaint":
        lost = holes(pictures, generator)
        return pictures * (1 - lost), lost
    if task == "colorize":
        return torch.cat([luminance(pictures).expand(-1, 3, -1, -1), alpha], dim=1), whole
    if task == "upscale":
        return F.interpolate(F.avg_pool2d(pictures, 2), scale_factor=2.0, mode="nearest"), whole
    draws = torch.rand(len(pictures), 1, 1, 1, generator=generator)
    strength = NOISE * 6.0**draws / 3.0 if noise is None else torch.full_like(draws, noise)
    colours = pictures[:, :3] + alpha * strength * torch.randn(pictures[:, :3].shape, generator=generator)
    return torch.cat([torch.minimum(colours.clamp_min(0.0), alpha), alpha], dim=1), whole


def holes(pictures: Tensor, generator: torch.Generator) -> Tensor:
    """Masks of one or two rectangles, each around a visible pixel and 6 to 16 pixels wide and high."""
    masks = torch.zeros_like(pictures[:, :1])
    for mask, alpha in zip(masks[:, 0], pictures[:, 3], strict=True):
        places = (alpha > 0).nonzero() if bool((alpha > 0).any()) else torch.ones_like(alpha).nonzero()
        for _ in range(int(torch.randint(1, 3, (), generator=generator))):
            place = int(torch.randint(len(places), (), generator=generator))
            row, column = places[place].tolist()
            high, wide = torch.randint(6, 17, (2,), generator=generator).tolist()
            top, left = max(0, row - high // 2), max(0, column - wide // 2)
            mask[top : top + high, left : left + wide] = 1.0
    return masks


def mean_colour(shown: Tensor, lost: Tensor) -> Tensor:
    """Fill holes with the mean of what is left."""
    left = 1 - lost
    mean = (shown * left).sum((2, 3), keepdim=True) / left.sum((2, 3), keepdim=True).clamp_min(1)
    return shown * left + mean * lost


def nearest_fill(shown: Tensor, lost: Tensor) -> Tensor:
    """Fill each lost pixel with the nearest one that is left."""
    high, wide = shown.shape[2:]
    rows, columns = torch.meshgrid(torch.arange(high), torch.arange(wide), indexing="ij")
    places = torch.stack([rows.flatten(), columns.flatten()], dim=1).float()
    distance = torch.cdist(places, places)
    filled = [
        picture.flatten(1)[:, (distance + 1e6 * mask.flatten()).argmin(1)].unflatten(1, (high, wide))
        for picture, mask in zip(shown, lost, strict=True)
    ]
    return torch.stack(filled)


def bicubic(shown: Tensor, _: Tensor) -> Tensor:
    """Enlarge what was enlarged by repetition."""
    return F.interpolate(shown[:, :, ::2, ::2], scale_factor=2.0, mode="bicubic").clamp(0.0, 1.0)


def median(shown: Tensor, _: Tensor) -> Tensor:
    """Take the median of 3x3 pixels in each colour; alpha was given."""
    padded = F.pad(shown[:, :3], (1, 1, 1, 1), mode="replicate")
    around = padded.unfold(2, 3, 1).unfold(3, 3, 1).flatten(4)
    return torch.cat([around.median(4).values, shown[:, 3:]], dim=1)


def untouched(shown: Tensor, _: Tensor) -> Tensor:
    """Leave it as it is."""
    return shown


BASELINES: Final[Mapping[str, Mapping[str, Callable[[Tensor, Tensor], Tensor]]]] = {
    "inpaint": {"mean colour": mean_colour, "nearest pixel": nearest_fill},
    "colorize": {"luminance copied": untouched},
    "upscale": {"bicubic": bicubic, "each pixel repeated": untouched},
    "denoise": {"median of 3x3": median, "left as it is": untouched},
}
"""What needs no model, by task; the better one is what a model must beat."""


def decibels(found: Tensor, right: Tensor, lost: Tensor) -> float:
    """Peak signal-to-noise ratio before grey, of the mean square error of all pixels; where there are holes, of these alone."""
    error, where = _errors(found, right), _counted(lost)
    return float(-10 * ((error * where).sum() / where.sum()).clamp_min(10 ** (-BEST_SNR / 10)).log10())


def mean_decibels(found: Tensor, right: Tensor, lost: Tensor) -> float:
    """Mean over pictures of each one's ratio: what is nearly right already counts for more in it."""
    error, where = _errors(found, right), _counted(lost)
    each = (error * where).sum((1, 2, 3)) / where.sum((1, 2, 3))
    return (-10 * each.clamp_min(10 ** (-BEST_SNR / 10)).log10()).mean().item()


def similarity(found: Tensor, right: Tensor, lost: Tensor) -> float:
    """Mean structural similarity (SSIM, a window of 7) before grey; where there are holes, in these alone."""
    each = similarity_map(found, right)
    where = _counted(lost)
    return ((each * where).sum((1, 2, 3)) / where.sum((1, 2, 3))).mean().item()


def similarity_map(found: Tensor, right: Tensor) -> Tensor:
    """Structural similarity at each pixel [batch, 1, 32, 32], the mean of three colours."""
    a, b = (on_grey(each).flatten(0, 1).unsqueeze(1) for each in (found, right))
    similar: Tensor = StructuralSimilarity(SIDE, WINDOW)(a, b).unflatten(0, (-1, 3)).mean(1)
    return similar


def _errors(found: Tensor, right: Tensor) -> Tensor:
    return (on_grey(found) - on_grey(right)).square().mean(1, keepdim=True)


def _counted(lost: Tensor) -> Tensor:
    return lost if bool(lost.any()) else torch.ones_like(lost)
