"""`/v1/latents/traverse` and `combine` on the wire; encoding, decoding and interpolating are among the items."""

from typing import Annotated, Final, Literal

from pydantic import AfterValidator, Field
from pydantic_core import PydanticCustomError

from service.openai.schemas.fields import Body, Nullable, Wire, example
from service.openai.schemas.items import (
    MAX_STEPS,
    PICTURE,
    End,
    ImageOut,
    ItemUsage,
    Prompt,
    TensorItemOut,
)

MAX_GROUPS: Final = 16
MAX_MEMBERS: Final = 256


class TraverseRequest(Body):
    """Move one axis of a latent from one place to another, both included."""

    model_config = example(model="fashion-vae", **{"from": PICTURE}, axis=3, range=[-3, 3], unit="deviation")

    from_: Annotated[End, Field(alias="from")]
    axis: Annotated[int, Field(ge=0, description="Counted from 0.")]
    range: Annotated[
        list[float], Field(min_length=2, max_length=2, description="The first place, and the last.")
    ]
    steps: Annotated[int, Field(ge=2, le=MAX_STEPS)] = 8
    unit: Annotated[
        Literal["value", "deviation"],
        Field(
            description="Places as the axis' own numbers, or as standard deviations from its mean where the model has these."
        ),
    ] = "value"
    prompt: Prompt = ""


class LatentGroup(Nullable):
    """Items and latent vectors, whose mean counts by `weight`."""

    input: Annotated[list[End], Field(min_length=1, max_length=MAX_MEMBERS, fail_fast=True)]
    weight: float = 1.0


def _few(groups: list[LatentGroup]) -> list[LatentGroup]:
    if sum(len(group.input) for group in groups) > MAX_MEMBERS:
        raise PydanticCustomError("too_long", "more than {limit} items in all groups", {"limit": MAX_MEMBERS})
    return groups


class CombineRequest(Body):
    """Decode the weighted sum of means of latents: for example `a - b + c`."""

    model_config = example(
        model="fashion-vae",
        groups=[
            {"input": [PICTURE]},
            {"input": [[0.5] * 16, [1.0] * 16], "weight": -1},
            {"input": [[0.0] * 16]},
        ],
    )

    groups: Annotated[
        list[LatentGroup],
        Field(min_length=1, max_length=MAX_GROUPS, fail_fast=True, description=f"Of {MAX_MEMBERS} in all."),
        AfterValidator(_few),
    ]
    prompt: Prompt = ""


class Traversed(Wire):
    """One output, and the number that its latent has on the axis."""

    index: int
    object: Literal["output"]
    value: float
    output: ImageOut | TensorItemOut


class TraversedList(Wire):
    """Along the axis."""

    object: Literal["list"]
    model: str
    version: str
    data: list[Traversed]
    usage: ItemUsage


class Combined(Wire):
    """The sum, and what it shows."""

    index: int
    object: Literal["output"]
    latent: list[float]
    output: ImageOut | TensorItemOut


class CombinedList(Wire):
    """Of one."""

    object: Literal["list"]
    model: str
    version: str
    data: list[Combined]
    usage: ItemUsage
