"""A row's text is its own: whoever shares its steps, and whenever they come and go. With a shipped Transformer's real numbers."""

from model_store.store import shipped
from tests.load.text_alone import compare, drawn
from tests.load.text_runs import opened

MODEL = "shakespeare-gpt"
VOCABULARY = 512


async def test_the_same_seed_gives_the_same_bytes_alone_and_among_neighbours() -> None:
    asked = [drawn(MODEL, seed, VOCABULARY) for seed in range(40)]
    with opened(shipped(), [MODEL], slots=16) as (studio, _):
        found = await compare(studio, asked, 16)
    assert found.different == []
    assert found.same == 40
