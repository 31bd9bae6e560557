"""Table rows and time series on the wire. Which features and channels there are, the model knows."""

from typing import Annotated, Any, Final

from pydantic import Field, StringConstraints, WithJsonSchema

from service.openai.schemas.fields import Wire

MAX_FEATURES: Final = 10_000
MAX_SERIES: Final = 65_536
MAX_SESSION: Final = 1 << 20
MAX_SAMPLES: Final = 64

_VALUE: Final = {"anyOf": [{"type": "number"}, {"type": "string"}, {"type": "null"}]}
_STEP: Final = {"anyOf": [{"type": "number"}, {"type": "null"}, {"type": "array", "items": {}}]}
_STAMP: Final = {"anyOf": [{"type": "number"}, {"type": "string", "format": "date-time"}]}

# Values are left as they were parsed: the model's program checks each by the feature or channel that it is.
Features = Annotated[
    dict[str, Any],
    Field(max_length=MAX_FEATURES, description="A table row, by feature. Null or absent: missing."),
    WithJsonSchema({"type": "object", "additionalProperties": _VALUE}),
]
Series = Annotated[
    list[Any],
    Field(max_length=MAX_SERIES),
    WithJsonSchema(
        {
            "type": "array",
            "items": _STEP,
            "description": "A time series: a value a step, or a list of the channels' values. Null: missing.",
        }
    ),
]
Timestamps = Annotated[
    list[Any],
    Field(max_length=MAX_SERIES),
    WithJsonSchema(
        {
            "type": "array",
            "items": _STAMP,
            "description": "Of each step of `series`; alarms are told by them.",
        }
    ),
]
Session = Annotated[
    str,
    StringConstraints(max_length=MAX_SESSION),
    Field(description="Empty to begin one; to go on, the `session` of the last answer."),
]


class RowOut(Wire):
    """A table row."""

    features: dict[str, float | str]


class SeriesOut(Wire):
    """A series, in the form of the request's."""

    series: list[Any]


class ImputedOut(Wire):
    """What was filled in. `spread`: a number's standard deviation, or the probability that it is another category."""

    value: float | str
    spread: float | None


class StepsOut(Wire):
    """Scores of a series' new steps, of which `start` is the first."""

    start: int
    scores: list[float]


class AlarmOut(Wire):
    """Steps from `start` to `end`, both included, counted from the session's beginning. `open`: it goes on."""

    start: int
    end: int
    peak: float
    open: bool
    began: float | str | None = None
    ended: float | str | None = None
