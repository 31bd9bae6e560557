"""A conversation written out as a prompt by the package's Jinja template, and that as token ids. Knows no model.

Nothing that a client sends becomes a special token. Each prompt is written a second time with the letters that special
tokens are made of replaced in everything the client sent: the special tokens of that one are the template's own. Where
the first prompt makes the same, it is encoded as a whole, as in training; otherwise the second is cut at its special
tokens, the client's letters are put back, and what lies between is encoded as plain text.
"""

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from jinja2 import TemplateError, UndefinedError, nodes
from jinja2.exceptions import SecurityError
from jinja2.meta import find_undeclared_variables

from deployments.errors import BadRequest
from deployments.messages import Chat
from deployments.text.meter import TooMuch, held_by
from deployments.text.sandbox import Sandbox
from deployments.text.vocabulary import Vocabulary
from model_store.errors import InvalidManifest

MAX_BYTES: Final = 256 << 10  # of a template; those of public models have up to 20 kB
_MAX_REASON: Final = 300  # characters of what a template says when it refuses
_OWN: Final = frozenset({"messages", "tools", "add_generation_prompt", "bos_token", "eos_token"})
# What a template may run into with messages of a form it does not expect.
_UNEXPECTED: Final = (
    TemplateError,
    TypeError,
    ValueError,
    LookupError,
    AttributeError,
    ArithmeticError,
    RecursionError,
)
_BROKEN: Final = (*_UNEXPECTED, SyntaxError, MemoryError)


@dataclass(frozen=True, slots=True)
class Written:
    """A conversation as its template wrote it. `parts` in turn are plain text and special tokens, beginning with text."""

    text: str
    parts: tuple[str, ...]


class Template:
    """One package's chat template. May be used from any thread."""

    def __init__(
        self,
        source: bytes,
        vocabulary: Vocabulary,
        *,
        bos_token: str = "",
        eos_token: str = "",
        now: Callable[[], datetime] = lambda: datetime.now(UTC).astimezone(),
        seconds: float = 0.5,
    ) -> None:
        """`seconds` of processor time, so that a busy machine refuses nothing, may be spent on one prompt.

        Raises InvalidManifest for a template that is none, or needs what no chat template may have.
        """
        self._vocabulary = vocabulary
        self._tokens = {"bos_token": bos_token, "eos_token": eos_token}
        self._sandbox = Sandbox(now, seconds)
        text = _decoded(source)
        try:
            with self._sandbox.metered():
                tree = self._sandbox.parse(text)
                self._template = self._sandbox.from_string(text)
        except _BROKEN as error:
            raise InvalidManifest(f"the chat template cannot be used: {_reason(error)}") from error
        self._variables = find_undeclared_variables(tree) - self._sandbox.globals.keys()
        self._takes_parts = _reads_parts(tree)
        self._source_letters = frozenset(text)
        self._markup = _any_of(vocabulary.markup)
        self._risky = _letters_of(vocabulary.markup)

    @property
    def takes_tools(self) -> bool:
        """Whether the template has a place for tools."""
        return "tools" in self._variables

    def write(self, chat: Chat, *, answer: bool = True) -> Written:
        """The prompt; with `answer` it ends where the model's answer begins. Raises BadRequest."""
        self._check(chat)
        own = {**self._tokens, "add_generation_prompt": answer}
        given = self._given(chat)
        text = self._render({**own, **given})
        letters = _letters(given)
        hidden = _hiding(self._risky & letters, self._source_letters | letters)
        if not hidden:
            return Written(text, self._split(text))
        shown = {ord(stand_in): letter for letter, stand_in in hidden.items()}
        parts = self._split(self._render({**own, **_translated(given, str.maketrans(hidden))}))
        return Written(text, tuple(part.translate(shown) for part in parts))

    def encode(self, written: Written) -> tuple[int, ...]:
        """Token ids of a prompt, which begins as the template has it begin."""
        vocabulary = self._vocabulary
        specials = [vocabulary.encode(part, "messages", special=True) for part in written.parts[1::2]]
        tokens = vocabulary.encode(written.text, "messages", special=True)
        expected = [token for part in specials for token in part if token in vocabulary.control]
        if [token for token in tokens if token in vocabulary.control] == expected:
            return tokens
        plain = [vocabulary.encode(part, "messages") for part in written.parts[::2]]
        pieces = [piece for pair in zip(plain, [*specials, ()], strict=True) for piece in pair]
        return tuple(token for piece in pieces for token in piece)

    def _check(self, chat: Chat) -> None:
        for name in chat.variables:
            if name in _OWN or name not in self._variables:
                reason = (
                    "is the server's own" if name in _OWN else "is none that the model's chat template knows"
                )
                raise BadRequest(f"{name[:64]!r} {reason}.", param="chat_template_kwargs")
        if chat.tools and not self.takes_tools:
            raise BadRequest("The model's chat template has no place for tools.", param="tools")

    def _given(self, chat: Chat) -> dict[str, Any]:
        """What the template sees of the client's making."""
        messages = [self._message(message, place) for place, message in enumerate(chat.messages)]
        return {**chat.variables, "messages": messages, "tools": list(chat.tools) or None}

    def _message(self, message: Mapping[str, Any], place: int) -> dict[str, Any]:
        """A message as templates expect it: text in one piece where they read no parts."""
        content = message.get("content")
        if self._takes_parts or not isinstance(content, (list, tuple)):
            return dict(message)
        texts = [part.get("text") for part in content if isinstance(part, Mapping)]
        if len(texts) < len(content) or not all(isinstance(text, str) for text in texts):
            raise BadRequest("The model reads text only.", param=f"messages[{place}].content")
        return {**message, "content": "".join(map(str, texts))}

    def _render(self, inputs: Mapping[str, Any]) -> str:
        try:
            with self._sandbox.metered():
                return self._template.render(inputs)
        except TooMuch as error:
            raise BadRequest(
                f"The model's chat template cannot write these messages: {error}.", param="messages"
            ) from error
        except _UNEXPECTED as error:
            raise BadRequest(_complaint(error), param="messages") from error

    def _split(self, text: str) -> tuple[str, ...]:
        return tuple(self._markup.split(text)) if self._markup else (text,)


def _decoded(source: bytes) -> str:
    if len(source) > MAX_BYTES:
        raise InvalidManifest(f"the chat template has more than {MAX_BYTES} bytes")
    try:
        return source.decode()
    except UnicodeDecodeError as error:
        raise InvalidManifest("the chat template is not UTF-8") from error


def _reason(error: BaseException) -> str:
    message = getattr(error, "message", None) or type(error).__name__
    return "".join(letter if letter.isprintable() else " " for letter in str(message)[:_MAX_REASON])


def _complaint(error: BaseException) -> str:
    """What the client is told. Only what a template says on purpose, or of what is missing, is passed on."""
    if type(error) is TemplateError or (
        isinstance(error, UndefinedError) and not isinstance(error, SecurityError)
    ):
        return f"The model's chat template refuses these messages: {_reason(error).rstrip('. ')}."
    return (
        "The model's chat template cannot write these messages: something has a form that it does not expect."
    )


def _reads_parts(tree: nodes.Template) -> bool:
    """Whether the template goes through the parts of a message's content."""
    names = {
        assign.target.name
        for assign in tree.find_all(nodes.Assign)
        if isinstance(assign.target, nodes.Name) and _is_content(assign.node, frozenset())
    }
    return any(_is_content(loop.iter, names) for loop in tree.find_all(nodes.For))


def _is_content(node: nodes.Node | None, names: Iterable[str]) -> bool:
    while isinstance(node, nodes.Filter):
        node = node.node
    if isinstance(node, nodes.Getattr):
        return node.attr == "content"
    if isinstance(node, nodes.Getitem):
        key = node.arg.node if isinstance(node.arg, nodes.Filter) else node.arg
        return isinstance(key, nodes.Const) and key.value == "content"
    return isinstance(node, nodes.Name) and node.name in names


# -- special tokens -----------------------------------------------------------------------------------------------------


def _any_of(markup: Iterable[str]) -> re.Pattern[str] | None:
    """Finds special tokens as the tokenizer does: the leftmost, and of those that begin alike the longest."""
    longest_first = sorted(filter(None, markup), key=len, reverse=True)
    return re.compile(f"({'|'.join(map(re.escape, longest_first))})") if longest_first else None


def _letters_of(markup: Iterable[str]) -> frozenset[str]:
    """Letters without which no special token can be written: its marks, or its first letter if it has none."""
    marks = {
        word: {letter for letter in word if not letter.isalnum() and letter not in "_-. "} for word in markup
    }
    return frozenset(letter for word, found in marks.items() for letter in found or set(word[:1]))


def _letters(value: Any) -> frozenset[str]:
    """Every letter of every string in a value, keys included."""
    letters: set[str] = set()
    waiting = [value]
    while waiting:
        value = waiting.pop()
        if isinstance(value, str):
            letters.update(value)
        waiting.extend(held_by(value))
    return frozenset(letters)


def _hiding(letters: frozenset[str], taken: frozenset[str]) -> dict[str, str]:
    """A stand-in for each letter: a private character that occurs nowhere."""
    private = (chr(code) for code in range(0xF0000, 0xFFFFE) if chr(code) not in taken)
    try:
        return {letter: next(private) for letter in sorted(letters)}
    except StopIteration:
        raise BadRequest("The messages hold every private character there is.", param="messages") from None


def _translated(value: Any, table: Mapping[int, str]) -> Any:
    if isinstance(value, str):
        return value.translate(table)
    if isinstance(value, Mapping):
        return {_translated(key, table): _translated(item, table) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_translated(item, table) for item in value]
    return value
