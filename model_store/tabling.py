"""What a manifest says of table rows and time series: how named values become a graph's numbers, and back."""

from typing import Annotated, Final, Literal, Self

from pydantic import Field, StringConstraints, model_validator

from model_store.fields import Finite, Part, Positive

Label = Annotated[str, StringConstraints(min_length=1, max_length=128)]
Deviation = Annotated[float, Field(gt=0, allow_inf_nan=False)]

MOST_WINDOW_NUMBERS: Final = 65_536


class Number(Part):
    """A feature that is a number: the graph's column is (value - mean) / deviation."""

    kind: Literal["number"]
    name: Label
    unit: str = ""
    mean: Finite = 0.0
    deviation: Deviation = 1.0
    # Both included. What lies outside is refused, moved to the nearest end, or taken as it is.
    minimum: Finite | None = None
    maximum: Finite | None = None
    outside: Literal["refuse", "clip", "accept"] = "refuse"
    # How far off, in the feature's unit, values that were hidden are filled in: root mean square over held-out rows.
    error: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.0

    @model_validator(mode="after")
    def _is_a_range(self) -> Self:
        if self.minimum is not None and self.maximum is not None and self.minimum > self.maximum:
            raise ValueError(f"{self.name!r} is at least more than it is at most")
        return self


class Category(Part):
    """A feature that is one of several words: a column each, 1 for the one it is and 0 for the others.

    `unknown`: one more column, behind them, for any other word; without it another word is refused.
    """

    kind: Literal["category"]
    name: Label
    categories: Annotated[tuple[Label, ...], Field(min_length=1)]
    unknown: bool = False

    @model_validator(mode="after")
    def _categories_differ(self) -> Self:
        if len(set(self.categories)) < len(self.categories):
            raise ValueError(f"a category of {self.name!r} is named twice")
        return self


Feature = Annotated[Number | Category, Field(discriminator="kind")]


class Table(Part):
    """Rows of named features: columns of the graph's `input` f32 [batch, columns], in this order.

    A graph that takes `known` f32 [batch, features] is told which values are missing: 0 there, and 0 in all columns of it.
    Others take no missing values.
    """

    features: Annotated[tuple[Feature, ...], Field(min_length=1, max_length=10_000)]

    @model_validator(mode="after")
    def _names_differ(self) -> Self:
        if len({each.name for each in self.features}) < len(self.features):
            raise ValueError("a feature is named twice")
        return self

    @property
    def columns(self) -> int:
        """Of the graph's input."""
        return sum(
            1 if isinstance(each, Number) else len(each.categories) + each.unknown for each in self.features
        )


class Channel(Part):
    """One of the values of each step; with normalisation `fixed` the graph gets (value - mean) / deviation."""

    name: Label
    unit: str = ""
    mean: Finite = 0.0
    deviation: Deviation = 1.0


class Alarms(Part):
    """When steps above the threshold are an alarm: it ends where the score is below the threshold by a share of it.

    For so many steps after its end (`cooldown`) no other one begins.
    """

    hysteresis: Annotated[float, Field(ge=0, lt=1)] = 0.0
    cooldown: Annotated[int, Field(ge=0)] = 0


class Series(Part):
    """Time series, cut into windows: rows of the graph's `input` f32 [batch, window, channels].

    Windows end at every `hop`-th step and at the last one. Before the first value they hold zeros or the first value, or there
    is no such window and the first one is of `window` values (`padding`). A step's score is that of the first window it is in, so
    that no later value changes it, or the mean or the maximum of all.

    Values are normalised over the series (in a session: over what has come so far), over each window, or as the channels say. A
    graph that takes `known` f32 [batch, window, channels] takes missing values as well: both are 0 there.
    """

    channels: Annotated[tuple[Channel, ...], Field(min_length=1, max_length=1024)]
    window: Positive
    hop: Positive = 1
    padding: Literal["none", "zero", "edge"] = "edge"
    normalisation: Literal["fixed", "series", "window"] = "window"
    merge: Literal["first", "mean", "max"] = "first"
    alarms: Alarms = Alarms()

    @model_validator(mode="after")
    def _covers_every_step(self) -> Self:
        if self.hop > self.window:
            raise ValueError("windows further apart than they are long miss steps")
        if self.window * len(self.channels) > MOST_WINDOW_NUMBERS:
            raise ValueError(f"a window has at most {MOST_WINDOW_NUMBERS} numbers")
        return self

    @model_validator(mode="after")
    def _names_differ(self) -> Self:
        if len({each.name for each in self.channels}) < len(self.channels):
            raise ValueError("a channel is named twice")
        return self
