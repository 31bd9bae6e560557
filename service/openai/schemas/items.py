"""Items (pictures, tensors, table rows, series), and `/v1/reconstructions`, `/v1/anomalies`, `/v1/latents/...` on the wire."""

from typing import Annotated, Any, Final, Literal

from pydantic import Discriminator, Field, Tag, WithJsonSchema, model_validator
from pydantic_core import PydanticCustomError

from service.openai.schemas.fields import Body, Seed, Strict, Wire, example
from service.openai.schemas.records import (
    MAX_SAMPLES,
    AlarmOut,
    Features,
    ImputedOut,
    RowOut,
    Series,
    SeriesOut,
    Session,
    StepsOut,
    Timestamps,
)

MAX_ITEMS: Final = 1024
MAX_STEPS: Final = 256
# A grey PNG of 28 by 28, for the documentation.
PICTURE: Final = {
    "image": "iVBORw0KGgoAAAANSUhEUgAAABwAAAAcCAAAAABXZoBIAAAAFklEQVR42mNsYMANmBhGJUclRyWhAADxiwC4gQrlWAAAAABJRU5ErkJggg=="
}

_NUMBERS: Final = {
    "anyOf": [
        {"type": "string", "contentEncoding": "base64", "description": "float32, little-endian, row by row"},
        {"type": "array", "items": {}, "description": "numbers, nested by shape or flat"},
    ]
}


class TensorData(Strict):
    """Numbers. Nested lists carry their shape; for base64 it must be given."""

    shape: Annotated[list[Annotated[int, Field(ge=0, le=2**31 - 1)]] | None, Field(max_length=16)] = None
    dtype: Literal["float32"] = "float32"
    # Left as it was parsed: the model's program makes an array of it and checks every number, thousands at once.
    data: Annotated[Any, WithJsonSchema(_NUMBERS)]


class InputItem(Strict):
    """One item: a picture, a tensor, a table row or a series, as the model takes it."""

    image: Annotated[str | None, Field(description="PNG, JPEG or WebP: base64, or a `data:` URL.")] = None
    tensor: TensorData | None = None
    features: Features | None = None
    series: Series | None = None
    timestamps: Timestamps | None = None
    session: Session | None = None

    @model_validator(mode="after")
    def _one_of_them(self) -> "InputItem":
        if [self.image, self.tensor, self.features, self.series].count(None) != 3:
            raise PydanticCustomError(
                "invalid_value", "give one of 'image', 'tensor', 'features' and 'series'"
            )
        if self.series is None and not (self.timestamps is None and self.session is None):
            raise PydanticCustomError("invalid_value", "only a series has 'timestamps' or a 'session'")
        return self


Items = Annotated[list[InputItem], Field(min_length=1, max_length=MAX_ITEMS, fail_fast=True)]
Vector = Annotated[
    list[Any],
    Field(min_length=1),
    WithJsonSchema({"type": "array", "items": {"type": "number"}, "minItems": 1}),
]
End = Annotated[
    Annotated[Vector, Tag("<latent>")] | Annotated[InputItem, Tag("<item>")],
    Discriminator(lambda value: "<latent>" if isinstance(value, list) else "<item>"),
    Field(description="A latent vector, or an item to encode."),
]
DeterminedSeed = Annotated[
    Seed | None, Field(description="For a VAE: sample the latent with this seed. Absent: take its mean.")
]


class ReconstructionRequest(Body):
    """Encode and decode each item."""

    model_config = example(model="fashion-ae", input=[PICTURE], **{"return": ["error_map"]})

    input: Items
    return_: Annotated[
        list[Literal["error_map", "latent"]], Field(alias="return", max_length=2, default_factory=list)
    ]
    samples: Annotated[
        int | None,
        Field(
            ge=0,
            le=MAX_SAMPLES,
            description="Reconstructions that the spread of what is filled into a table row is taken of. Absent: 8.",
        ),
    ] = None
    seed: DeterminedSeed = None


class AnomalyRequest(Body):
    """Score each item against what is normal."""

    model_config = example(model="fashion-ae", input=[PICTURE], **{"return": ["map"]})

    input: Items
    score: Annotated[
        str | None, Field(max_length=64, description="Name of a score. Absent: the package's default.")
    ] = None
    calibration: Annotated[str | None, Field(max_length=128, description="Absent: the package's own.")] = None
    threshold: Annotated[
        float | None, Field(description="Above it is an anomaly. Absent: the calibration's.")
    ] = None
    false_discovery_rate: Annotated[
        float | None,
        Field(
            gt=0,
            lt=1,
            description="Of all items of the request together (Benjamini-Hochberg), instead of a threshold. Not of series.",
        ),
    ] = None
    return_: Annotated[
        list[Literal["map", "mask", "contributions", "steps"]],
        Field(
            alias="return",
            max_length=4,
            default_factory=list,
            description="`mask`: white where the map is above the threshold of the score `peak`, which is the map's maximum (the "
            "request's, where it scores by `peak`); in a model without that score above half of the map's range.",
        ),
    ]
    map_format: Annotated[
        Literal["image", "tensor"],
        Field(
            description="The map as a coloured PNG, whose middle colour is where the mask begins, or as numbers."
        ),
    ] = "image"
    seed: DeterminedSeed = None


Prompt = Annotated[
    str,
    Field(max_length=32_000, description="Of models that draw by words or classes: the latent's condition."),
]


class EncodeRequest(Body):
    """Find each item's latent vector."""

    model_config = example(model="fashion-vae", input=[PICTURE])

    input: Items
    encoding_format: Annotated[
        Literal["float", "int8"],
        Field(description="`int8`: 256 levels an axis, all latents together in as few bytes, for `decode`."),
    ] = "float"
    prompt: Prompt = ""


class DecodeRequest(Body):
    """Make an output of each latent vector."""

    model_config = example(model="fashion-vae", latents=[[0.0] * 16])

    latents: Annotated[
        Annotated[list[Vector], Field(min_length=1, max_length=MAX_ITEMS, fail_fast=True), Tag("<vectors>")]
        | Annotated[str, Tag("<compressed>")],
        Discriminator(lambda value: "<compressed>" if isinstance(value, str) else "<vectors>"),
        Field(description="Vectors, or base64 of what `encode` has compressed."),
    ]
    prompt: Prompt = ""


class InterpolateRequest(Body):
    """Walk from one latent to another, both ends included."""

    model_config = example(model="fashion-vae", **{"from": PICTURE, "to": [0.0] * 16}, steps=8)

    from_: Annotated[End, Field(alias="from")]
    to: End
    steps: Annotated[int, Field(ge=2, le=MAX_STEPS)] = 8
    mode: Literal["linear", "slerp"] = "linear"
    prompt: Prompt = ""


class TensorOut(Wire):
    """Numbers in the form the item had: nested lists, or base64 of little-endian float32."""

    shape: list[int]
    dtype: Literal["float32"]
    data: Annotated[Any, WithJsonSchema(_NUMBERS)]


class ImageOut(Wire):
    """A PNG, base64."""

    image: str


class TensorItemOut(Wire):
    """A tensor."""

    tensor: TensorOut


class ItemUsage(Wire):
    """Items worked on."""

    items: int


class Reconstruction(Wire):
    """One item's reconstruction. `error` is the score that says how far it is off: `ssim`, `l1`, `l2` or `peak`; null without one."""

    index: int
    object: Literal["reconstruction"]
    output: ImageOut | TensorItemOut | RowOut | SeriesOut
    imputed: dict[str, ImputedOut] | None = None
    error: float | None
    error_map: ImageOut | None = None
    latent: list[float] | None = None


class ReconstructionList(Wire):
    """In the items' order."""

    object: Literal["list"]
    model: str
    version: str
    data: list[Reconstruction]
    usage: ItemUsage


class Anomaly(Wire):
    """One item's score. `normalized` is 0.5 at the threshold; `p_value` is the share of normal items that score as high."""

    index: int
    object: Literal["anomaly"]
    score: float
    normalized: float
    p_value: float
    threshold: float
    adjusted_p_value: float | None = None
    is_anomaly: bool
    map: ImageOut | TensorItemOut | None = None
    mask: ImageOut | None = None
    # Of table rows: shares of the error, together 1. Of series: `score` is the worst window's.
    contributions: dict[str, float] | None = None
    steps: StepsOut | None = None
    alarms: list[AlarmOut] | None = None
    session: str | None = None


class AnomalyList(Wire):
    """In the items' order."""

    object: Literal["list"]
    model: str
    version: str
    score: str | None
    calibration: str | None
    method: Literal["quantile", "false_positive_rate", "f1", "request", "false_discovery_rate"] | None
    data: list[Anomaly]
    usage: ItemUsage


class Latent(Wire):
    """One item's place in the latent space; a VAE adds the standard deviations.

    Where it is compressed, this is what `decode` finds again, and `psnr` is what it shows beside the item (null: the same).
    """

    index: int
    object: Literal["latent"]
    latent: list[float]
    spread: list[float] | None = None
    psnr: float | None = None


class PictureFile(Wire):
    """The pictures in one file of the best quality that fits into as many bytes; where none does, in the smallest."""

    bytes: int
    psnr: float | None
    fits: bool


class CompressedLatents(Wire):
    """All latents, base64 in `data`. `psnr` (dB, of pictures of 8 bits) is null where nothing is lost; JPEG has no alpha."""

    data: str
    bytes: int
    bits_per_pixel: float
    psnr: float | None
    jpeg: PictureFile | None
    webp: PictureFile


class LatentList(Wire):
    """In the items' order."""

    object: Literal["list"]
    model: str
    version: str
    compressed: CompressedLatents | None = None
    data: list[Latent]
    usage: ItemUsage


class Decoded(Wire):
    """One output."""

    index: int
    object: Literal["output"]
    output: ImageOut | TensorItemOut | RowOut


class DecodedList(Wire):
    """In the latents' order, or along the way."""

    object: Literal["list"]
    model: str
    version: str
    data: list[Decoded]
    usage: ItemUsage
