"""What bytes each token stands for, read from the decoder of a Hugging Face tokenizer. Knows no text.

A decoder is a chain of steps over tokens as the vocabulary writes them (`Ġthe`, `▁the`, `##ing`, `<0xE2>`). Applied to
one token at a time they give its bytes wherever it stands, but for one thing: the first token of a text may lose the
space that the tokenizer puts before every word.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, TypeAlias

from model_store.errors import InvalidManifest

# A token on its way through the steps: letters, or bytes once a step has made it so.
_Written: TypeAlias = str | bytes
_Step: TypeAlias = Callable[[_Written, bool], _Written]  # the token, and whether it is the first of its text

_BYTE: Final = re.compile(r"<0x([0-9A-F]{2})>")
# What the `WordPiece` decoder takes back of the spaces it put before every word, in its order.
_CLEANUP: Final = (
    (" .", "."),
    (" ?", "?"),
    (" !", "!"),
    (" ,", ","),
    (" ' ", "'"),
    (" n't", "n't"),
    (" 'm", "'m"),
    (" do not", " don't"),
    (" 's", "'s"),
    (" 've", "'ve"),
    (" 're", "'re"),
)


class Pieces:
    """`strip`: how many spaces the beginning of a fresh text loses, beside what its first token loses."""

    def __init__(self, decoder: Mapping[str, Any] | None) -> None:
        """`decoder` is that section of `tokenizer.json`. Raises InvalidManifest for one that cannot run token by token."""
        self.strip = 0
        self._steps: list[_Step] = []
        self._fused = False
        for step in _flat(decoder):
            self._add(step)

    def bytes_of(self, token: str, *, first: bool = False) -> bytes:
        """Bytes of a token as written in the vocabulary; `first`: as the first of a fresh text."""
        written: _Written = token
        for step in self._steps:
            written = step(written, first)
        return written if isinstance(written, bytes) else written.encode()

    def _add(self, step: Mapping[str, Any]) -> None:
        kind = step["type"]
        if kind == "Fuse":
            self._fused = True
        elif kind == "Strip" and self._fused:
            # Of the whole text, so it is no business of one token.
            self.strip += _leading(step)
        elif kind in _STEPS:
            self._steps.append(_STEPS[kind](step))
        else:
            raise InvalidManifest(f"the tokenizer's decoder has a step {kind}, which is not supported")


def _flat(decoder: Mapping[str, Any] | None) -> Sequence[Mapping[str, Any]]:
    if decoder is None:
        return [{"type": "Spaces"}]
    if decoder["type"] == "Sequence":
        return [step for part in decoder["decoders"] for step in _flat(part)]
    return [decoder]


def _leading(step: Mapping[str, Any]) -> int:
    if step["content"] != " " or step["stop"] != 0:
        raise InvalidManifest("the tokenizer's decoder strips something else than leading spaces")
    return int(step["start"])


def _letters(change: Callable[[str, bool], str]) -> _Step:
    """A step that leaves alone what is bytes already."""
    return lambda token, first: token if isinstance(token, bytes) else change(token, first)


def _replace(step: Mapping[str, Any]) -> _Step:
    old, new = step["pattern"].get("String"), step["content"]
    if old is None:
        raise InvalidManifest("the tokenizer's decoder replaces a regular expression, which is not supported")
    return _letters(lambda token, _: token.replace(old, new))


def _byte_fallback(_: Mapping[str, Any]) -> _Step:
    def change(token: _Written, _: bool) -> _Written:  # noqa: FBT001
        byte = _BYTE.fullmatch(token) if isinstance(token, str) else None
        return bytes([int(byte[1], 16)]) if byte else token

    return change


def _byte_level(_: Mapping[str, Any]) -> _Step:
    alphabet = byte_alphabet()

    def change(token: _Written, _: bool) -> _Written:  # noqa: FBT001
        try:
            return bytes([alphabet[letter] for letter in token]) if isinstance(token, str) else token
        except KeyError:  # an added token stands for its own letters
            return token

    return change


def _metaspace(step: Mapping[str, Any]) -> _Step:
    mark, prepends = step["replacement"], step.get("prepend_scheme", "always") != "never"
    return _letters(lambda token, first: token.replace(mark, "" if first and prepends else " "))


def _strip_each(step: Mapping[str, Any]) -> _Step:
    count = _leading(step)

    def change(token: str, _: bool) -> str:  # noqa: FBT001
        kept = token.lstrip(" ")
        return token[min(count, len(token) - len(kept)) :]

    return _letters(change)


def _word_piece(step: Mapping[str, Any]) -> _Step:
    prefix, cleanup = step["prefix"], step["cleanup"]

    def change(token: str, first: bool) -> str:  # noqa: FBT001
        if not first:
            token = token.removeprefix(prefix) if token.startswith(prefix) else " " + token
        for old, new in _CLEANUP if cleanup else ():
            token = token.replace(old, new)
        return token

    return _letters(change)


def _spaces(_: Mapping[str, Any]) -> _Step:
    return _letters(lambda token, first: token if first else " " + token)


_STEPS: Final[Mapping[str, Callable[[Mapping[str, Any]], _Step]]] = {
    "Replace": _replace,
    "ByteFallback": _byte_fallback,
    "ByteLevel": _byte_level,
    "Metaspace": _metaspace,
    "Strip": _strip_each,
    "WordPiece": _word_piece,
    "Spaces": _spaces,  # no decoder at all: tokens are words
}


def byte_alphabet() -> dict[str, int]:
    """The byte that each letter of a byte-level token stands for (GPT-2's `bytes_to_unicode`, turned around)."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in printable]
    return {chr(byte): byte for byte in printable} | {chr(256 + i): byte for i, byte in enumerate(others)}
