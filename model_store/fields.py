"""What every part of a manifest is made of."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

# Relative, forward slashes, no dot segments: a path can name nothing outside its package folder.
RelativePath = Annotated[
    str,
    StringConstraints(
        pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.-]*(/[A-Za-z0-9_][A-Za-z0-9_.-]*)*$", max_length=255
    ),
]
Positive = Annotated[int, Field(gt=0)]
Finite = Annotated[float, Field(allow_inf_nan=False)]


class Part(BaseModel):
    """A frozen piece of the manifest: unknown fields and coerced types are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)
