import numpy as np
import pytest

from deployments.evaluation.edits import DAMAGES

RANDOM = np.random.default_rng(0)


@pytest.mark.parametrize("task", DAMAGES)
@pytest.mark.parametrize("channels", [3, 4])
def test_what_is_plain_has_the_size_of_what_is_right(task: str, channels: int) -> None:
    picture = RANDOM.uniform(0, 1, (channels, 8, 12)).astype(np.float32)
    damage, _ = DAMAGES[task]  # type: ignore[index]  # one of its keys
    damaged = damage(picture, 2, RANDOM)
    assert damaged.plain.shape == picture.shape
    assert damaged.shown.shape == ((channels, 4, 6) if task == "upscale" else picture.shape)
    assert (damaged.mask is not None) == (task == "inpaint")
    assert not np.allclose(damaged.plain[:3], picture[:3])
    for each in (damaged.shown, damaged.plain):
        assert each.dtype == np.float32
        assert 0 <= each.min() <= each.max() <= 1 + 1e-6
    if damaged.mask is not None:
        assert damaged.mask.sum() == 24
        assert np.array_equal(damaged.plain * (1 - damaged.mask), picture * (1 - damaged.mask))
