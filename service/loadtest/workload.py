"""What a load test asks for: the request bodies of the four tasks. Knows no clock and sends nothing."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final, TypeAlias

import numpy as np
import orjson

DISTINCT_INPUTS: Final = (
    16  # random inputs are drawn once and sent in turn: making them must not cost send time
)


class Task(StrEnum):
    """What is asked of the model."""

    TEXT = "text"
    IMAGE = "image"
    ANOMALY = "anomaly"
    RECONSTRUCTION = "reconstruction"


CAPABILITY: Final = {
    Task.TEXT: "complete",
    Task.IMAGE: "generate_image",
    Task.ANOMALY: "score",
    Task.RECONSTRUCTION: "reconstruct",
}


@dataclass(frozen=True, slots=True)
class Call:
    """One POST, ready to send."""

    path: str
    body: bytes
    stream: bool = False


Workload: TypeAlias = Callable[[int], Call]  # request number -> what to send


def text(model: str, prompts: Sequence[str], *, max_tokens: int, stream: bool, seed: int) -> Workload:
    """Continue one of the prompts in turn; request i samples with seed `seed + i`."""
    fields: dict[str, Any] = {"model": model, "max_tokens": max_tokens, "stream": stream}
    if stream:
        fields["stream_options"] = {"include_usage": True}

    def call(number: int) -> Call:
        own = {"prompt": prompts[number % len(prompts)], "seed": seed + number}
        return Call("/v1/completions", orjson.dumps(fields | own), stream)

    return call


def image(
    model: str,
    prompts: Sequence[str],
    *,
    n: int,
    seed: int,
    steps: Sequence[int] = (),
    guidance: float | None = None,
) -> Workload:
    """Draw `n` pictures, of the prompts (class names) in turn; without prompts, of whatever the model draws.

    `steps` take turns as well; `guidance` is the scale.
    """
    fields: dict[str, Any] = {"model": model, "n": n}
    if guidance is not None:
        fields["guidance_scale"] = guidance

    def call(number: int) -> Call:
        own: dict[str, Any] = {"seed": seed + number}
        if prompts:
            own["prompt"] = prompts[number % len(prompts)]
        if steps:
            own["steps"] = steps[number % len(steps)]
        return Call("/v1/images/generations", orjson.dumps(fields | own))

    return call


def tensors(task: Task, model: str, shape: Sequence[int], *, items: int, seed: int) -> Workload:
    """Score or reconstruct `items` tensors of `shape`, uniform in [0, 1]."""
    random = np.random.default_rng(seed)
    path = "/v1/anomalies" if task is Task.ANOMALY else "/v1/reconstructions"

    def item() -> dict[str, Any]:
        values = random.random(tuple(shape), dtype=np.float32).round(4)
        return {"tensor": {"shape": list(shape), "dtype": "float32", "data": values}}

    bodies = [
        orjson.dumps(
            {"model": model, "input": [item() for _ in range(items)]}, option=orjson.OPT_SERIALIZE_NUMPY
        )
        for _ in range(DISTINCT_INPUTS)
    ]
    return lambda number: Call(path, bodies[number % DISTINCT_INPUTS])
