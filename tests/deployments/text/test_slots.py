"""State of all slots: what is bound where, and that a copy is of the first tokens and of nothing else."""

from typing import Any

import numpy as np
import pytest

from deployments.text.slots import Slots
from model_store.manifest import Source, State, Text
from model_store.session import Array, Device, Place
from model_store.state import copy

CACHE = ({"past": "past.key", "present": "present.key", "shape": (2, "cache", 3), "in_place": True},)
BESIDE = ({"past": "past.key", "present": "present.key", "shape": (2, "cache", 3)},)
COUNT = ({"past": "past.count", "present": "present.count", "shape": (4,)},)


def slots(*states: dict[str, Any], live: int = 3, kept: int = 2, source: bool = False) -> Slots:
    cross = (State(past="cross", present="made", shape=(5,)),)
    text = Text(
        tokenizer="tokenizer.json",
        vocabulary=8,
        context=6,
        state=tuple(State(**state) for state in states),
        attention=True,
        source=Source(context=5, state=cross, start_token_id=1) if source else None,
    )
    return Slots(text, live=live, kept=kept, context=6, device=Device())


def read(place: Place) -> Array:
    content = np.empty(place.shape, place.dtype)
    copy(place, content)
    return content


def number(made: Slots, count: int) -> None:
    """Slot i holds i + 1 everywhere."""
    for slot in range(count):
        for place in made.bound(slot, 1)[0].values():
            copy(np.full(place.shape, slot + 1, place.dtype), place)


def past(made: Slots, slot: int, name: str = "past.key") -> Array:
    content: Array = read(made.bound(slot, 1)[0][name])[0]
    return content


def test_a_run_reads_and_writes_its_own_slots() -> None:
    made = slots(*CACHE)
    number(made, 5)
    inputs, outputs = made.bound(1, 2)
    assert inputs.keys() == {"past.key"}
    assert outputs.keys() == {"present.key"}
    assert inputs["past.key"] == outputs["present.key"]
    assert read(inputs["past.key"])[:, 0, 0, 0].tolist() == [2, 3]
    assert inputs["past.key"].shape == (2, 2, 6, 3)


@pytest.mark.parametrize("tokens", [0, 1, 4, 6])
@pytest.mark.parametrize("states", [CACHE, BESIDE], ids=["in place", "beside"])
def test_a_copy_is_of_the_first_tokens(tokens: int, states: tuple[dict[str, Any], ...]) -> None:
    made = slots(*states)
    number(made, 5)
    made.copy(4, 1, tokens)
    assert (past(made, 1)[:, :tokens] == 5).all()
    assert (past(made, 1)[:, tokens:] == 2).all()
    for slot in (0, 2, 3, 4):
        assert (past(made, slot) == slot + 1).all()


def test_state_of_one_piece_is_copied_whole() -> None:
    made = slots(*COUNT)
    number(made, 3)
    made.copy(2, 0, 1)
    assert past(made, 0, "past.count").tolist() == [3, 3, 3, 3]


def test_a_new_row_begins_with_an_empty_state() -> None:
    made = slots(*COUNT, *CACHE)
    number(made, 3)
    made.begin(1)
    assert past(made, 1, "past.count").tolist() == [0, 0, 0, 0]
    assert (past(made, 1) == 2).all()  # its length says what counts
    assert (past(made, 0, "past.count") == 1).all()


@pytest.mark.parametrize(("active", "kept"), [([0, 1, 2], [9, 9, 9]), ([1], [1, 9, 3]), ([2, 0], [9, 2, 9])])
def test_what_a_step_wrote_beside_is_the_next_past_of_the_rows_in_it(
    active: list[int], kept: list[int]
) -> None:
    made = slots(*COUNT)
    number(made, 3)
    for place in made.bound(0, 3)[1].values():
        copy(np.full(place.shape, 9, place.dtype), place)
    made.keep(active, 3)
    assert [past(made, slot, "past.count")[0] for slot in range(3)] == kept


def test_only_state_along_tokens_is_kept_for_others() -> None:
    whole, cut, mixed, crossed = (
        slots(*COUNT),
        slots(*CACHE),
        slots(*CACHE, *COUNT),
        slots(*CACHE, source=True),
    )
    assert [made.divisible for made in (whole, cut, mixed, crossed)] == [False, True, False, False]
    assert [made.keeps for made in (whole, cut, mixed, crossed)] == [False, True, False, False]
    assert not slots(*CACHE, kept=0).keeps
    for made, count in ((cut, 5), (whole, 3), (slots(*CACHE, kept=0), 3)):
        made.bound(count - 1, 1)
        with pytest.raises(ValueError, match="there are no slots"):
            made.bound(count, 1)


def test_an_encoder_writes_into_the_slots_that_the_steps_read() -> None:
    made = slots(*CACHE, source=True)
    places = made.encoded(1, 1)
    assert places.keys() == {"made"}
    copy(np.full((1, 5), 7, np.float32), places["made"])
    inputs, outputs = made.bound(0, 3)
    assert read(inputs["cross"])[:, 0].tolist() == [0, 7, 0]
    assert "made" not in outputs
    made.copy(1, 0, 2)
    assert past(made, 0, "cross").tolist() == [7] * 5
