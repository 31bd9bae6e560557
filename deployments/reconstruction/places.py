"""Whose fault it was, where rows of a model and items of a request are not the same."""

import re
from collections.abc import Callable, Sequence
from typing import TypeVar

from deployments.errors import BadRequest

T = TypeVar("T")


def named(act: Callable[[], T], owners: Sequence[int] | None) -> T:
    """Do it. What is refused of row n is refused by the place of the item that it belongs to, `owners[n]`; None: item n."""
    try:
        return act()
    except BadRequest as error:
        row = re.match(r"input\[(\d+)\](.*)", error.param or "")
        if row and owners is not None:
            error.param = f"input[{owners[int(row[1])]}]{row[2]}"
        raise
