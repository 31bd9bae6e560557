"""What the text must be, as a mask over the next token: JSON schemas, regular expressions, choices, Lark grammars.

llguidance does the work: an Earley parser over a lexer of lazily built automata, so that no pattern runs away
exponentially. Size has to be bounded all the same, here and by its own limits. Knows no request and no graph.
"""

import json
import re
from collections.abc import Callable, Collection, Mapping
from itertools import takewhile
from typing import Any, Final

import numpy as np
from llguidance import LLMatcher, LLParserLimits, LLTokenizer, TokenizerWrapper
from numpy.typing import NDArray

from deployments.errors import BadRequest
from deployments.messages import Grammar
from deployments.text.vocabulary import Vocabulary

MAX_BYTES: Final = 64 << 10  # of a grammar as it is sent
_MAX_NODES: Final = 1000  # objects and arrays of a schema; as many properties take 0.1 s
_MAX_DEPTH: Final = 32  # of a schema
_MAX_CHOICES: Final = 1000
_MAX_REPEATED: Final = 10_000  # places of a pattern once its counted repetitions are written out
_MAX_REASON: Final = 200  # characters
_PARAM: Final = {
    "json_schema": "response_format",
    "json_object": "response_format",
    "regex": "regex",
    "choice": "choice",
    "lark": "grammar",
}
# Where only one text can follow, the model may still choose how to cut it into tokens: by its own habits.
_HEADER: Final = '%llguidance {"no_forcing": true}\n'
# Else a model that likes white space may write nothing else to the end.
_JSON: Final = {"whitespace_pattern": r"[ \t]{1,2}|\r?\n[ \t]{0,40}", "lenient": False}


class Grammars:
    """Compiles grammars for one model. May be used from any thread.

    Compiled grammars are not kept for the next request: what shares one shares its lexer, and one text that makes it
    outgrow its limit would end all others (measured: the third of twelve texts of `.*a.{18}` failed at its first token).
    """

    def __init__(self, vocabulary: Vocabulary, eos: Collection[int]) -> None:
        """`eos`: the tokens that end a text. Without any a text ends when its grammar has nothing more to say.

        Takes 0.15 s per 50,000 tokens, in which no other thread runs Python.
        """
        self._vocabulary = vocabulary
        tokens = _Tokens(vocabulary, sorted(eos))
        self._tokenizer = LLTokenizer(
            TokenizerWrapper(tokens), n_vocab=len(tokens.tokens), eos_token=sorted(eos) or tokens.eos_token_id
        )

    def compile(self, grammar: Grammar) -> "CompiledGrammar":
        """For one request. Raises BadRequest. Takes 2 ms, for a large schema 100."""
        try:
            source = _SOURCES[grammar.kind](_bounded(grammar.source))
        except _Refused as error:
            raise BadRequest(f"The grammar cannot be used: {error}.", param=_PARAM[grammar.kind]) from error
        lark = LLMatcher.grammar_from_lark(_HEADER + source)
        compiled = CompiledGrammar(
            LLMatcher(self._tokenizer, lark, log_level=0, limits=_limits()), self._vocabulary.size
        )
        reason = compiled.fault()
        if reason is not None:
            raise BadRequest(f"The grammar cannot be used: {reason}.", param=_PARAM[grammar.kind])
        return compiled


def _limits() -> LLParserLimits:
    """A fifth and less of the library's: with those a hostile pattern takes seconds of one step, with these 0.2 s."""
    return LLParserLimits(
        initial_lexer_fuel=200_000,
        step_lexer_fuel=50_000,
        max_lexer_states=10_000,
        max_grammar_size=50_000,
        step_max_items=20_000,
        max_items_in_row=1000,
        verbose_errors=False,
    )


class _Tokens:
    """The vocabulary as llguidance wants it. Special tokens are no text; a model without an end gets one of its own."""

    def __init__(self, vocabulary: Vocabulary, eos: list[int]) -> None:
        special = vocabulary.special | set(eos)
        self.tokens = [
            b"\xff" + piece if token in special else piece for token, piece in enumerate(vocabulary.pieces)
        ]
        if not eos:
            self.tokens.append(b"\xff<end>")
        self.eos_token_id = eos[0] if eos else vocabulary.size
        self.bos_token_id = None
        self.special_token_ids = sorted(special | {self.eos_token_id})

    def __call__(self, _: bytes | str) -> list[int]:
        """How the tokenizer would cut a text. Never asked: any tokens that spell an allowed text are allowed."""
        return []


class CompiledGrammar:
    """One grammar for all the texts of one request, which share what its lexer learns."""

    def __init__(self, matcher: LLMatcher, vocabulary: int) -> None:
        self._first = matcher
        self._vocabulary = vocabulary

    def fault(self) -> str | None:
        """Why nothing can be written with it, if so. Takes a first step, which finds most grammars that are too large."""
        words = np.zeros(words_of(self._vocabulary), np.int32)
        matcher = self.matcher()
        return None if matcher.fill(words) else matcher.error or "no text fits it"

    def matcher(self) -> "Matcher":
        """A new text's."""
        return Matcher(self._first.deep_copy(), self._vocabulary)


class Matcher:
    """One text on its way through a grammar. An error ends this text alone."""

    def __init__(self, matcher: LLMatcher, vocabulary: int) -> None:
        self._matcher = matcher
        self._vocabulary = vocabulary

    @property
    def done(self) -> bool:
        """Whether the text is complete and nothing can follow but its end."""
        return self._matcher.is_stopped() and not self._matcher.is_error()

    @property
    def complete(self) -> bool:
        """Whether the text may end here, though it may go on."""
        return not self._matcher.is_error() and self._matcher.is_accepting()

    @property
    def error(self) -> str:
        """What went wrong in it, if something did: a step too large, or a token that was not allowed."""
        return _short(self._matcher.get_error())

    def fill(self, words: NDArray[np.int32]) -> bool:
        """Write which tokens may come next: bit j of word i for token 32i + j. False: none, or it failed.

        `words` int32 [words_of(vocabulary)]. Where the text is done only the tokens that end it are allowed.
        """
        mask = np.frombuffer(self._matcher.compute_bitmask(), np.int32)
        if self._matcher.is_error():
            return False
        words[:] = mask[: len(words)]
        if (
            self._vocabulary % 32
        ):  # places behind the last token, of which one may be the end that the model lacks
            words.view(np.uint32)[-1] &= (1 << self._vocabulary % 32) - 1
        return bool(words.any())

    def advance(self, token: int) -> bool:
        """Take the next token. False if the grammar does not allow it, or fails: the text cannot go on."""
        return self._matcher.consume_token(token)


def words_of(vocabulary: int) -> int:
    """Words of a mask."""
    return -(-vocabulary // 32)


# -- sources ------------------------------------------------------------------------------------------------------------


class _Refused(Exception):
    """A grammar is not accepted; the message says why."""


def _schema(source: str) -> str:
    try:
        schema = json.loads(source)
    except (ValueError, RecursionError):
        raise _Refused("it is no JSON") from None
    _check_schema(schema)
    if not isinstance(schema, dict):
        schema = {"allOf": [schema]}
    return f"start: %json {json.dumps({**schema, 'x-guidance': _JSON})}"


def _object(_: str) -> str:
    return _schema('{"type": "object"}')


def _regex(source: str) -> str:
    _check_repeats(source)
    wrapped = json.loads(LLMatcher.grammar_from_regex(source))  # written as Lark, its slashes escaped
    return str(wrapped["grammars"][0]["lark_grammar"])


def _choice(source: str) -> str:
    try:
        choices = json.loads(source)
    except (ValueError, RecursionError):
        raise _Refused("it is no JSON") from None
    if not isinstance(choices, list) or not choices or not all(isinstance(choice, str) for choice in choices):
        raise _Refused("it is no list of strings")
    if len(choices) > _MAX_CHOICES:
        raise _Refused(f"it has more than {_MAX_CHOICES} choices")
    letters = ("".join(f"\\x{{{ord(letter):X}}}" for letter in choice) for choice in choices)
    return f"start: /{'|'.join(letters)}/"


def _lark(source: str) -> str:
    if re.search(r"^\s*%llguidance", source, re.MULTILINE):
        raise _Refused("its options are the server's to set")
    _check_repeats(source)
    return source


_SOURCES: Final[Mapping[str, Callable[[str], str]]] = {
    "json_schema": _schema,
    "json_object": _object,
    "regex": _regex,
    "choice": _choice,
    "lark": _lark,
}


def _bounded(source: str) -> str:
    if len(source.encode("utf-8", "surrogatepass")) > MAX_BYTES:
        raise _Refused(f"it has more than {MAX_BYTES} bytes")
    if any("\ud800" <= letter <= "\udfff" for letter in source):
        raise _Refused("it has half a surrogate pair")
    return source


def _check_schema(schema: Any) -> None:
    """Bounds on what llguidance would go through recursively, and on the patterns in it."""
    waiting, nodes = [(schema, 1)], 0
    while waiting:
        value, depth = waiting.pop()
        if not isinstance(value, (dict, list)):
            continue
        nodes += 1
        if depth > _MAX_DEPTH or nodes > _MAX_NODES:
            raise _Refused(f"it is nested deeper than {_MAX_DEPTH} or has more than {_MAX_NODES} parts")
        if isinstance(value, dict):
            _check_patterns(value)
        waiting.extend((part, depth + 1) for part in (value.values() if isinstance(value, dict) else value))


def _check_patterns(schema: Mapping[str, Any]) -> None:
    properties = schema.get("patternProperties")
    for pattern in (schema.get("pattern"), *(properties if isinstance(properties, dict) else ())):
        if isinstance(pattern, str):
            _check_repeats(pattern)


_ATOMS: Final = re.compile(
    r"""
      \\[a-zA-Z]\{[^}]*\} | \\. | \[\^?\]?(?:\\.|[^\]\\])*\]  # one place: \x{41}, \d, [a-z]
    | (?P<open>\() | (?P<close>\)) | \{(?P<least>\d+)(?:,(?P<most>\d*))?\}
    | .
    """,
    re.VERBOSE | re.DOTALL,
)


def _check_repeats(pattern: str) -> None:
    """Refuse a pattern whose counted repetitions, one in another, write out to too much: `(x{1000}){1000}`."""
    outer, held, size, last, written = list[int](), 0, 0, 0, 0  # `held`: the sum of `outer`
    for atom in _ATOMS.finditer(pattern):
        if atom["open"]:
            outer.append(size)
            held += size
            size = last = 0
        elif atom["close"]:
            last = size
            before = outer.pop() if outer else 0
            held -= before
            size += before
        elif atom["least"]:
            count = max(1, *(int(number[:6]) for number in (atom["least"], atom["most"]) if number))
            size += last * (count - 1)
            last *= count
        else:
            last = 1
            size += 1
            written += 1
        if held + size - written > _MAX_REPEATED:
            raise _Refused("its repetitions are too many")


# Where the library found a fault: in our own lines around the client's.
_PLACE: Final = re.compile(r"^(?:at )?\d+\(\d+\): ")
_QUOTED: Final = re.compile(r"^\d+ \|")


def _short(reason: str) -> str:
    """The library's reason in one short line, without the lines of the grammar that it quotes."""
    kind = reason.partition("\n")[0]
    if kind.startswith("NoExtension"):
        return "no text fits it"
    lines = (line.strip() for line in reason.replace("<non-verbose/>", "").splitlines())
    told = " ".join(line for line in takewhile(lambda line: not _QUOTED.match(line), lines) if line)
    return _PLACE.sub("", told)[:_MAX_REASON]
