"""`evaluation.json`: figures with their intervals, and the curves behind them, of one version on one set of data."""

from pathlib import Path
from typing import Annotated, Final, Literal

from pydantic import AwareDatetime, Field, ValidationError

from deployments.evaluation.errors import EvaluationError
from model_store.fields import Finite, Part
from model_store.manifest import Family, Name, Sha256, Task, Version

FILE: Final = "evaluation.json"


class Figure(Part):
    """One measured figure with its 95 % interval.

    `replicates` are the figure's values when the items are drawn again. Two figures of one `sampling` were computed on the same
    draws, so that the differences of their replicates are those of a paired bootstrap.
    """

    value: Finite
    low: Finite
    high: Finite
    higher_is_better: bool | None  # None: neither
    about: str
    unit: str = ""
    sampling: str
    replicates: tuple[Finite, ...]


class Curve(Part):
    """Points from left to right."""

    name: str
    x: tuple[Finite, ...]
    y: tuple[Finite, ...]


class Plot(Part):
    """Curves over common axes; `marks` are places on the x axis worth a line, by what they are, `spans` parts of it."""

    title: str
    x: str
    y: str
    curves: tuple[Curve, ...]
    kind: Literal["line", "area"] = "line"
    unit_square: bool = False
    diagonal: bool = False
    marks: dict[str, Finite] = Field(default_factory=dict)
    spans: tuple[tuple[Finite, Finite], ...] = ()


class Model(Part):
    """Which version was measured."""

    name: Name
    version: Version
    digest: Sha256
    task: Task
    family: Family
    description: str


class Data(Part):
    """What it was measured on. `digest` is over the files and how many were taken of them."""

    name: str
    digest: Sha256
    items: Annotated[int, Field(ge=1)]
    groups: dict[str, int] = Field(default_factory=dict)  # items of each folder or class


class Evaluation(Part):
    """All that was measured in one run."""

    schema_version: Literal[1] = 1
    created: AwareDatetime
    seconds: Finite
    model: Model
    data: Data
    settings: dict[str, str]
    environment: dict[str, str]
    figures: dict[str, Figure]
    plots: tuple[Plot, ...]


def read(path: Path) -> Evaluation:
    """Read an evaluation file. Raises EvaluationError."""
    try:
        return Evaluation.model_validate_json(path.read_bytes())
    except OSError as error:
        raise EvaluationError(f"{path} cannot be read: {error.strerror}") from error
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "its top level"
        raise EvaluationError(f"{path} is no evaluation, at {where}: {first['msg']}") from error
