"""`/v1/images/generations` on the wire."""

from typing import Annotated, Any, Literal

from pydantic import Field, StringConstraints

from service.openai.schemas.fields import Body, Neutral, Seed, Wire, example


class ImageRequest(Body):
    """Draw `n` pictures."""

    model_config = example(model="fashion-gan", prompt="Sneaker", n=4, seed=1)

    prompt: Annotated[
        str, Field(max_length=32_000, description="A class name, where the model has classes; else empty.")
    ] = ""
    n: Annotated[int, Field(ge=1, le=10, description="Pictures.")] = 1
    seed: Annotated[
        Seed | None, Field(description="Same seed, same pictures. Absent: drawn, and reported.")
    ] = None
    size: Annotated[
        str,
        StringConstraints(pattern=r"^(auto|[1-9][0-9]{0,4}x[1-9][0-9]{0,4})$"),
        Field(description="`WIDTHxHEIGHT` in pixels; `auto`: the model's own."),
    ] = "auto"
    output_format: Literal["png", "jpeg", "webp"] = "png"
    output_compression: Annotated[
        int | None, Field(ge=0, le=100, description="Quality of JPEG and WebP, 100 best. Absent: 90.")
    ] = None
    response_format: Annotated[Literal["b64_json"], Field(description="Links are not made.")] = "b64_json"
    # OpenAI's, not here yet.
    stream: Annotated[Any, Neutral((False,))] = None
    partial_images: Annotated[Any, Neutral((0,))] = None
    background: Annotated[Any, Neutral(("auto", "opaque"))] = None
    quality: Annotated[Any, Neutral(("auto", "standard"))] = None
    style: Annotated[Any, Neutral(())] = None


class ImageEntry(Wire):
    """One picture, base64 in the format asked for."""

    b64_json: str
    seed: int
    steps: int


class ImageList(Wire):
    """Pictures, in order."""

    created: int
    data: list[ImageEntry]
    output_format: Literal["png", "jpeg", "webp"]
    size: str
