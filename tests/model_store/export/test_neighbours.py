from collections.abc import Mapping, Sequence

import numpy as np
import pytest

from model_store.export.cases import Array
from model_store.export.neighbours import dependence

ROWS = {"x": np.random.default_rng(0).standard_normal((3, 4)).astype(np.float32)}


class Doubles:
    """A graph that doubles its input, and adds what `share` of the first row it is told to."""

    def __init__(self, share: float = 0.0) -> None:
        self.share = share

    def run(self, feeds: Mapping[str, Array], outputs: Sequence[str]) -> list[Array]:
        return [2 * feeds["x"] + self.share * feeds["x"][:1] for _ in outputs]


def test_rows_that_are_themselves_are_the_same_anywhere() -> None:
    assert dependence(Doubles(), ROWS, ["y", "z"]) == 0


@pytest.mark.parametrize("share", [1e-3, 1.0])
def test_rows_that_look_at_others_are_seen(share: float) -> None:
    assert dependence(Doubles(share), ROWS, ["y"]) == pytest.approx(share, rel=1)


def test_no_number_is_never_the_same() -> None:
    assert dependence(Doubles(np.inf), ROWS, ["y"]) == np.inf
