"""Whatever the pieces, the same is told, and nothing of a marker that became a call."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st

from service.openai.tools import NOTATIONS, Said, ToolCall, ToolParser

NAMES = frozenset({"find", "sum"})


def read(form: str, pieces: list[str], *, parallel: bool = True) -> tuple[list[Said], Said]:
    """What is told after each piece and at the end; and all of it."""
    parser = ToolParser(NOTATIONS[form], NAMES, parallel=parallel)
    told = [*map(parser.feed, pieces), parser.finish()]
    return told, Said("".join(one.text for one in told), tuple(call for one in told for call in one.calls))


def call(name: str, arguments: Any = None, key: str = "arguments") -> str:
    return json.dumps({"name": name, key: arguments or {}})


def hermes(*bodies: str) -> str:
    return "\n".join(f"<tool_call>\n{body}\n</tool_call>" for body in bodies)


FIND = ToolCall("find", '{"a": 1}')
SUM = ToolCall("sum", "{}")
ONE = call("find", {"a": 1})
TWO = call("sum")
TRICKY = call("find", {"a": '</tool_call> "quoted" \\'})


@pytest.mark.parametrize(
    ("form", "text", "said"),
    [
        ("hermes", "hello", Said("hello")),
        ("hermes", " hello \n", Said(" hello \n")),
        ("hermes", hermes(ONE), Said("", (FIND,))),
        ("hermes", f"Let me see.\n\n{hermes(ONE, TWO)}\n", Said("Let me see.", (FIND, SUM))),
        ("hermes", f"{hermes(ONE)}\nDone.", Said("\nDone.", (FIND,))),
        ("hermes", f"<tool_call>{ONE}", Said("", (FIND,))),  # the end of the text ends it as well
        ("hermes", f"a <tool_call>{ONE[:-1]}", Said(f"a <tool_call>{ONE[:-1]}")),
        ("hermes", "a < b <tool", Said("a < b <tool")),
        ("hermes", hermes("{}"), Said(hermes("{}"))),
        ("hermes", f"x\n{hermes('{a}')}\n{hermes(ONE)}", Said(f"x\n{hermes('{a}')}", (FIND,))),
        ("hermes", hermes(call("unheard_of")), Said(hermes(call("unheard_of")))),
        (
            "hermes",
            hermes('{"name": "sum", "arguments": 3}'),
            Said(hermes('{"name": "sum", "arguments": 3}')),
        ),
        ("hermes", hermes('{"name": "sum", "arguments": {"a": NaN}}'), None),
        ("hermes", hermes("[" * 100_000), None),
        ("hermes", hermes(f"{ONE} and"), None),
        ("hermes", hermes('{"name": ["sum"]}'), None),
        (
            "hermes",
            hermes(TRICKY),
            Said("", (ToolCall("find", json.dumps(json.loads(TRICKY)["arguments"])),)),
        ),
        ("hermes", hermes('{"name": "sum"}'), Said("", (SUM,))),
        ("hermes", ONE, Said(ONE)),
        ("llama3", "hello {", Said("hello {")),
        ("llama3", call("find", {"a": 1}, "parameters"), Said("", (FIND,))),
        ("llama3", f"\n{ONE}; {TWO}", Said("", (FIND, SUM))),
        ("llama3", f"<|python_tag|>{ONE}", Said("", (FIND,))),
        ("llama3", f"Look: {ONE}", Said(f"Look: {ONE}")),
        ("llama3", '{"answer": 42}', Said('{"answer": 42}')),
        ("llama3", '\n{"name": "fi', Said('\n{"name": "fi')),
        ("llama3", f"{ONE} That is it.", Said(" That is it.", (FIND,))),
        ("mistral", "hello [", Said("hello [")),
        ("mistral", f"[TOOL_CALLS][{ONE}, {TWO}]", Said("", (FIND, SUM))),
        ("mistral", f"So: [TOOL_CALLS] [{ONE}]", Said("So:", (FIND,))),
        ("mistral", f"[{ONE}]", Said("", (FIND,))),
        ("mistral", f"[{ONE}] So.", Said(" So.", (FIND,))),
        ("mistral", "[1, 2]", Said("[1, 2]")),
        ("mistral", f"[{ONE}, 3]", Said(f"[{ONE}, 3]")),
        ("mistral", f"I said [{ONE}]", Said(f"I said [{ONE}]")),
        ("mistral", "[TOOL_", Said("[TOOL_")),
        ("mistral", "", Said()),
    ],
)
def test_what_a_text_says(form: str, text: str, said: Said | None) -> None:
    said = said or Said(text)
    assert read(form, [text])[1] == said
    if len(text) < 1000:
        assert read(form, list(text))[1] == said


def test_one_call_where_several_are_not_wanted() -> None:
    for form, text in (
        ("hermes", hermes(ONE, TWO)),
        ("llama3", f"{ONE};{TWO}"),
        ("mistral", f"[TOOL_CALLS][{ONE},{TWO}]"),
    ):
        assert read(form, list(text), parallel=False)[1] == Said("", (FIND,))


def test_half_a_surrogate_pair_stays_an_escape() -> None:
    (found,) = read("hermes", [hermes('{"name": "sum", "arguments": {"a": "\\ud800", "b": "\u00e9\\n"}}')])[
        1
    ].calls
    assert found.arguments.encode()
    assert json.loads(found.arguments) == {"a": "\ud800", "b": "\u00e9\n"}


def test_a_call_is_told_as_soon_as_it_is_complete() -> None:
    told, _ = read("hermes", ["Wait", ".\n", hermes(ONE), "\n", hermes(TWO)])
    assert told[:2] == [Said("Wait"), Said(".")]
    assert [one.calls for one in told[2:]] == [(FIND,), (), (SUM,), ()]


MARKS = ["<tool_call>", "</tool_call>", "[TOOL_CALLS]", "<|python_tag|>", "tool_call>", "</tool"]
CALLS = [ONE, TWO, TRICKY, hermes(ONE), hermes(TWO), f"[{ONE}]"]
PARTS = st.sampled_from(["a", " ", "\n", "<", "[", "]", "{", "}", '"', "\\", ";", ",", *MARKS, *CALLS])


@examples(deadline=None, max_examples=400)
@given(
    st.sampled_from(sorted(NOTATIONS)), st.lists(PARTS, max_size=12).map("".join), st.data(), st.booleans()
)
def test_pieces_do_not_matter_and_no_marker_leaks(form: str, text: str, data: Any, parallel: bool) -> None:
    whole = read(form, [text], parallel=parallel)[1]
    cuts = sorted(data.draw(st.sets(st.integers(0, len(text)), max_size=20)))
    pieces = [text[a:b] for a, b in zip([0, *cuts], [*cuts, len(text)], strict=True)]
    told, joined = read(form, pieces, parallel=parallel)
    assert joined == whole
    assert _subsequence(joined.text, text)
    if not joined.calls:
        assert joined.text == text
    # Nothing is told that a longer text takes back: any beginning of the pieces tells a beginning of the whole.
    so_far = ""
    for one in told[:-1]:
        so_far += one.text
        assert whole.text.startswith(so_far)


def _subsequence(part: str, whole: str) -> bool:
    letters = iter(whole)
    return all(letter in letters for letter in part)
