from collections.abc import Sequence as Seq

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from deployments.messages import Complete, TextDelta
from deployments.text.sequence import Chosen, Sequence, Uniforms
from deployments.text.vocabulary import Vocabulary
from tests.packages import byte_tokenizer

VOCABULARY = Vocabulary(byte_tokenizer().to_str().encode(), 256)
EOS = 0


def sequence(prompt: str = "hi", **fields: object) -> Sequence:
    request = Complete(model="m", prompts=(prompt,), **{"max_tokens": 100, **fields})  # type: ignore[arg-type]
    limit = request.max_tokens or 0
    return Sequence(request, 0, VOCABULARY.encode(prompt), VOCABULARY, frozenset({EOS}), limit=limit)


def say(row: Sequence, tokens: bytes | Seq[int]) -> list[TextDelta]:
    """Push tokens until the row ends; the deltas that were sent."""
    deltas: list[TextDelta] = []
    for token in tokens:
        delta = row.push(Chosen(token, -0.5, ((token, -0.5), (1, -1.0))))
        if delta is not None:
            deltas.append(delta)
            if delta.finish:
                break
    return deltas


def text_of(deltas: Seq[TextDelta]) -> str:
    return "".join(delta.text for delta in deltas)


def test_every_token_is_sent_as_it_comes() -> None:
    deltas = say(sequence(), b"abc")
    assert [(delta.text, delta.token_ids, delta.finish) for delta in deltas] == [
        ("a", (97,), None),
        ("b", (98,), None),
        ("c", (99,), None),
    ]


def test_the_last_token_allowed_ends_the_row() -> None:
    deltas = say(sequence(max_tokens=2), b"abc")
    assert [(delta.text, delta.finish) for delta in deltas] == [("a", None), ("b", "length")]


def test_the_end_token_ends_the_row_and_is_not_text() -> None:
    deltas = say(sequence(), b"a\0b")
    assert [(delta.text, delta.token_ids, delta.finish) for delta in deltas] == [
        ("a", (97,), None),
        ("", (0,), "stop"),
    ]


def test_the_end_token_as_the_last_allowed_one_is_a_stop() -> None:
    assert say(sequence(max_tokens=2), b"a\0")[-1].finish == "stop"


def test_a_character_is_sent_whole() -> None:
    deltas = say(sequence(), "x\N{EURO SIGN}y".encode())
    assert [(delta.text, delta.token_ids) for delta in deltas] == [
        ("x", (0x78,)),
        ("\N{EURO SIGN}", (0xE2, 0x82, 0xAC)),
        ("y", (0x79,)),
    ]


@pytest.mark.parametrize(("tokens", "finish"), [(b"x\xe2\x82", "length"), (b"x\xe2\0", "stop")])
def test_a_character_cut_off_by_the_end_is_replaced(tokens: bytes, finish: str) -> None:
    deltas = say(sequence(max_tokens=3), tokens)
    assert text_of(deltas) == "x\N{REPLACEMENT CHARACTER}"
    assert deltas[-1].finish == finish


def test_a_stop_ends_the_row_and_takes_its_text_away() -> None:
    deltas = say(sequence(stop=("\n\n",)), b"verse\n\nmore")
    assert text_of(deltas) == "verse"
    assert deltas[-1].finish == "stop"
    assert sum((delta.token_ids for delta in deltas), ()) == tuple(b"verse\n\n")


@pytest.mark.parametrize(("tail", "finish"), [(b"", "length"), (b"\0", "stop")])
def test_text_held_back_for_a_stop_is_sent_at_the_end(tail: bytes, finish: str) -> None:
    row = sequence(stop=("\n\n",), max_tokens=5)
    deltas = say(row, b"vers\n" if not tail else b"ver\n" + tail)
    assert text_of(deltas).endswith("\n")
    assert deltas[-1].finish == finish


def test_a_replaced_character_may_complete_a_stop() -> None:
    deltas = say(sequence(stop=("x\N{REPLACEMENT CHARACTER}",), max_tokens=3), b"ax\xe2")
    assert (text_of(deltas), deltas[-1].finish) == ("a", "stop")


def test_scores_travel_with_their_text() -> None:
    row = sequence(stop=("\N{EURO SIGN}!",), logprobs=1)
    deltas = say(row, "a\N{EURO SIGN}b".encode())
    assert [[score.token for score in delta.logprobs] for delta in deltas] == [
        [b"a"],
        [b"\xe2", b"\x82", b"\xac", b"b"],
    ]
    assert [score.offset for delta in deltas for score in delta.logprobs] == [0, 1, 1, 1, 2]


def test_scores_behind_a_stop_were_never_said() -> None:
    deltas = say(sequence(stop=("bc",), logprobs=0), b"abcd")
    assert [score.token for delta in deltas for score in delta.logprobs] == [b"a"]


def test_all_scores_are_sent_when_the_limit_ends_the_row() -> None:
    deltas = say(sequence(max_tokens=3, logprobs=0), b"a\xe2\x82")
    assert len([score for delta in deltas for score in delta.logprobs]) == 3


@pytest.mark.parametrize(("asked", "given"), [(None, None), (0, 0), (1, 1), (5, 2)])
def test_as_many_alternatives_as_were_asked_for(asked: int | None, given: int | None) -> None:
    (delta,) = say(sequence(logprobs=asked), b"a")
    if given is None:
        assert delta.logprobs == ()
    else:
        (score,) = delta.logprobs
        assert (score.token, score.logprob) == (b"a", -0.5)
        assert score.top == ((b"a", -0.5), (b"\x01", -1.0))[:given]


def test_an_echo_opens_with_the_prompt() -> None:
    row = sequence("caf\N{LATIN SMALL LETTER E WITH ACUTE}", echo=True, logprobs=0)
    row.prompt_scores = [None, *[Chosen(token, -2.0) for token in row.prompt[1:]]]
    opening = row.opening()
    assert opening is not None
    assert opening.text == "caf\N{LATIN SMALL LETTER E WITH ACUTE}"
    assert [score.logprob for score in opening.logprobs] == [None, -2, -2, -2, -2]
    assert [score.offset for score in opening.logprobs] == [0, 1, 2, 3, 3]
    (delta,) = say(row, b"!")
    assert delta.logprobs[0].offset == 4


def test_without_echo_there_is_no_opening() -> None:
    assert sequence().opening() is None


def test_an_echo_without_scores_has_none() -> None:
    opening = sequence(echo=True).opening()
    assert opening is not None
    assert (opening.text, opening.logprobs) == ("hi", ())


def test_stops_are_not_looked_for_in_the_echo() -> None:
    row = sequence("stop", echo=True, stop=("op!",))
    opening = row.opening()
    assert opening is not None
    assert opening.text + text_of(say(row, b"!")) == "stop!"


@given(
    tokens=st.lists(st.sampled_from([*b"ab\n", 0xC3, 0xA9, 0xE2, 0x82, 0xAC, EOS]), max_size=30),
    stops=st.lists(
        st.sampled_from(["ab", "b\n", "\N{EURO SIGN}", "\n\n", "a\N{REPLACEMENT CHARACTER}"]), max_size=3
    ),
    max_tokens=st.integers(1, 30),
)
def test_what_is_sent_is_the_text_up_to_the_first_end(
    tokens: list[int], stops: list[str], max_tokens: int
) -> None:
    """Whatever the row says: no stop leaks, every character is whole, and the pieces are the text."""
    row = sequence(stop=tuple(stops), max_tokens=max_tokens, logprobs=0)
    deltas = say(row, tokens)
    sent = text_of(deltas)
    stream = VOCABULARY.stream()
    said = "".join(stream.feed(token) for token in row.generated if token != EOS)
    if EOS in row.generated or len(row.generated) == max_tokens:
        said += stream.flush()
    assert said.startswith(sent)
    assert not any(stop in sent for stop in stops)
    ended = bool(deltas) and deltas[-1].finish is not None
    assert ended == (
        len(row.generated) == max_tokens or EOS in row.generated or any(s in said for s in stops)
    )
    if ended and not any(stop in said for stop in stops):
        assert sent == said
    for delta in deltas[:-1]:
        assert delta.finish is None
        assert delta.text
    offsets = [score.offset for delta in deltas for score in delta.logprobs]
    assert offsets == sorted(offsets)
    if ended:
        assert sum((delta.token_ids for delta in deltas), ()) == tuple(row.generated)


@pytest.mark.parametrize("end", [[], [EOS]])
def test_a_token_without_text_has_a_score_as_well(end: list[int]) -> None:
    """A vocabulary may be padded to a round size, and a model may say any id of it."""
    padded = Vocabulary(byte_tokenizer().to_str().encode(), 260)
    request = Complete(model="m", prompts=("hi",), max_tokens=2 + len(end), logprobs=0)
    deltas = say(Sequence(request, 0, (104,), padded, frozenset({EOS}), limit=2 + len(end)), [97, 259, *end])
    assert [score.token for delta in deltas for score in delta.logprobs] == [b"a", b""]


# -- random numbers ----------------------------------------------------------------------------------------------------


def draw(seed: int, stream: int, count: int = 200) -> list[float]:
    uniforms = Uniforms(seed, stream)
    return [uniforms.next() for _ in range(count)]


def test_a_stream_depends_on_seed_and_row_alone() -> None:
    assert draw(1, 2) == draw(1, 2)
    assert draw(1, 2)[:100] == draw(1, 2, 100)
    assert draw(1, 2) != draw(1, 3)
    assert draw(1, 2) != draw(2, 2)
    assert draw(2, 1) != draw(1, 2)


def test_a_seed_means_the_same_in_every_release() -> None:
    philox = np.random.Generator(np.random.Philox(key=np.array([1, 2], np.uint64)))
    assert draw(1, 2, 64) == (philox.integers(0, 2**24, 64) / 2**24).tolist()
    assert draw(1, 2, 2) == [0.7083041071891785, 0.30931490659713745]


@pytest.mark.parametrize("seed", [0, 2**63 - 1, 2**64 - 1])
def test_numbers_stay_below_one_in_float32(seed: int) -> None:
    numbers = np.array(draw(seed, 0, 5000), np.float32)
    assert numbers.min() >= 0
    assert numbers.max() < 1
    assert abs(numbers.mean() - 0.5) < 0.02
