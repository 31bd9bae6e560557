import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st

from model_store.zoo.sampler import TOP, Controls, Sampled, Sampler

Floats = npt.NDArray[np.float64]

LOGITS = torch.tensor([2.0, 1.0, 0.5, 0.0, -1.0, -3.0])
LARGEST_UNIFORM = 1 - 2**-24


def sample(
    logits: torch.Tensor,
    *,
    target: int = -1,
    temperature: float = 1.0,
    top_k: int = 0,
    top_p: float = 1.0,
    uniform: float | Floats = 0.5,
) -> Sampled:
    """Rows of the same logits [vocabulary], one for each number in `uniform`, each with one selected position."""
    uniforms = torch.tensor(np.atleast_1d(uniform), dtype=torch.float32)
    rows = len(uniforms)
    controls = Controls(
        target=torch.full((rows, 1), target),
        temperature=torch.full((rows,), temperature),
        top_k=torch.full((rows,), top_k),
        top_p=torch.full((rows,), top_p),
        uniform=uniforms,
    )
    result: Sampled = Sampler()(logits.expand(rows, 1, -1), controls)
    return result


def distribution(logits: Floats, temperature: float, top_k: int, top_p: float) -> Floats:
    """The distribution to sample from, by token, written down as the definition reads."""
    scaled = np.exp((logits - logits.max()) / temperature)
    order = np.argsort(-logits, kind="stable")
    kept = order[:top_k] if top_k else order
    share = scaled[kept] / scaled[kept].sum()
    before = np.cumsum(share) - share
    kept = kept[(before < top_p) | (np.arange(len(kept)) == 0)]
    result: Floats = np.zeros_like(scaled)
    result[kept] = scaled[kept] / scaled[kept].sum()
    return result


def frequencies(logits: torch.Tensor, *, temperature: float, top_k: int = 0, top_p: float = 1.0) -> Floats:
    """How often each token comes out of 10,000 evenly spread numbers."""
    spread = (np.arange(10_000) + 0.5) / 10_000
    tokens = sample(logits, temperature=temperature, top_k=top_k, top_p=top_p, uniform=spread).token
    counts = np.bincount(tokens.flatten().numpy(), minlength=len(logits))
    shares: Floats = counts / len(spread)
    return shares


@pytest.mark.parametrize("uniform", [0.0, 0.5, LARGEST_UNIFORM])
def test_temperature_zero_takes_the_most_probable_token_whatever_the_random_number(uniform: float) -> None:
    assert sample(LOGITS.flip(0), temperature=0, uniform=uniform).token.item() == len(LOGITS) - 1


@pytest.mark.parametrize("temperature", [1e-30, 1e-6, 1e-4])
def test_very_cold_is_greedy_and_finite(temperature: float) -> None:
    sampled = sample(LOGITS * 50, temperature=temperature, uniform=LARGEST_UNIFORM)
    assert sampled.token.item() == 0
    assert torch.isfinite(sampled.logprob).all()


@pytest.mark.parametrize(
    ("temperature", "top_k", "top_p"),
    [(1.0, 0, 1.0), (0.5, 0, 1.0), (2.0, 0, 1.0), (1.0, 3, 1.0), (1.0, 0, 0.7), (0.8, 4, 0.9), (1.0, 2, 0.5)],
)
def test_even_numbers_reproduce_the_distribution(temperature: float, top_k: int, top_p: float) -> None:
    expected = distribution(LOGITS.double().numpy(), temperature, top_k, top_p)
    np.testing.assert_allclose(
        frequencies(LOGITS, temperature=temperature, top_k=top_k, top_p=top_p), expected, atol=2e-4
    )


@given(
    logits=st.lists(st.integers(-40, 40), min_size=2, max_size=30, unique=True),
    temperature=st.floats(0.1, 3),
    top_k=st.integers(0, 40),
    top_p=st.floats(0.01, 1),
    uniform=st.floats(0, LARGEST_UNIFORM, width=32),
)
def test_agrees_with_the_definition(
    logits: list[int], temperature: float, top_k: int, top_p: float, uniform: float
) -> None:
    values = np.array(logits) / 8
    near = [distribution(values, temperature, top_k, top_p + nudge) for nudge in (-1e-5, 1e-5)]
    assume(np.array_equal(near[0] > 0, near[1] > 0))  # not on the edge of top_p, where rounding decides
    order = np.argsort(-values)
    cumulative = np.cumsum(near[0][order])
    assume(np.abs(cumulative[:-1] - uniform).min() > 1e-5)
    expected = order[int((cumulative[:-1] <= uniform).sum())]
    sampled = sample(
        torch.tensor(values, dtype=torch.float32),
        temperature=temperature,
        top_k=top_k,
        top_p=top_p,
        uniform=uniform,
    )
    assert sampled.token.item() == expected


def test_top_k_keeps_the_k_most_probable() -> None:
    assert set(np.flatnonzero(frequencies(LOGITS, temperature=3, top_k=2))) == {0, 1}


def test_top_k_of_one_and_a_tiny_top_p_are_greedy() -> None:
    assert sample(LOGITS, top_k=1, uniform=LARGEST_UNIFORM).token.item() == 0
    assert sample(LOGITS, top_p=1e-6, uniform=LARGEST_UNIFORM).token.item() == 0


def test_top_k_beyond_the_vocabulary_is_off() -> None:
    np.testing.assert_array_equal(
        frequencies(LOGITS, temperature=1, top_k=1000), frequencies(LOGITS, temperature=1)
    )


def test_top_p_keeps_the_smallest_set_that_reaches_it() -> None:
    half = torch.tensor([0.5, 0.25, 0.13, 0.12]).log()
    assert set(np.flatnonzero(frequencies(half, temperature=1, top_p=0.49))) == {0}
    assert set(np.flatnonzero(frequencies(half, temperature=1, top_p=0.51))) == {0, 1}
    assert set(np.flatnonzero(frequencies(half, temperature=1, top_p=0.76))) == {0, 1, 2}


def test_top_p_counts_what_top_k_left() -> None:
    half = torch.tensor([0.5, 0.25, 0.13, 0.12]).log()
    # Of the two kept the first has two thirds, which reaches 0.6; of all four it has half, which does not.
    assert set(np.flatnonzero(frequencies(half, temperature=1, top_k=2, top_p=0.6))) == {0}


@pytest.mark.parametrize("vocabulary", [64, 512])
def test_the_largest_number_never_chooses_what_was_filtered_out(vocabulary: int) -> None:
    logits = torch.linspace(5, -5, vocabulary)
    sampled = sample(logits, top_k=7, uniform=LARGEST_UNIFORM)
    assert sampled.token.item() == 6
    assert sample(logits, uniform=0.0).token.item() == 0


def test_logprobs_are_the_models_own() -> None:
    plain, filtered = (
        sample(LOGITS, uniform=0.0),
        sample(LOGITS, temperature=0.3, top_k=2, top_p=0.5, uniform=0.0),
    )
    assert torch.equal(plain.logprob, filtered.logprob)
    assert torch.equal(plain.top_logprob, filtered.top_logprob)
    torch.testing.assert_close(plain.top_logprob[0, 0], LOGITS.log_softmax(-1))


@pytest.mark.parametrize("target", range(len(LOGITS)))
def test_a_forced_token_is_given_back_with_its_own_logprob(target: int) -> None:
    sampled = sample(LOGITS, target=target, temperature=0)
    assert sampled.token.item() == target
    torch.testing.assert_close(sampled.logprob[0, 0], LOGITS.log_softmax(-1)[target])


def test_forced_and_sampled_positions_can_share_a_row() -> None:
    controls = Controls(
        target=torch.tensor([[4, -1, 2]]),
        temperature=torch.zeros(1),
        top_k=torch.zeros(1, dtype=torch.int64),
        top_p=torch.ones(1),
        uniform=torch.zeros(1),
    )
    sampled = Sampler()(LOGITS.expand(1, 3, -1), controls)
    assert sampled.token.tolist() == [[4, 0, 2]]


def test_the_top_tokens_come_in_order_and_are_at_most_twenty() -> None:
    logits = torch.randn(100, generator=torch.Generator().manual_seed(0))
    sampled = sample(logits)
    assert sampled.top_token.shape == (1, 1, TOP)
    assert sampled.top_token[0, 0].tolist() == logits.argsort(descending=True)[:TOP].tolist()
    assert sample(LOGITS).top_token.shape == (1, 1, len(LOGITS))


def test_a_row_does_not_depend_on_its_neighbours() -> None:
    generator = torch.Generator().manual_seed(1)
    logits = torch.randn(5, 1, 50, generator=generator)
    controls = Controls(
        target=torch.full((5, 1), -1),
        temperature=torch.tensor([0.0, 0.5, 1.0, 1.5, 2.0]),
        top_k=torch.tensor([0, 5, 0, 20, 1]),
        top_p=torch.tensor([1.0, 1.0, 0.5, 0.9, 0.1]),
        uniform=torch.rand(5, generator=generator),
    )
    together = Sampler()(logits, controls)
    for row in range(5):
        alone = Sampler()(logits[row : row + 1], Controls(*(each[row : row + 1] for each in controls)))
        for one, all_rows in zip(alone, together, strict=True):
            assert torch.equal(one[0], all_rows[row])
