import pytest
import torch
from torch import Tensor, nn

from model_store.zoo.transformer import Config, Step, Transformer, attend, rotary_tables, rotate
from tests.model_store.zoo.weights import drawn

TINY = Config(vocabulary=40, context=24, layers=2, width=32, heads=4, kv_heads=2, hidden=48)


@pytest.fixture
def step() -> Step:
    torch.manual_seed(0)
    return drawn(Step(TINY))


class Rows:
    """Caches of several rows, and the step's inputs around them."""

    def __init__(self, step: Step, count: int) -> None:
        self.step = step
        shape = (count, TINY.kv_heads, TINY.context, TINY.head_dim)
        self.past = [torch.zeros(shape) for _ in range(2 * TINY.layers)]

    def feed(self, row: int, tokens: Tensor, done: int) -> Tensor:
        """One row's next tokens [time] on top of `done`; the log-probabilities of what follows each in `tokens`."""
        following = torch.cat((tokens[1:], tokens[:1]))
        return self._run(
            slice(row, row + 1), tokens[None], torch.arange(len(tokens))[None], following[None], [done]
        )[0]

    def decode(self, tokens: Tensor, done: list[int], target: Tensor) -> Tensor:
        """One token of every row; the log-probability of its target."""
        select = torch.zeros(len(tokens), 1, dtype=torch.int64)
        return self._run(slice(None), tokens[:, None], select, target[:, None], done).squeeze(1)

    def _run(self, rows: slice, ids: Tensor, select: Tensor, target: Tensor, done: list[int]) -> Tensor:
        last = torch.tensor(done, dtype=torch.int32) + ids.shape[1] - 1
        total = (last.max() + 1).to(torch.int32)
        past = [each[rows] for each in self.past]
        with torch.no_grad():
            logits, *present = self.step.forward(ids, select, last, total, *past)
        for kept, new in zip(self.past, present, strict=True):
            kept[rows] = new
        return logits.log_softmax(-1).gather(2, target[..., None]).squeeze(2)


def plain(step: Step, tokens: Tensor) -> Tensor:
    """Log-probabilities of each next token by the model without a cache."""
    with torch.no_grad():
        scores: Tensor = step.model(tokens[None]).log_softmax(-1)[0, :-1]
    return scores.gather(1, tokens[1:, None])[:, 0]


def written(length: int, seed: int = 0) -> Tensor:
    return torch.randint(TINY.vocabulary, (length,), generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("chunk", [1, 2, 5, 7, 24])
def test_a_prompt_in_chunks_is_the_prompt_at_once(step: Step, chunk: int) -> None:
    tokens, rows = written(24), Rows(step, 1)
    found = [rows.feed(0, part, place * chunk)[:-1] for place, part in enumerate(torch.split(tokens, chunk))]
    expected = [
        part[: len(each)] for part, each in zip(_parts(plain(step, tokens), chunk), found, strict=True)
    ]
    torch.testing.assert_close(torch.cat(found), torch.cat(expected), rtol=1e-4, atol=1e-5)


def _parts(scores: Tensor, chunk: int) -> list[Tensor]:
    return [scores[place : place + chunk - 1] for place in range(0, len(scores) + 1, chunk)]


def test_rows_of_different_lengths_decode_together(step: Step) -> None:
    lengths = [3, 23, 1, 11]
    texts = [written(length + 1, seed) for seed, length in enumerate(lengths)]
    rows = Rows(step, len(lengths))
    for row, tokens in enumerate(texts):
        if len(tokens) > 2:
            rows.feed(row, tokens[:-2], 0)
    found = rows.decode(
        torch.stack([tokens[-2] for tokens in texts]),
        [length - 1 for length in lengths],
        torch.stack([tokens[-1] for tokens in texts]),
    )
    expected = torch.stack([plain(step, tokens)[-1] for tokens in texts])
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def test_a_step_writes_its_own_places_of_the_cache_and_no_other(step: Step) -> None:
    rows = Rows(step, 2)
    for each in rows.past:
        each.fill_(7.0)
    rows.decode(written(2), [3, 0], written(2))
    for each in rows.past:
        changed = (each != 7.0).flatten(2).any(-1).any(-1), (each != 7.0).any(-1).any(1)
        assert changed[0].all()
        assert changed[1].nonzero().tolist() == [[0, 3], [1, 0]]


def test_what_lies_behind_a_rows_length_does_not_matter(step: Step) -> None:
    clean, dirty = Rows(step, 1), Rows(step, 1)
    for each in dirty.past:
        each.fill_(1e3)
    tokens = written(9)
    torch.testing.assert_close(clean.feed(0, tokens, 0), dirty.feed(0, tokens, 0))


def test_only_selected_positions_answer_in_the_order_asked(step: Step) -> None:
    tokens, past = written(6), Rows(step, 1).past
    last, total = torch.tensor([5], dtype=torch.int32), torch.tensor(6, dtype=torch.int32)
    with torch.no_grad():
        logits, *present = step(tokens[None], torch.tensor([[4, 0]]), last, total, *past)
        expected = step.model(tokens[None])[:, [4, 0]]
    torch.testing.assert_close(logits, expected, rtol=1e-4, atol=1e-5)
    assert [each.shape for each in present] == [each.shape for each in past]


def test_a_later_token_does_not_change_earlier_logits(step: Step) -> None:
    tokens = written(10)[None]
    changed = tokens.clone()
    changed[0, 6] = (changed[0, 6] + 1) % TINY.vocabulary
    with torch.no_grad():
        before, after = step.model(tokens), step.model(changed)
    assert torch.equal(before[:, :6], after[:, :6])
    assert not torch.equal(before[:, 6], after[:, 6])


def test_attention_is_torchs_own() -> None:
    generator = torch.Generator().manual_seed(0)
    query = torch.randn(2, 4, 5, 8, generator=generator)
    key, value = (torch.randn(2, 2, 9, 8, generator=generator) for _ in range(2))
    ahead = torch.arange(9) > torch.arange(4, 9)[:, None]
    unseen = torch.zeros(1, 5, 9).masked_fill(ahead, -torch.inf)
    expected = nn.functional.scaled_dot_product_attention(query, key, value, ~ahead, enable_gqa=True)
    torch.testing.assert_close(attend(query, key, value, unseen), expected.transpose(1, 2).flatten(2))


def test_rotation_keeps_lengths_and_shows_only_distances() -> None:
    cos, sin = rotary_tables(TINY)
    generator = torch.Generator().manual_seed(0)
    query, key = (torch.randn(1, 1, 1, TINY.head_dim, generator=generator) for _ in range(2))

    def score(at: int, before: int) -> float:
        return float((rotate(query, cos[at], sin[at]) * rotate(key, cos[before], sin[before])).sum())

    assert score(5, 2) == pytest.approx(score(15, 12), abs=1e-5)
    assert score(5, 2) != pytest.approx(score(5, 3), abs=1e-3)
    torch.testing.assert_close(rotate(query, cos[7], sin[7]).norm(), query.norm())


def test_dropout_works_in_training_alone(step: Step) -> None:
    tokens = written(8)[None]
    with torch.no_grad():
        assert torch.equal(step.model(tokens), step.model(tokens))
        step.train()
        assert not torch.equal(step.model(tokens), step.model(tokens))


def test_an_untrained_model_expects_every_token_alike() -> None:
    torch.manual_seed(0)
    model = Transformer(TINY).eval()
    with torch.no_grad():
        loss = nn.functional.cross_entropy(model(written(20)[None])[0], written(20, seed=1))
    assert loss.item() == pytest.approx(torch.tensor(float(TINY.vocabulary)).log().item(), abs=0.1)


def test_every_weight_learns() -> None:
    torch.manual_seed(0)
    model = Transformer(TINY)
    for _ in range(2):  # the outer matrices start at zero, so the inner ones learn from the second step on
        model.zero_grad()
        loss = nn.functional.cross_entropy(model(written(20)[None])[0], written(20, seed=1))
        torch.autograd.backward(loss)
        with torch.no_grad():
            for weight in model.parameters():
                assert weight.grad is not None
                weight.sub_(0.1 * weight.grad)
    assert [
        name for name, weight in model.named_parameters() if weight.grad is None or not weight.grad.any()
    ] == []
