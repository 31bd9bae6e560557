"""Field types that several requests share, and the rules that hold for all of them."""

import json
from dataclasses import dataclass
from typing import Annotated, Any, Final

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Discriminator,
    Field,
    GetCoreSchemaHandler,
    GetJsonSchemaHandler,
    PlainValidator,
    StringConstraints,
    Tag,
    WithJsonSchema,
    model_validator,
)
from pydantic.fields import FieldInfo
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, PydanticCustomError, core_schema

from service.openai.schemas.limits import bounded

MAX_SEED: Final = 2**63 - 1
NULL: Final = {"type": "null"}
# Parts of a property's schema that describe the field rather than its type.
DESCRIBING: Final = frozenset({"title", "description", "default", "examples"})


def example(**fields: Any) -> ConfigDict:
    """Configuration of a body whose documentation shows these fields."""
    return ConfigDict(json_schema_extra={"examples": [fields]})


class Strict(BaseModel):
    """A part of a request: unknown fields and coerced types are refused, numbers are finite."""

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)


class Nullable(Strict):
    """A part of a request in which `null` for an optional field is the same as leaving it out, as in OpenAI's API."""

    @model_validator(mode="before")
    @classmethod
    def _null_is_absent(cls, data: Any) -> Any:
        if isinstance(data, dict) and None in data.values():
            optional = cls._optional()
            return {key: value for key, value in data.items() if value is not None or key not in optional}
        return data

    @classmethod
    def _optional(cls) -> set[str]:
        return {field.alias or name for name, field in cls.model_fields.items() if not field.is_required()}

    @classmethod
    def __get_pydantic_json_schema__(cls, core: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        """Pydantic's hook: say in the schema, too, that optional fields may be null."""
        schema = handler(core)
        resolved = handler.resolve_ref_schema(schema)
        for name in cls._optional():
            field = resolved["properties"][name]
            if NULL not in field.get("anyOf", ()):
                kind = {key: field.pop(key) for key in list(field) if key not in DESCRIBING}
                field["anyOf"] = [kind, NULL]
        ordered = sorted(resolved["properties"].items(), key=lambda item: cls._rank(item[0]))
        resolved["properties"] = dict(ordered)
        return schema

    @classmethod
    def _rank(cls, name: str) -> int:
        """Order of reading: the model, what this request is about, what it shares with others, what changes nothing."""
        own = {
            cls.model_fields[field].alias or field
            for field in cls.__annotations__
            if field in cls.model_fields
        }
        if name == "model":
            return 0
        if name in Body.model_fields:
            return 4
        neutral = any(isinstance(part, Neutral) for part in cls.model_fields.get(name, _NO_FIELD).metadata)
        return 3 if neutral else 1 if name in own else 2


_NO_FIELD: Final = FieldInfo()


class Wire(BaseModel):
    """An object that the service sends. For the documentation and the tests; answers are written without it."""

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)


@dataclass(frozen=True, eq=False)  # `typing` takes equal annotations for the same, and (0,) equals (False,)
class Neutral:
    """A field whose feature does not exist here: accepted at values that change nothing, unknown at any other."""

    values: tuple[Any, ...]

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        """Pydantic's hook: how to check."""
        return core_schema.lax_or_strict_schema(
            lax_schema=core_schema.no_info_plain_validator_function(self._check_text),
            strict_schema=core_schema.no_info_plain_validator_function(self._check),
        )

    def __get_pydantic_json_schema__(
        self, core: CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        """Pydantic's hook: how to document."""
        return {"enum": list(self.values), "description": "Not supported; accepted where it changes nothing."}

    def _check(self, value: Any) -> Any:
        # By kind as well: in Python 0 equals False.
        if any(
            value == other and isinstance(value, bool) == isinstance(other, bool) for other in self.values
        ):
            return value
        raise PydanticCustomError("unknown_parameter", "not supported")

    def _check_text(self, value: Any) -> Any:
        """In a form, where every value is text."""
        if any(value == (other if isinstance(other, str) else json.dumps(other)) for other in self.values):
            return value
        raise PydanticCustomError("unknown_parameter", "not supported")


@dataclass(frozen=True, slots=True)
class File:
    """A file of a form."""

    data: bytes


def _picture(value: Any) -> str | File:
    if isinstance(value, list) and len(value) == 1:  # how SDKs send the only one of several that others take
        value = value[0]
    if isinstance(value, str | File):
        return value
    raise PydanticCustomError("string_type", "Expected one picture: base64, a data: URL, or a file of a form")


Picture = Annotated[
    str | File,
    PlainValidator(_picture),
    WithJsonSchema({"type": "string"}),
    Field(description="PNG, JPEG or WebP: base64, or a `data:` URL; in a form, the file itself."),
]


ModelName = Annotated[
    str,
    StringConstraints(min_length=1, max_length=256, pattern=r"^[^\x00-\x1f\x7f]+$"),
    Field(description="Name of a model, from `GET /v1/models`."),
]
Seed = Annotated[int, Field(ge=0, le=MAX_SEED)]
Priority = Annotated[
    int, Field(ge=-1000, le=1000, description="Of one key's waiting requests the lowest goes first.")
]
Short = Annotated[str, StringConstraints(max_length=64)]

Moderation = Annotated[
    Annotated[Short, Tag("<word>")] | Annotated[dict[Short, Any], Field(max_length=16), Tag("<object>")],
    Discriminator(lambda value: "<object>" if isinstance(value, dict) else "<word>"),
    AfterValidator(bounded(4096, 8)),
]


class Body(Nullable):
    """What every POST body takes."""

    model: ModelName
    timeout: Annotated[
        float | None,
        Field(gt=0, description="Seconds the request may take; can only shorten the service's limit."),
    ] = None
    # SDKs send these; they change nothing here.
    user: Annotated[str | None, Field(max_length=512, description="Ignored.")] = None
    store: Annotated[bool | None, Field(description="Ignored.")] = None
    metadata: Annotated[
        dict[Short, Annotated[str, StringConstraints(max_length=512)]] | None,
        Field(max_length=16, description="Ignored."),
    ] = None
    service_tier: Annotated[Short | None, Field(description="Ignored.")] = None
    moderation: Annotated[Moderation | None, Field(description="Ignored.")] = None
