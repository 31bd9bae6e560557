"""What graphs that read items must take, by what a manifest says that items are. Knows shapes, no graph."""

from collections.abc import Mapping
from typing import TypeAlias

from model_store.imaging import Image
from model_store.tabling import Series, Table

Shape: TypeAlias = tuple[int | str, ...]


def check_items(
    taken: Mapping[str, Mapping[str, Shape]],
    image: Image | None,
    table: Table | None,
    series: Series | None,
    *,
    impute: bool,
) -> None:
    """`taken` are one row's shapes of each reading graph's inputs, by role. Raises ValueError."""
    if sum(part is not None for part in (image, table, series)) > 1:
        raise ValueError("items are pictures, or table rows, or series")
    rows = _rows(table, series)
    for shapes in taken.values():
        for role, shape in rows.items():
            if role in shapes and shapes[role] != shape:
                raise ValueError(f"{role!r} has rows of {list(shapes[role])}, not {list(shape)}")
        if image is not None and image.denoise is None and "input" in shapes:
            _check_picture(shapes["input"], image)
    told = {"known" in shapes for shapes in taken.values()}
    if rows and len(told) > 1:
        raise ValueError("either all graphs that read items take 'known', or none")
    if impute and not (rows and "reconstruct" in taken and told == {True}):
        raise ValueError("to impute takes a graph 'reconstruct' of rows or series with an input 'known'")


def _rows(table: Table | None, series: Series | None) -> dict[str, Shape]:
    if table:
        return {"input": (table.columns,), "known": (len(table.features),)}
    if series:
        window = (series.window, len(series.channels))
        return {"input": window, "known": window}
    return {}


def _check_picture(shape: Shape, image: Image) -> None:
    own = (image.channels, image.height, image.width)
    if image.resize.mode != "keep":
        if shape != own:
            raise ValueError(f"'input' takes {list(shape)}, not rows of {list(own)}")
    elif len(shape) != 3 or shape[0] != own[0] or not all(isinstance(side, str) for side in shape[1:]):
        raise ValueError(f"'input' takes {list(shape)}, not pictures of any height and width")
