"""Evaluates models that change pictures: what they make of damaged ones, beside how these were before."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final, TypeAlias

import numpy as np

from deployments.evaluation.at_once import gathered
from deployments.evaluation.data import Items
from deployments.evaluation.drawings import TOGETHER, drawing_speed
from deployments.evaluation.errors import EvaluationError
from deployments.evaluation.estimates import Sampling, estimate, mean
from deployments.evaluation.likeness import psnr, ssim
from deployments.evaluation.record import Figure
from deployments.evaluation.shown import Found, Grid, Progress, tile
from deployments.messages import Draw, Source
from deployments.pictures import decode, encode, fitted
from deployments.studio import Studio
from model_store.imaging import EditTask
from model_store.labelled import Floats
from model_store.manifest import Manifest

NOISE: Final = 0.1  # standard deviation
_LUMINANCE: Final = np.array([0.299, 0.587, 0.114], np.float32)
_SHOWN: Final = 8


@dataclass(frozen=True)
class Damaged:
    """A picture as the model gets it, and as one would have it without the model, in its full size."""

    shown: Floats  # [channels, height, width]
    plain: Floats
    mask: Floats | None = None  # [1, height, width], 1 where the picture is lost


Damage: TypeAlias = Callable[
    [Floats, int, np.random.Generator], Damaged
]  # of a picture; by which factor, how drawn


def _hole(picture: Floats, scale: int, random: np.random.Generator) -> Damaged:  # noqa: ARG001 - as the others
    """A rectangle of half the sides is lost: the mean of the rest is what is plain."""
    _, height, width = picture.shape
    top, left = random.integers(0, height - height // 2 + 1), random.integers(0, width - width // 2 + 1)
    mask = np.zeros((1, height, width), np.float32)
    mask[:, top : top + height // 2, left : left + width // 2] = 1
    average = (picture * (1 - mask)).sum((1, 2), keepdims=True) / (1 - mask).sum()
    return Damaged(picture * (1 - mask), picture * (1 - mask) + average * mask, mask)


def _grey(picture: Floats, scale: int, random: np.random.Generator) -> Damaged:  # noqa: ARG001
    luminance = np.tensordot(_LUMINANCE, picture[:3], 1)[None]
    grey = np.concatenate([luminance, luminance, luminance, picture[3:]])
    return Damaged(grey, grey)


def _small(picture: Floats, scale: int, random: np.random.Generator) -> Damaged:  # noqa: ARG001
    _, height, width = picture.shape
    small = fitted(picture, height // scale, width // scale)
    return Damaged(small, fitted(small, height, width))


def _noisy(picture: Floats, scale: int, random: np.random.Generator) -> Damaged:  # noqa: ARG001
    noise = random.normal(0, NOISE, picture[:3].shape)
    noisy = np.concatenate([(picture[:3] + noise).clip(0, 1), picture[3:]]).astype(np.float32)
    return Damaged(noisy, noisy)


DAMAGES: Final[Mapping[EditTask, tuple[Damage, str]]] = {
    "inpaint": (_hole, "with the mean of the rest in the hole"),
    "colorize": (_grey, "in grey"),
    "upscale": (_small, "enlarged bilinearly"),
    "denoise": (_noisy, "with the noise"),
}
"""What is done to a picture for the model to undo, and what is plain beside it. There is no such thing for `translate`."""


async def evaluate_edits(
    studio: Studio, manifest: Manifest, items: Items, seed: int, key: str, progress: Progress
) -> Found:
    """Everything that can be said of a model that changes pictures, task by task."""
    part = manifest.image.edit if manifest.image else None
    tasks = [each for each in part.tasks if each in DAMAGES] if part else []
    if part is None or not tasks:
        raise EvaluationError(
            f"{manifest.name} has no task that undoes a damage: nothing is known to be right"
        )
    found, request = Found(), Draw(manifest.name)
    for task in tasks:
        damage, words = DAMAGES[task]
        random = np.random.Generator(np.random.Philox(seed))
        given = [damage(each, part.scale, random) for each in items.values]
        requests = [_request(manifest.name, task, each) for each in given]
        works = (studio.call(each) for each in requests)
        replies = await gathered(works, len(given), TOGETHER, f"Editing ({task})", progress)
        channels, height, width = items.values.shape[1:]
        pictures = [each.outputs[0].image or b"" for each in replies]
        made = np.stack([decode(each, channels, width, height, "picture") for each in pictures])
        plain = np.stack([each.plain for each in given])
        found.add(Found(_likeness(task, items.values, made, (plain, words), key)))
        found.grids.append(_grid(task, given, made, items.values))
        request = requests[0]
    found.add(Found(await drawing_speed(studio, request, progress)))
    return found


def _request(model: str, task: EditTask, damaged: Damaged) -> Draw:
    mask = None if damaged.mask is None else encode(damaged.mask)
    # Not seeded: such models edit without chance.
    return Draw(model, seeded=False, source=Source(encode(damaged.shown), mask, task))


def _likeness(
    task: EditTask, right: Floats, made: Floats, plain: tuple[Floats, str], key: str
) -> dict[str, Figure]:
    sampling, figures = Sampling.of(f"{key}:edited", len(right)), {}
    values, words = plain
    for name, measure, unit in (("psnr", psnr, "dB"), ("ssim", ssim, "")):
        beside = measure(_seen(right), _seen(values)).mean()
        figures[f"{task}_{name}"] = estimate(
            mean(measure(_seen(right), _seen(made))),
            sampling,
            better=True,
            about=f"of the whole picture, before the damage and after the model; {beside:.4g} {words}",
            unit=unit,
        )
    return figures


def _seen(pictures: Floats) -> Floats:
    """Colours as far as they are seen: what is transparent has none."""
    if pictures.shape[1] < 4:
        return pictures
    return np.concatenate([pictures[:, :3] * pictures[:, 3:], pictures[:, 3:]], axis=1)


def _grid(task: EditTask, given: list[Damaged], made: Floats, right: Floats) -> Grid:
    _, height, width = right.shape[1:]
    tiles = tuple(
        tile("", fitted(each.shown, height, width, nearest=True), after, before)
        for each, after, before in zip(given[:_SHOWN], made, right, strict=False)
    )
    return Grid(task.capitalize(), "Each: what was given, what was made of it, how it was.", tiles)
