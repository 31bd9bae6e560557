import json
import random
import re
import threading
import time
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from deployments.errors import BadRequest
from deployments.messages import Grammar
from deployments.text.grammar import Grammars, Matcher, words_of
from deployments.text.vocabulary import Vocabulary
from tests.deployments.text.lexicons import KINDS, file_of

ENDS = {"byte-level": "<|im_end|>", "llama": "</s>", "mistral": "</s>", "gemma": "</s>", "unigram": "</s>"}
PERSON = {
    "type": "object",
    "properties": {"name": {"type": "string", "maxLength": 8}, "age": {"type": "integer", "minimum": 0, "maximum": 150}},
    "required": ["name", "age"],
    "additionalProperties": False,
}  # fmt: skip


def vocabulary_of(kind: str) -> tuple[Vocabulary, frozenset[int]]:
    tokenizer = KINDS[kind]()
    end = tokenizer.token_to_id(ENDS[kind])
    assert end is not None
    return Vocabulary(file_of(tokenizer), tokenizer.get_vocab_size()), frozenset({end})


VOCABULARIES = {kind: vocabulary_of(kind) for kind in ENDS}
GRAMMARS = {kind: Grammars(*VOCABULARIES[kind]) for kind in ENDS}
BYTES = GRAMMARS["byte-level"]
each_kind = pytest.mark.parametrize("kind", sorted(ENDS))


def schema(value: Any) -> Grammar:
    return Grammar("json_schema", json.dumps(value))


def choice(*values: str) -> Grammar:
    return Grammar("choice", json.dumps(values))


def allowed(kind: str, matcher: Matcher) -> list[int]:
    size = VOCABULARIES[kind][0].size
    words = np.full(words_of(size), -1, np.int32)
    assert matcher.fill(words), matcher.error
    bits = np.unpackbits(words.view(np.uint8), bitorder="little")
    assert not bits[size:].any()
    return np.flatnonzero(bits[:size]).tolist()


def write(kind: str, grammar: Grammar, dice: random.Random, steps: int = 300) -> str | None:
    """A random text of the grammar, None where it has no end soon."""
    vocabulary, eos = VOCABULARIES[kind]
    matcher = GRAMMARS[kind].compile(grammar).matcher()
    stream, text = vocabulary.stream(), ""
    for _ in range(steps):
        tokens = allowed(kind, matcher)
        assert tokens
        assert matcher.complete == bool(eos & set(tokens))
        if eos & set(tokens) and (len(tokens) == 1 or dice.random() < 0.3):
            return text + stream.flush()
        token = dice.choice([token for token in tokens if token not in eos])
        assert matcher.advance(token)
        text += stream.feed(token)
        if matcher.done:
            assert allowed(kind, matcher) == sorted(eos)
            return text + stream.flush()
    return None


# -- what comes out -----------------------------------------------------------------------------------------------------


@each_kind
@given(seed=st.integers(0, 1 << 30))
def test_whatever_is_written_fits_the_schema(kind: str, seed: int) -> None:
    small = schema({"type": "array", "items": {"enum": ["to", "be", 1, None, True]}, "maxItems": 3})
    text = write(kind, small, random.Random(seed))
    if text is not None:
        value = json.loads(text)
        assert len(value) <= 3
        assert all(item in ("to", "be", 1, None, True) for item in value)


@given(seed=st.integers(0, 1 << 30))
def test_an_object_has_what_it_must(seed: int) -> None:
    text = write("byte-level", schema(PERSON), random.Random(seed))
    if text is not None:
        person = json.loads(text)
        assert person.keys() == {"name", "age"}
        assert 0 <= person["age"] <= 150
        assert len(person["name"]) <= 8


@given(seed=st.integers(0, 1 << 30))
def test_any_object_is_an_object(seed: int) -> None:
    text = write("byte-level", Grammar("json_object"), random.Random(seed))
    if text is not None:
        assert isinstance(json.loads(text), dict)


@each_kind
@given(
    seed=st.integers(0, 1 << 30),
    pattern=st.sampled_from(["(to|be)+", "[a-c]{2,5}", "a*b?", "", "t[^x]o", r"b.e"]),
)
def test_whatever_is_written_matches_the_pattern(kind: str, seed: int, pattern: str) -> None:
    text = write(kind, Grammar("regex", pattern), random.Random(seed))
    if text is not None:
        assert re.fullmatch(pattern, text)


CHOICES = ("to be", "to", "a/b\n\"'\\c", "caf\N{LATIN SMALL LETTER E WITH ACUTE} \N{EURO SIGN} [x]{2}$", "be")


@pytest.mark.parametrize("kind", sorted(ENDS.keys() - {"unigram"}))
@given(seed=st.integers(0, 1 << 30))
def test_a_choice_is_one_of_the_strings(kind: str, seed: int) -> None:
    assert write(kind, choice(*CHOICES), random.Random(seed)) in CHOICES


@pytest.mark.parametrize("text", CHOICES)
@pytest.mark.parametrize("kind", ["byte-level", "gemma"])
def test_a_choice_may_be_cut_as_the_model_is_used_to(kind: str, text: str) -> None:
    vocabulary, eos = VOCABULARIES[kind]
    matcher = GRAMMARS[kind].compile(choice(*CHOICES)).matcher()
    for token in vocabulary.encode(text):
        assert token in allowed(kind, matcher)
        assert matcher.advance(token)
    assert matcher.complete
    assert eos & set(allowed(kind, matcher))


@given(seed=st.integers(0, 1 << 30))
def test_a_lark_grammar_is_followed(seed: int) -> None:
    grammar = Grammar("lark", 'start: "(" start ")" | NUMBER\nNUMBER: /[0-9]{1,3}/')
    text = write("byte-level", grammar, random.Random(seed))
    if text is not None:
        assert re.fullmatch(r"\(*[0-9]{1,3}\)*", text)
        assert text.count("(") == text.count(")")


def test_white_space_between_the_parts_of_json_is_bounded() -> None:
    matcher = BYTES.compile(schema({"type": "array"})).matcher()
    vocabulary = VOCABULARIES["byte-level"][0]
    for token in vocabulary.encode("["):
        assert matcher.advance(token)
    spaces = 0
    (space,) = vocabulary.encode(" ")
    while space in allowed("byte-level", matcher):
        matcher.advance(space)
        spaces += 1
    assert 1 <= spaces <= 50


def test_only_the_end_may_follow_what_is_complete() -> None:
    vocabulary, eos = VOCABULARIES["byte-level"]
    matcher = BYTES.compile(choice("a", "ab")).matcher()
    matcher.advance(*vocabulary.encode("a"))
    assert (matcher.complete, matcher.done) == (True, False)
    assert eos < set(allowed("byte-level", matcher))
    matcher.advance(*vocabulary.encode("b"))
    assert (matcher.complete, matcher.done) == (True, True)
    assert allowed("byte-level", matcher) == sorted(eos)
    assert matcher.advance(*eos)
    assert matcher.done


def test_a_model_without_an_end_ends_with_its_grammar() -> None:
    for kind, spare in (("byte-level", 0), ("llama", 3)):
        tokenizer = KINDS[kind]()
        vocabulary = Vocabulary(file_of(tokenizer), tokenizer.get_vocab_size() + spare)
        grammars = Grammars(vocabulary, ())
        matcher, words = (
            grammars.compile(choice("b")).matcher(),
            np.zeros(words_of(vocabulary.size), np.int32),
        )
        assert matcher.fill(words)
        assert np.unpackbits(words.view(np.uint8)).sum() >= 1
        (token,) = [t for t, piece in enumerate(vocabulary.pieces) if piece == b"b"][:1]
        assert matcher.advance(token)
        assert matcher.done
        matcher = grammars.compile(Grammar("regex", "b*")).matcher()
        assert matcher.fill(words)
        assert matcher.complete
        assert not matcher.done
        with pytest.raises(BadRequest, match="no text fits it"):
            grammars.compile(Grammar("regex", ""))


def test_special_tokens_are_no_text() -> None:
    tokens = allowed("byte-level", BYTES.compile(Grammar("regex", "[^a]+")).matcher())
    assert not set(tokens) & VOCABULARIES["byte-level"][0].special
    assert len(tokens) > 200


def test_several_tokens_may_end_a_text() -> None:
    vocabulary, _ = VOCABULARIES["byte-level"]
    ends = sorted(vocabulary.special)[:2]
    matcher = Grammars(vocabulary, ends).compile(Grammar("regex", "")).matcher()
    assert allowed("byte-level", matcher) == ends


# -- one text apart from another ----------------------------------------------------------------------------------------


def test_texts_of_one_grammar_do_not_know_each_other() -> None:
    vocabulary, _ = VOCABULARIES["byte-level"]
    compiled = BYTES.compile(choice("ab", "cd"))
    one, other = compiled.matcher(), compiled.matcher()
    assert one.advance(*vocabulary.encode("a"))
    assert set(allowed("byte-level", one)) == {vocabulary.encode("b")[0]}
    assert set(allowed("byte-level", other)) >= {vocabulary.encode("a")[0], vocabulary.encode("c")[0]}


def test_a_token_that_is_not_allowed_ends_one_text_alone() -> None:
    vocabulary, _ = VOCABULARIES["byte-level"]
    compiled = BYTES.compile(choice("ab"))
    one, other = compiled.matcher(), compiled.matcher()
    words = np.zeros(words_of(vocabulary.size), np.int32)
    assert not one.advance(*vocabulary.encode("z"))
    assert not one.fill(words)
    assert not one.advance(*vocabulary.encode("a"))
    assert (one.done, one.complete) == (False, False)
    assert "grammar" in one.error
    assert len(one.error) <= 200
    assert other.fill(words)
    assert other.advance(*vocabulary.encode("a"))
    assert other.error == ""


def test_a_text_that_outgrows_its_limits_fails_no_other_request() -> None:
    vocabulary, _ = VOCABULARIES["byte-level"]
    words, dice, grammar = (
        np.zeros(words_of(vocabulary.size), np.int32),
        random.Random(1),
        Grammar("regex", ".*a.{18}"),
    )
    lengths = []
    for _ in range(3):
        matcher = BYTES.compile(grammar).matcher()
        length = 0
        while (
            length < 400 and matcher.fill(words) and matcher.advance(vocabulary.encode(dice.choice("abc"))[0])
        ):
            length += 1
        lengths.append(length)
    assert min(lengths) == 400
    one = BYTES.compile(grammar)
    while (matcher := one.matcher()).fill(words):  # texts of one request do wear out what they share
        for _ in range(400):
            if not matcher.fill(words) or not matcher.advance(vocabulary.encode(dice.choice("abc"))[0]):
                break
    assert "too many states" in matcher.error
    assert BYTES.compile(grammar).matcher().fill(words)


def test_threads_may_compile_and_write_at_once() -> None:
    grammars, faults = Grammars(*VOCABULARIES["byte-level"]), list[BaseException]()

    def work(place: int) -> None:
        try:
            matcher = grammars.compile(choice("ab" * (place % 3 + 1))).matcher()
            for token in VOCABULARIES["byte-level"][0].encode("ab"):
                assert token in allowed("byte-level", matcher)
                assert matcher.advance(token)
        except BaseException as fault:  # noqa: BLE001
            faults.append(fault)

    threads = [threading.Thread(target=work, args=(place,)) for place in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not faults


# -- what is refused ----------------------------------------------------------------------------------------------------


def deep(levels: int) -> dict[str, Any]:
    value: dict[str, Any] = {"type": "integer"}
    for _ in range(levels):
        value = {"type": "object", "properties": {"a": value}}
    return value


REFUSED = {
    "no schema": Grammar("json_schema", '"nonsense"'),
    "no json": Grammar("json_schema", "{"),
    "unknown type": schema({"type": "nonsense"}),
    "a keyword that is not honoured": schema({"type": "object", "if": {"type": "object"}}),
    "a reference to nowhere": schema({"$ref": "#/$defs/x"}),
    "a reference to the net": schema({"$ref": "http://example.com/schema"}),
    "a file": schema({"$ref": "file:///etc/passwd"}),
    "false": Grammar("json_schema", "false"),
    "an empty enum": schema({"enum": []}),
    "a broken pattern": schema({"type": "string", "pattern": "("}),
    "a pattern repeated": schema({"type": "string", "pattern": "(x{1000}){1000}"}),
    "a property pattern repeated": schema({"type": "object", "patternProperties": {"(x{1000}){1000}": {}}}),
    "deep": schema(deep(100)),
    "very deep": Grammar("json_schema", '{"a":' * 10_000 + "1" + "}" * 10_000),
    "brackets": Grammar("json_schema", "[" * 60_000),
    "wide": schema({"type": "object", "properties": {str(place): {} for place in range(3000)}}),
    "long": schema({"description": "x" * 70_000}),
    "impossible": schema({"type": "object", "properties": {"a": False}, "required": ["a"]}),
    "half a character": Grammar("regex", "\ud800"),
    "unbalanced": Grammar("regex", "("),
    "look-around": Grammar("regex", "(?=a)b"),
    "back-reference": Grammar("regex", r"(a)\1"),
    "nothing matches": Grammar("regex", "[a&&b]"),
    "long regex": Grammar("regex", "a" * 70_000),
    "repeated repetitions": Grammar("regex", "(x{1000}){1000}"),
    "a large count": Grammar("regex", "x{100000000}"),
    "a count of many digits": Grammar("regex", "x{" + "9" * 9000 + "}"),
    "repetitions in a row": Grammar("regex", "x{900}" * 100),
    "counts in groups": Grammar("regex", "(?:(?:(?:x{40}){40}){40}){40}"),
    "no list": Grammar("choice", '"a"'),
    "no choices": Grammar("choice", "[]"),
    "choices that are no strings": Grammar("choice", '["a", 1]'),
    "choices that are no json": Grammar("choice", "[" * 50_000),
    "too many choices": choice(*map(str, range(1001))),
    "no lark": Grammar("lark", "nonsense ("),
    "an empty grammar": Grammar("lark", ""),
    "an unknown rule": Grammar("lark", "start: other"),
    "another grammar": Grammar("lark", "start: @other"),
    "its own options": Grammar("lark", '%llguidance {"no_forcing": false}\nstart: "a"'),
    "a file in lark": Grammar("lark", '%include "/etc/passwd"\nstart: "a"'),
    "a rule without end": Grammar("lark", "start: start"),
    "repeated rule": Grammar("lark", 'start: ("a"{1000}){1000}'),
}
PARAMS = {"json_schema": "response_format", "regex": "regex", "choice": "choice", "lark": "grammar"}


@pytest.mark.parametrize("name", REFUSED)
def test_a_grammar_that_cannot_be_used_is_refused_at_once(name: str) -> None:
    BYTES.compile(choice("a"))  # the vocabulary is read once
    began = time.thread_time()
    with pytest.raises(BadRequest) as caught:
        BYTES.compile(REFUSED[name])
    assert time.thread_time() - began < 0.2
    assert caught.value.param == PARAMS[REFUSED[name].kind]
    assert len(caught.value.message) < 300
    assert caught.value.message.isprintable()


SLOW_ELSEWHERE = [
    "(a+)+b",
    "(a|a)*b",
    "(a*)*b",
    "(.*)*x",
    "([a-z]+)+[0-9]",
    "(a|aa)+$",
    ".*a.{12}",
    "(x+x+)+y",
    "^(a?){30}a{30}$",
]


@pytest.mark.parametrize("pattern", SLOW_ELSEWHERE)
def test_a_catastrophic_pattern_costs_a_step_no_more_than_another(pattern: str) -> None:
    vocabulary, _ = VOCABULARIES["byte-level"]
    began = time.thread_time()
    matcher = BYTES.compile(Grammar("regex", pattern)).matcher()
    words = np.zeros(words_of(vocabulary.size), np.int32)
    (letter,) = vocabulary.encode("x" if pattern.startswith("(x") else "a")
    for _ in range(60):
        if not (matcher.fill(words) and matcher.advance(letter)):
            break
    assert time.thread_time() - began < 1


def test_a_grammar_that_outgrows_its_limits_fails_and_does_not_hang() -> None:
    vocabulary, _ = VOCABULARIES["byte-level"]
    matcher = BYTES.compile(Grammar("regex", "(.*a.{12}){3}.*b.{14}")).matcher()
    words, dice = np.zeros(words_of(vocabulary.size), np.int32), random.Random(1)
    began = time.thread_time()
    for _ in range(200):
        if not (matcher.fill(words) and matcher.advance(vocabulary.encode(dice.choice("abc"))[0])):
            assert matcher.error
            break
    assert time.thread_time() - began < 10


@given(source=st.text(max_size=40), kind=st.sampled_from(["json_schema", "regex", "choice", "lark"]))
def test_any_source_is_taken_or_refused(source: str, kind: Any) -> None:
    try:
        matcher = BYTES.compile(Grammar(kind, source)).matcher()
    except BadRequest:
        return
    assert allowed("byte-level", matcher)


def test_a_schema_cannot_choose_how_it_is_read() -> None:
    lenient = {"type": "object", "if": {}, "x-guidance": {"lenient": True}}
    with pytest.raises(BadRequest):
        BYTES.compile(schema(lenient))
