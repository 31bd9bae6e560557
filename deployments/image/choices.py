"""What requests choose among, of what a model draws: a class by its name, a size."""

from collections.abc import Sequence

from deployments.errors import BadRequest

Size = tuple[int, int]
"""Width and height in pixels."""


class Classes:
    """A model's classes by their names, whose capitals do not matter."""

    def __init__(self, names: Sequence[str]) -> None:
        self._names = names
        self._places = {name.casefold(): place for place, name in enumerate(names)}

    def place(self, name: str, param: str) -> int:
        """The place of the class of this name. Raises BadRequest, which names `param`."""
        place = self._places.get(name.strip().casefold())
        if place is None:
            known = ", ".join(self._names)
            raise BadRequest(f"The prompt must name a class: {known}.", code="unknown_class", param=param)
        return place


def check_size(size: Size | None, sizes: Sequence[Size]) -> None:
    """Raise BadRequest for a size that is asked for and is none of these."""
    if size is not None and size not in sizes:
        known = ", ".join(f"{width}x{height}" for width, height in sizes)
        raise BadRequest(f"This model draws {known} only.", code="invalid_size", param="size")
