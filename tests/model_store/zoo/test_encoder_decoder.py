import pytest
import torch
from torch import Tensor

from model_store.zoo.encoder_decoder import Config, Step, unseen_beyond
from tests.model_store.zoo.weights import drawn

TINY = Config(
    vocabulary=50, source=12, target=10, encoder_layers=2, decoder_layers=2, width=32, heads=4, hidden=48
)


@pytest.fixture
def step() -> Step:
    torch.manual_seed(0)
    return drawn(Step(TINY))


def written(length: int, seed: int) -> Tensor:
    return torch.randint(TINY.vocabulary, (length,), generator=torch.Generator().manual_seed(seed))


SOURCES = [written(length, length) for length in (12, 1, 7, 4)]
TARGETS = [written(10, 20 + place) for place in range(4)]


def together(rows: list[Tensor]) -> tuple[Tensor, Tensor]:
    """Rows padded on the right with a token that means something, and their lengths."""
    filled = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=3)
    return filled, torch.tensor([len(row) for row in rows], dtype=torch.int32)


class Rows:
    """The step's state for several sources, and the inputs around it."""

    def __init__(self, step: Step, sources: list[Tensor]) -> None:
        self.step = step
        ids, self.length = together(sources)
        with torch.no_grad():
            self.memory = step.encode(ids, self.length)
        shape = (len(sources), TINY.heads, TINY.target, TINY.head_dim)
        self.past = [torch.zeros(shape) for _ in range(2 * TINY.decoder_layers)]

    def feed(self, ids: Tensor, done: list[int], rows: slice = slice(None)) -> Tensor:
        """Logits [rows, time, vocabulary] after each of the new tokens [rows, time] on top of `done`."""
        select = torch.arange(ids.shape[1]).expand(ids.shape)
        last = torch.tensor(done, dtype=torch.int32) + ids.shape[1] - 1
        state = [each[rows] for each in (*self.past, *self.memory)]
        with torch.no_grad():
            logits, *present = self.step(ids, select, last, last.max() + 1, self.length[rows], *state)
        for kept, new in zip(self.past, present, strict=True):
            kept[rows] = new
        assert isinstance(logits, Tensor)
        return logits


def plain(step: Step, source: Tensor, target: Tensor) -> Tensor:
    """Logits by the model as it is trained, alone in its batch."""
    with torch.no_grad():
        logits: Tensor = step.model(source[None], torch.tensor([len(source)]), target[None])[0]
    return logits


def test_sizes_are_as_declared(step: Step) -> None:
    memory = Rows(step, SOURCES).memory
    assert [each.shape for each in memory] == [(4, 4, 12, 8)] * 4
    assert plain(step, SOURCES[0], TARGETS[0]).shape == (10, 50)


def test_training_in_a_padded_batch_is_training_alone(step: Step) -> None:
    ids, length = together(SOURCES)
    with torch.no_grad():
        found = step.model(ids, length, torch.stack(TARGETS))
    expected = torch.stack(
        [plain(step, source, target) for source, target in zip(SOURCES, TARGETS, strict=True)]
    )
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def test_a_source_leaves_the_same_whoever_is_read_with_it(step: Step) -> None:
    several = Rows(step, SOURCES).memory
    for row, source in enumerate(SOURCES):
        for found, expected in zip(several, Rows(step, [source]).memory, strict=True):
            torch.testing.assert_close(found[row : row + 1], expected, rtol=1e-4, atol=1e-6)


def test_what_a_source_leaves_is_zero_beyond_its_length(step: Step) -> None:
    for each in Rows(step, SOURCES).memory:
        for row, source in enumerate(SOURCES):
            assert (each[row, :, : len(source)] != 0).all()
            assert (each[row, :, len(source) :] == 0).all()


def test_rows_decode_together_as_alone(step: Step) -> None:
    rows = Rows(step, SOURCES)
    for place in range(10):
        found = rows.feed(torch.stack(TARGETS)[:, place : place + 1], [place] * 4)
        for row, (source, target) in enumerate(zip(SOURCES, TARGETS, strict=True)):
            expected = plain(step, source, target)[place]
            torch.testing.assert_close(found[row, 0], expected, rtol=1e-4, atol=1e-5)


def test_rows_may_be_at_different_places(step: Step) -> None:
    rows, places = Rows(step, SOURCES), [9, 1, 4, 6]
    for row, place in enumerate(places):
        rows.feed(TARGETS[row][None, :place], [0], slice(row, row + 1))
    new = torch.stack([target[place] for target, place in zip(TARGETS, places, strict=True)])
    found = rows.feed(new[:, None], places)
    for row, place in enumerate(places):
        expected = plain(step, SOURCES[row], TARGETS[row])[place]
        torch.testing.assert_close(found[row, 0], expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("chunk", [1, 3, 10])
def test_a_target_in_chunks_is_the_target_at_once(step: Step, chunk: int) -> None:
    rows, source, target = Rows(step, SOURCES[:1]), SOURCES[0], TARGETS[0]
    found = [
        rows.feed(target[None, first : first + chunk], [first])[0] for first in range(0, len(target), chunk)
    ]
    torch.testing.assert_close(torch.cat(found), plain(step, source, target), rtol=1e-4, atol=1e-5)


def test_what_lies_beyond_a_sources_length_does_not_matter(step: Step) -> None:
    clean, dirty = Rows(step, SOURCES[1:2]), Rows(step, SOURCES[1:2])
    for each in dirty.memory:
        each[:, :, 1:] = 1e3
    new = TARGETS[0][None, :1]
    assert torch.equal(clean.feed(new, [0]), dirty.feed(new, [0]))


def test_a_row_without_a_source_gives_numbers(step: Step) -> None:
    rows = Rows(step, SOURCES)
    rows.length[1] = 0
    assert rows.feed(torch.stack(TARGETS)[:, :1], [0] * 4).isfinite().all()


def test_every_token_of_the_source_matters_and_later_targets_do_not(step: Step) -> None:
    source, target = SOURCES[2], TARGETS[0]
    base = plain(step, source, target)
    for place in range(len(source)):
        changed = source.clone()
        changed[place] = (changed[place] + 1) % TINY.vocabulary
        assert not torch.allclose(plain(step, changed, target), base, atol=1e-3)
    later = target.clone()
    later[6] = (later[6] + 1) % TINY.vocabulary
    assert torch.equal(plain(step, source, later)[:6], base[:6])


def test_places_beyond_a_length_are_hidden() -> None:
    hidden = unseen_beyond(torch.tensor([0, 2, 3]), 3, torch.float32)
    assert hidden.shape == (3, 1, 3)
    assert (hidden[:, 0] == 0).tolist() == [[False] * 3, [True, True, False], [True] * 3]
    assert hidden.isfinite().all()
