"""The same seed and place give the same numbers; any other give others."""

import numpy as np

from deployments.randomness import noise, stream


def test_a_stream_is_a_function_of_seed_and_place() -> None:
    first = stream(7, 2).random(100)
    assert np.array_equal(first, stream(7, 2).random(100))
    assert not np.array_equal(first, stream(7, 3).random(100))
    assert not np.array_equal(first, stream(8, 2).random(100))


def test_large_seeds_are_told_apart() -> None:
    assert not np.array_equal(stream(2**63 - 1, 0).random(8), stream(2**63 - 2, 0).random(8))


def test_a_longer_draw_begins_with_a_shorter_one() -> None:
    assert np.array_equal(stream(1, 1).random(64), stream(1, 1).random(128)[:64])


def test_noise_is_standard_normal() -> None:
    drawn = noise(3, 0, 100_000)
    assert drawn.dtype == np.float32
    assert abs(float(drawn.mean())) < 0.02
    assert abs(float(drawn.std()) - 1) < 0.02
