"""diffusers behind both peers of `tests.load.image_peers`: requests as JSON in, pictures as PNG out, like ones in one batch."""

import base64
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import diffusers
import torch


class Pictures:
    """One pipeline."""

    def __init__(self, folder: Path, threads: int) -> None:
        torch.set_num_threads(threads)
        parts: Any = diffusers  # which has hardly any annotations
        self._pipeline = parts.DiffusionPipeline.from_pretrained(folder)
        self._pipeline.set_progress_bar_config(disable=True)

    def draw(self, asked: Sequence[Mapping[str, Any]]) -> list[bytes]:
        """One picture for each request. A pipeline takes one number of steps and one scale for all of a call."""
        groups: dict[tuple[int, float], list[int]] = {}
        for place, fields in enumerate(asked):
            groups.setdefault((fields["steps"], fields["guidance_scale"]), []).append(place)
        made: dict[int, bytes] = {}
        for (steps, scale), places in groups.items():
            pictures = self._pipeline(
                [asked[place]["prompt"] for place in places],
                num_inference_steps=steps,
                guidance_scale=scale,
                generator=[torch.Generator().manual_seed(asked[place]["seed"]) for place in places],
            ).images
            made |= {place: _encoded(picture) for place, picture in zip(places, pictures, strict=True)}
        return [made[place] for place in range(len(asked))]


def answer(picture: bytes) -> dict[str, Any]:
    """As OpenAI's API has it."""
    return {"data": [{"b64_json": base64.b64encode(picture).decode()}]}


def _encoded(picture: Any) -> bytes:
    file = io.BytesIO()
    picture.save(file, "png")
    return file.getvalue()
