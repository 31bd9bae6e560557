"""The grammars do what they say, in the hands of what will run them. A token is a byte."""

import json
from typing import Any

import pytest

from deployments.messages import Grammar
from deployments.text.grammar import Grammars
from deployments.text.vocabulary import Vocabulary
from service.openai.forced import either, forced, held
from service.openai.schemas.messages import Function
from service.openai.tools import NOTATIONS, ToolParser
from tests.packages import byte_tokenizer

GRAMMARS = Grammars(Vocabulary(byte_tokenizer().to_str().encode(), 256), [0])
# A reference keeps its meaning, wherever the schema ends up.
SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {"a": {"$ref": "#/$defs/A"}},
    "required": ["a"],
    "additionalProperties": False,
    "$defs": {"A": {"type": "integer"}},
}
FUNCTIONS = [Function(name="find", parameters=SCHEMA), Function(name="now")]
FORMS = sorted(NOTATIONS)


def accepts(grammar: Grammar, text: str) -> bool:
    matcher = GRAMMARS.compile(grammar).matcher()
    return all(matcher.advance(byte) for byte in text.encode()) and matcher.complete


def call(form: str, name: str = "find", a: Any = 1) -> str:
    member = "parameters" if form == "llama3" else "arguments"
    return json.dumps({"name": name, member: {"a": a} if name == "find" else {}})


def written(form: str, *calls: str) -> str:
    match form:
        case "hermes":
            return "\n".join(f"<tool_call>\n{one}\n</tool_call>" for one in calls)
        case "mistral":
            return f"[{', '.join(calls)}]"
    return "; ".join(calls)


@pytest.mark.parametrize("form", FORMS)
def test_forced_calls(form: str) -> None:
    for parallel in (False, True):
        grammar = forced(form, FUNCTIONS, parallel=parallel)
        assert grammar.kind == "lark"
        assert accepts(grammar, written(form, call(form)))
        assert accepts(grammar, written(form, call(form, "now")))
        assert not accepts(grammar, written(form, call(form, a="x")))
        assert not accepts(grammar, written(form, call(form, "other")))
        assert not accepts(grammar, "I would rather talk.")
        assert not accepts(grammar, "")
        two = accepts(grammar, written(form, call(form), call(form, "now")))
        assert two == (parallel and form != "llama3")


@pytest.mark.parametrize("form", FORMS)
def test_held_calls(form: str) -> None:
    for parallel in (False, True):
        grammar = held(form, FUNCTIONS, parallel=parallel)
        for text in ("", "I would rather talk.", "Größe {} [] </tool_call>", " a\n"):
            assert accepts(grammar, text)
        assert accepts(grammar, written(form, call(form)))
        assert not accepts(grammar, written(form, call(form, a="x")))
    if form == "hermes":
        assert accepts(grammar, f"Well, {written(form, call(form), call(form, 'now'))} done.")


@pytest.mark.parametrize("form", ["hermes", "mistral"])
def test_calls_or_an_answer(form: str) -> None:
    for parallel in (False, True):
        grammar = either(form, FUNCTIONS, SCHEMA, parallel=parallel)
        assert accepts(grammar, written(form, call(form)))
        assert accepts(grammar, '{"a": 3}')
        assert not accepts(grammar, '{"a": "x"}')
        assert not accepts(grammar, written(form, call(form, a="x")))
        assert not accepts(grammar, "I would rather talk.")
    assert accepts(either(form, FUNCTIONS, None, parallel=True), '{"b": [1, {}]}')


def test_white_space_does_not_go_on_for_ever() -> None:
    for form in FORMS:
        grammar = forced(form, FUNCTIONS, parallel=False)
        spaced = written(form, call(form).replace('"a": 1', '"a":  1'))
        assert not accepts(grammar, spaced)


@pytest.mark.parametrize("form", FORMS)
def test_what_is_forced_is_read(form: str) -> None:
    grammar = forced(form, FUNCTIONS, parallel=False)
    text = written(form, call(form, a=12))
    assert accepts(grammar, text)
    parser = ToolParser(NOTATIONS[form], {"find", "now"})
    told = [*map(parser.feed, text), parser.finish()]
    (found,) = (one for said in told for one in said.calls)
    assert (found.name, json.loads(found.arguments)) == ("find", {"a": 12})
    assert "".join(said.text for said in told) == ""


def _either(form: str, functions: list[Function], *, parallel: bool) -> Grammar:
    return either(form, functions, functions[0].parameters, parallel=parallel)


def test_names_and_schemas_cannot_break_out_of_the_grammar() -> None:
    tricky = {"type": "object", "properties": {'"\n}%json {': {"const": '\\" start: "'}}, "description": "/*"}
    for form in FORMS:
        for make in (forced, held, _either):
            grammar = make(form, [Function(name="a.b-c_D", parameters=tricky)], parallel=True)
            GRAMMARS.compile(grammar)
