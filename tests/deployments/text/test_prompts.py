"""From requests to rows: who computes a prompt, who may use its state, what is refused."""

from typing import Any

import pytest

from deployments.errors import BadRequest
from deployments.messages import Chat, Complete, Grammar
from deployments.text.prompts import Prompts
from deployments.text.sequence import Constraint
from deployments.text.vocabulary import Vocabulary
from model_store.manifest import Source, Text
from tests.deployments.text.test_controls import Only
from tests.packages import byte_tokenizer

VOCABULARY = Vocabulary(byte_tokenizer().to_str().encode(), 256)
SOURCE = Source(context=8, state=(), start_token_id=2, suffix=(1,))


def prompts(context: int = 32, *, text: dict[str, Any] | None = None, **options: Any) -> Prompts:
    fields = Text(
        tokenizer="t.json", vocabulary=256, context=context, state=(), attention=True, eos_token_ids=(0,)
    )
    return Prompts(fields.model_copy(update=text or {}), VOCABULARY, context, **options)


def request(*asked: Any, **fields: Any) -> Complete:
    return Complete(prompts=asked or ("abc",), **{"model": "m", **fields})


def refusal(made: Prompts, *asked: Any, **fields: Any) -> BadRequest:
    with pytest.raises(BadRequest) as refused:
        made.prepare(request(*asked, **fields))
    return refused.value


def test_choices_are_rows_that_share_their_prompt() -> None:
    rows = prompts().prepare(request("ab", "xyz", n=3))
    assert [row.row for row in rows] == [0, 1, 2, 3, 4, 5]
    assert [row.prompt for row in rows] == [(97, 98)] * 3 + [(120, 121, 122)] * 3
    assert [row.leader for row in rows] == [None, rows[0], rows[0], None, rows[3], rows[3]]


@pytest.mark.parametrize(("n", "best_of", "count"), [(1, None, 1), (2, 5, 5), (3, 3, 3)])
def test_the_best_are_chosen_of_more_rows(n: int, best_of: int | None, count: int) -> None:
    assert len(prompts().prepare(request("ab", n=n, best_of=best_of))) == count


def test_fewer_than_are_wanted_cannot_be_the_best() -> None:
    assert refusal(prompts(), n=3, best_of=2).param == "best_of"


def test_a_prompt_whose_probabilities_are_wanted_is_computed_by_every_row() -> None:
    rows = prompts().prepare(request("abc", n=2, echo=True, logprobs=0))
    assert [(row.leader, row.scope) for row in rows] == [(None, None)] * 2


@pytest.mark.parametrize(
    ("share", "fields", "scope"),
    [
        (False, {"principal": "ann"}, "0 ann"),
        (False, {}, "0 "),
        (True, {"principal": "ann"}, "0 "),
        (False, {"principal": "ann", "reuse_prefix": False}, None),
        (True, {"reuse_prefix": False}, None),
        (False, {"principal": "ann", "echo": True}, "0 ann"),
        (False, {"principal": "ann", "model": "m:legal"}, "1 ann"),
        (True, {"principal": "ann", "model": "m:medical"}, "2 "),
    ],
)
def test_who_may_use_a_row_s_state(share: bool, fields: dict[str, Any], scope: str | None) -> None:
    model = prompts(share_prefixes=share, text={"adapters": ("legal", "medical")})
    (row,) = model.prepare(request("abc", **fields))
    assert row.scope == scope


@pytest.mark.parametrize(("asked", "limit"), [(5, 5), (0, 0), (29, 29), (None, 29)])
def test_how_much_a_row_may_say(asked: int | None, limit: int) -> None:
    (row,) = prompts().prepare(request("abc", max_tokens=asked))
    assert row.limit == limit


@pytest.mark.parametrize("prompt", ["abc", (97, 98, 99)])
def test_more_than_the_context_is_refused(prompt: Any) -> None:
    error = refusal(prompts(), "ok", prompt, max_tokens=30)
    assert (error.code, error.param) == ("context_length_exceeded", "prompt[1]")
    assert error.message == "The model's context is 32 tokens; the prompt has 3 and 30 more were asked for."
    error = refusal(prompts(), "a" * 32, max_tokens=None)
    assert error.message == "The model's context is 32 tokens; the prompt has 32."
    assert refusal(prompts(), "x" * 33, max_tokens=0).code == "context_length_exceeded"
    assert refusal(prompts(), "x" * 32, max_tokens=None).code == "context_length_exceeded"


def test_a_huge_prompt_is_refused_before_it_is_encoded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Vocabulary, "encode", lambda *_: pytest.fail("encoded"))
    longest = max(len(VOCABULARY.token_bytes(token)) for token in range(256))
    error = refusal(prompts(), "x" * (33 * longest))
    assert error.code == "context_length_exceeded"
    assert "at least" in error.message


def test_text_begins_as_every_text_of_the_model_does_and_ids_are_taken_as_they_are() -> None:
    made = prompts(text={"prefix": (7, 8)})
    assert made.tokens("ab") == (7, 8, 97, 98)
    assert made.tokens((97, 98)) == (97, 98)
    assert made.tokens("") == (7, 8)


@pytest.mark.parametrize(
    "fields", [{"logit_bias": ((256, 1.0),)}, {"stop_token_ids": (-1,)}, {"stop_token_ids": (256,)}]
)
def test_tokens_that_do_not_exist_are_refused(fields: dict[str, Any]) -> None:
    assert refusal(prompts(), **fields).param == next(iter(fields))


def test_a_source_is_read_and_the_answer_begins_with_its_own_token() -> None:
    (row,) = prompts(text={"source": SOURCE}).prepare(request("abc", max_tokens=None))
    assert (row.source, row.prompt, row.limit) == ((97, 98, 99, 1), (2,), 31)
    assert refusal(prompts(text={"source": SOURCE}), "x" * 8).code == "context_length_exceeded"
    empty = SOURCE.model_copy(update={"suffix": ()})
    assert "empty" in refusal(prompts(text={"source": empty}), "").message
    assert refusal(prompts(text={"source": SOURCE}), "abc", echo=True).param == "echo"


def test_a_conversation_needs_a_template() -> None:
    error = refusal(prompts(), Chat(({"role": "user", "content": "hi"},)))
    assert (error.code, error.param) == ("task_not_supported", "model")


def test_every_row_has_a_constraint_of_its_own() -> None:
    read: list[Grammar] = []

    def constrain(grammar: Grammar) -> Any:
        read.append(grammar)
        return lambda: Only(5)

    grammar = Grammar("regex", "x")
    rows = prompts(constrain=constrain).prepare(request("a", "b", n=2, grammar=grammar))
    constraints: list[Constraint | None] = [row.constraint for row in rows]
    assert read == [grammar]
    assert len({id(each) for each in constraints}) == 4
    assert None not in constraints


def test_where_nothing_reads_grammars_they_are_refused() -> None:
    error = refusal(prompts(), grammar=Grammar("regex", "x"))
    assert (error.code, error.param) == ("task_not_supported", "model")
