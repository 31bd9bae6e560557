"""`/v1/images/...` on the wire: requests, answers, and the events of streams."""

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, StringConstraints
from pydantic_core import PydanticCustomError

from model_store.imaging import EditTask
from service.openai.schemas.fields import Body, Neutral, Picture, Priority, Seed, Wire, example
from service.openai.schemas.items import PICTURE

Format = Literal["png", "jpeg", "webp"]
Background = Literal["auto", "transparent", "opaque"]


Strength = Annotated[
    float | None,
    Field(
        gt=0,
        le=1,
        description="Share of the way from noise that is gone again: 1 leaves nothing of the picture. Absent: 0.8; 0.6 of a "
        "variation, 1 with a mask.",
    ),
]


def _in_the_answer(form: str) -> str:
    if form != "b64_json":
        raise PydanticCustomError(
            "invalid_value", "pictures are sent in the answer, as 'b64_json': nothing is kept to link to"
        )
    return form


class Rendering(Body):
    """How pictures are made and sent, from whatever they begin."""

    n: Annotated[int, Field(ge=1, le=10, description="Pictures.")] = 1
    seed: Annotated[
        Seed | None,
        Field(
            description="Of the first picture; the second has the next one, and so on. Same seed, same bytes. "
            "Absent: drawn, and reported."
        ),
    ] = None
    size: Annotated[
        str,
        StringConstraints(pattern=r"^(auto|[1-9][0-9]{0,4}x[1-9][0-9]{0,4})$"),
        Field(description="`WIDTHxHEIGHT` in pixels; `auto`: the model's own."),
    ] = "auto"
    steps: Annotated[
        int | None, Field(ge=1, le=1000, description="Steps from noise to picture. Absent: the model's own.")
    ] = None
    guidance_scale: Annotated[
        float | None, Field(ge=1, le=100, description="How far to go where the prompt leads; 1: no further.")
    ] = None
    negative_prompt: Annotated[
        str,
        Field(max_length=32_000, description="What to keep away from, where the guidance scale is above 1."),
    ] = ""
    solver: Annotated[
        str | None,
        Field(
            max_length=32,
            description="One of the model's: `euler`, `heun`, `ddim`, `dpm`. Absent: its first.",
        ),
    ] = None
    truncation: Annotated[
        float | None,
        Field(
            gt=0,
            le=1,
            description="Of models with styles: how far from the mean one; less varies less. 1: none.",
        ),
    ] = None
    output_format: Format = "png"
    output_compression: Annotated[
        int | None, Field(ge=0, le=100, description="Quality of JPEG and WebP, 100 best. Absent: 90.")
    ] = None
    background: Annotated[
        Background, Field(description="`opaque`: on white, where the model draws transparency.")
    ] = "auto"
    stream: Annotated[bool, Field(description="Send each picture as an event as soon as it is ready.")] = (
        False
    )
    partial_images: Annotated[
        int, Field(ge=0, le=3, description="Of a stream: previews of each picture on its way.")
    ] = 0
    priority: Priority = 0
    response_format: Annotated[
        str,
        StringConstraints(max_length=32),
        AfterValidator(_in_the_answer),
        Field(description="Links are not made.", json_schema_extra={"enum": ["b64_json"]}),
    ] = "b64_json"
    quality: Annotated[Any, Neutral(("auto", "standard"))] = None
    style: Annotated[Any, Neutral(())] = None


class ImageRequest(Rendering):
    """Draw `n` pictures."""

    model_config = example(model="fashion-gan", prompt="Sneaker", n=4, seed=1)

    prompt: Annotated[
        str,
        Field(
            max_length=32_000,
            description="What to draw: words where the model reads them, a class name where it has classes, else empty.",
        ),
    ] = ""


class EditRequest(Rendering):
    """Change a picture."""

    model_config = example(model="tiles-edit", image=PICTURE["image"], task="upscale")

    image: Picture
    mask: Annotated[
        Picture | None,
        Field(
            description="Where to make something up: transparent, or white where nothing is transparent. As large as the picture."
        ),
    ] = None
    prompt: Annotated[
        str,
        Field(
            max_length=32_000, description="What to make of it, where the model reads words or has classes."
        ),
    ] = ""
    task: Annotated[
        EditTask | None,
        Field(description="One of the model's. Absent: `inpaint` with a mask, else the only one there is."),
    ] = None
    strength: Strength = None
    input_fidelity: Annotated[Any, Neutral(())] = None


class VariationRequest(Rendering):
    """Draw others of a picture's kind."""

    model_config = example(model="fashion-flow", image=PICTURE["image"], n=2)

    image: Picture
    prompt: Annotated[
        str,
        Field(max_length=32_000, description="What it shows, where the model reads words or has classes."),
    ] = ""
    strength: Strength = None


class ImageEntry(Wire):
    """One picture, base64 in the format asked for."""

    b64_json: str
    seed: int | None  # null: nothing of it is chance
    steps: int
    version: str


class ImageUsage(Wire):
    """Tokens of the prompts, as far as the model reads words; pictures are counted by `Server-Timing` and metrics."""

    input_tokens: int
    output_tokens: int
    total_tokens: int


class ImageList(Wire):
    """Pictures, in order."""

    created: int
    data: list[ImageEntry]
    output_format: Format
    size: str
    background: Background
    usage: ImageUsage


class ImageEvent(Wire):
    """One event of a stream: a preview after `step` of `steps`, or a picture."""

    type: Literal[
        "image_generation.partial_image",
        "image_generation.completed",
        "image_edit.partial_image",
        "image_edit.completed",
    ]
    index: int
    b64_json: str
    created_at: int
    size: str
    quality: Literal["auto"]
    background: Background
    output_format: Format
    seed: int | None
    step: int
    steps: int
    partial_image_index: int | None = None
    version: str | None = None
    usage: ImageUsage | None = None
