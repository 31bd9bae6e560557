"""`/v1/anomalies/calibrations` on the wire."""

from typing import Annotated, Final, Literal

from pydantic import Field

from service.openai.schemas.fields import Body, Wire, example
from service.openai.schemas.items import PICTURE, InputItem, ItemUsage

MAX_CALIBRATION_ITEMS: Final = 4000

Method = Literal["quantile", "false_positive_rate", "f1"]


class CalibrationRequest(Body):
    """Make a calibration of normal items: the scores that others are held against, and a threshold."""

    model_config = example(model="fashion-ae", input=[PICTURE] * 2, method="quantile", quantile=0.5)

    input: Annotated[list[InputItem], Field(min_length=1, max_length=MAX_CALIBRATION_ITEMS, fail_fast=True)]
    labels: Annotated[
        list[bool] | None,
        Field(
            max_length=MAX_CALIBRATION_ITEMS,
            description="Which items are anomalies; they are left out, but for F1. Absent: none is.",
        ),
    ] = None
    score: Annotated[
        str | None, Field(max_length=64, description="Name of a score. Absent: the package's default.")
    ] = None
    method: Annotated[
        Method,
        Field(
            description="The threshold: a quantile of the normal scores; what a normal item exceeds at most at a rate "
            "(conformal); or where anomalies are told from normal items with the highest F1."
        ),
    ] = "false_positive_rate"
    quantile: Annotated[float | None, Field(gt=0, lt=1, description="Absent: 0.95.")] = None
    false_positive_rate: Annotated[
        float | None, Field(gt=0, lt=1, description="Absent: 0.05. Needs at least 1 / rate - 1 items.")
    ] = None
    default: Annotated[bool, Field(description="Whether it becomes the default of its score.")] = False


class CalibrationOut(Wire):
    """One calibration. `level` is the quantile, or the rate; `items` are normal ones, of series their windows."""

    id: str
    object: Literal["calibration"]
    model: str
    version: str
    score: str
    method: Method
    level: float | None
    threshold: float
    items: int
    anomalies: int
    f1: float | None
    created: int
    default: bool
    usage: ItemUsage | None = None


class CalibrationList(Wire):
    """The package's own, then the others, oldest first."""

    object: Literal["list"]
    data: list[CalibrationOut]


class CalibrationDeleted(Wire):
    """It is gone."""

    id: str
    object: Literal["calibration"]
    deleted: Literal[True]
