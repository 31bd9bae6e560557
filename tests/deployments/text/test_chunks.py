import pytest

from deployments.text.chunks import Chunks


def test_where_nobody_waits_all_that_may_be_computed_is() -> None:
    chunks = Chunks(256)
    chunks.decoded(0.01)
    chunks.prefilled(100, 1.0)
    assert chunks.size(pending=1, decoding=0) == 256


@pytest.mark.parametrize(("most", "size"), [(256, 32), (10, 10)])
def test_before_anything_is_measured_chunks_are_small(most: int, size: int) -> None:
    chunks = Chunks(most)
    assert chunks.size(pending=1, decoding=4) == size
    chunks.decoded(0.01)
    assert chunks.size(pending=1, decoding=4) == size


@pytest.mark.parametrize(
    ("token_seconds", "size"), [(1e-4, 96), (1e-3, 8), (5e-4, 16), (0.1, 8), (1e-6, 256), (1e-9, 256)]
)
def test_a_chunk_takes_no_longer_than_a_step_where_more_rows_generate_than_wait(
    token_seconds: float, size: int
) -> None:
    chunks = Chunks(256)
    chunks.decoded(0.01)
    chunks.prefilled(50, 50 * token_seconds)
    assert chunks.size(pending=1, decoding=4) == size
    assert size == 8 or size * token_seconds <= 0.01


def test_one_slow_step_does_not_change_much_and_many_do() -> None:
    chunks = Chunks(1024)
    chunks.decoded(0.01)
    chunks.prefilled(1, 1e-4)
    chunks.decoded(0.02)
    assert 96 < chunks.size(pending=1, decoding=4) <= 136
    for _ in range(50):
        chunks.decoded(0.02)
    assert chunks.size(pending=1, decoding=4) in (192, 200)


def test_the_least_of_a_chunk_is_never_more_than_may_be_computed() -> None:
    chunks = Chunks(3)
    chunks.decoded(0.01)
    chunks.prefilled(1, 1.0)
    assert chunks.size(pending=1, decoding=4) == chunks.size(pending=1, decoding=0) == 3


def test_prompts_that_arrive_together_come_first_where_they_are_many() -> None:
    chunks = Chunks(256)
    chunks.decoded(0.01)
    chunks.prefilled(10, 0.01)
    assert [chunks.size(pending=pending, decoding=8) for pending in (1, 2, 4)] == [8, 256, 256]
    assert chunks.size(pending=2, decoding=9) == 8
    assert chunks.size(pending=1, decoding=1) == 8
