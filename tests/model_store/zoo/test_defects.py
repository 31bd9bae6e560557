import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model_store.zoo.defects import FEWEST, KINDS, SEEN, Floats, spoil


def pictures(count: int, channels: int = 1, side: int = 28) -> Floats:
    drawn: Floats = (
        np.random.default_rng(0).uniform(0.4, 0.6, (count, channels, side, side)).astype(np.float32)
    )
    return drawn


@settings(max_examples=20)
@given(seed=st.integers(0, 2**32 - 1), channels=st.sampled_from([1, 3]), side=st.integers(12, 40))
def test_a_mask_is_what_was_visibly_changed(seed: int, channels: int, side: int) -> None:
    clean = pictures(3, channels, side)
    spoiled = spoil(clean, seed)
    changed = np.abs(spoiled.pictures - clean).max(1)
    assert ((changed > SEEN) == spoiled.masks).all()
    assert (spoiled.masks.sum((1, 2)) >= FEWEST).all()
    assert spoiled.masks.mean() < 0.7
    assert spoiled.pictures.min() >= 0
    assert spoiled.pictures.max() <= 1
    assert spoiled.pictures.dtype == np.float32


def test_kinds_take_turns() -> None:
    assert spoil(pictures(5), 0).kinds == ("scratch", "hole", "blotch", "scratch", "hole")


def test_a_pictures_defect_does_not_depend_on_the_others() -> None:
    clean = pictures(4)
    together, fewer = spoil(clean, 7), spoil(clean[:2], 7)
    assert np.array_equal(together.pictures[:2], fewer.pictures)
    assert np.array_equal(together.masks[:2], fewer.masks)
    assert not np.array_equal(spoil(clean, 8).masks, together.masks)


def test_a_hole_shows_the_dark_behind() -> None:
    spoiled = spoil(pictures(6), 0)
    for picture, mask, kind in zip(spoiled.pictures, spoiled.masks, spoiled.kinds, strict=True):
        if kind == "hole":
            assert picture[:, mask].min() == 0


def test_shapes_are_what_their_names_say() -> None:
    """A scratch is long and thin, a blotch is not, a hole is smaller than a blotch."""
    spoiled = spoil(np.full((300, 1, 40, 40), 0.5, np.float32), 1)
    extents = {kind: [] for kind in KINDS}  # type: dict[str, list[tuple[float, float]]]
    for mask, kind in zip(spoiled.masks, spoiled.kinds, strict=True):
        extents[kind].append((float(np.ptp(np.argwhere(mask), axis=0).max()) + 1, float(mask.sum())))
    length, area = (
        {kind: np.mean([each[place] for each in found]) for kind, found in extents.items()}
        for place in (0, 1)
    )
    assert length["scratch"] ** 2 > 5 * area["scratch"]
    assert length["blotch"] ** 2 < 2 * area["blotch"]
    assert area["hole"] < area["blotch"]


def test_defects_lie_on_what_is_shown() -> None:
    clean = np.zeros((30, 1, 28, 28), np.float32)
    clean[:, :, 10:18, 10:18] = 0.8
    masks = spoil(clean, 0).masks
    assert masks[:, 10:18, 10:18].any((1, 2)).all()


def test_nothing_can_be_drawn_on_nothing() -> None:
    with pytest.raises(ValueError, match="nothing on the picture"):
        spoil(np.zeros((1, 1, 28, 28), np.float32), 0)
