"""`/v1/embeddings` and `/v1/classifications` on the wire."""

from typing import Annotated, Any, Final, Literal

from pydantic import AfterValidator, BeforeValidator, Discriminator, Field, StringConstraints, Tag

from service.openai.schemas.fields import Body, Priority, Wire, example
from service.openai.schemas.items import Items
from service.openai.schemas.limits import few, fits
from service.openai.schemas.text import Ids, prompt_form

MAX_INPUTS: Final = 2048
MAX_DIMENSIONS: Final = 65_536

Text = Annotated[str, StringConstraints(min_length=1)]
Texts = Annotated[list[Text], Field(min_length=1, max_length=MAX_INPUTS, fail_fast=True)]
RowsOfIds = Annotated[list[Ids], Field(min_length=1, max_length=MAX_INPUTS, fail_fast=True)]
TextInput = Annotated[
    Annotated[Text, Tag("<text>")]
    | Annotated[Texts, Tag("<texts>")]
    | Annotated[Ids, Tag("<ids>")]
    | Annotated[RowsOfIds, Tag("<rows of ids>")],
    Discriminator(prompt_form),
    BeforeValidator(few),
    AfterValidator(fits),
    Field(description="A text, token ids, or a list of either."),
]


def _input_form(value: Any) -> str:
    return "<items>" if isinstance(value, list) and isinstance(next(iter(value), None), dict) else "<texts>"


AnyInput = Annotated[
    Annotated[TextInput, Tag("<texts>")] | Annotated[Items, Tag("<items>")],
    Discriminator(_input_form),
    Field(description="A text, token ids, or a list of either; or items, of models that read them."),
]


class EmbeddingRequest(Body):
    """Find one vector for each text or item."""

    model_config = example(model="minilm", input=["a text", "another"])

    input: AnyInput
    encoding_format: Annotated[
        Literal["float", "base64"], Field(description="`base64`: float32, little-endian.")
    ] = "float"
    dimensions: Annotated[
        int | None,
        Field(ge=1, le=MAX_DIMENSIONS, description="Only the first ones, scaled to length 1 again."),
    ] = None
    priority: Priority = 0


class ClassificationRequest(Body):
    """Find the probability of each of the model's classes for each text."""

    model_config = example(model="sentiment", input=["what a day"])

    input: TextInput
    priority: Priority = 0


class Embedding(Wire):
    """The vector of one text; as base64 where that was asked for."""

    object: Literal["embedding"]
    index: int
    embedding: list[float] | str


class InputUsage(Wire):
    """Tokens of all texts."""

    prompt_tokens: int
    total_tokens: int


class EmbeddingList(Wire):
    """Vectors, in order."""

    object: Literal["list"]
    model: str
    version: str
    data: list[Embedding]
    usage: InputUsage


class ClassProbability(Wire):
    """How probable one class is."""

    label: str
    probability: float


class Classification(Wire):
    """The most probable class of one text, and all of them, the most probable first."""

    object: Literal["classification"]
    index: int
    label: str
    classes: list[ClassProbability]


class ClassificationList(Wire):
    """Classifications, in order."""

    object: Literal["list"]
    model: str
    version: str
    data: list[Classification]
    usage: InputUsage
