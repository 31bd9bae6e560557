"""Token ids to text and back, over any Hugging Face `tokenizer.json`. Knows no model and no sequence.

Text goes in through `tokenizers`, exactly as in training. It comes out through a table of each token's bytes, so that
a growing text is decoded once and not anew at every token.
"""

import codecs
import json
import threading
from collections.abc import Iterable, Sequence
from functools import cached_property
from typing import Any, Final

from tokenizers import Tokenizer

from deployments.errors import BadRequest
from deployments.text.pieces import Pieces
from model_store.errors import InvalidManifest

# A text of a tokenizer that drops text (white space, words it does not know) may hold this many times as many bytes
# as tokens of the longest kind would: what is longer is refused unread, however little of it would have been left.
_DROPPED: Final = 8
# NFC makes at most this many bytes of one (Hangul: three letters of three bytes become one of three).
_COMPOSED: Final = 3
# No tokenizer has a word for a place in Unicode's last private plane.
_UNKNOWN: Final = "\U0010fffd"


class Vocabulary:
    """One model's tokenizer. May be used from any thread."""

    def __init__(self, file: bytes, size: int) -> None:
        """`file` is `tokenizer.json`, `size` the model's own. Raises InvalidManifest where it cannot be used."""
        self._tokenizer = _open(file)
        self._lock = threading.Lock()
        self.size = size
        added = self._tokenizer.get_added_tokens_decoder()
        special = {token: str(entry.content) for token, entry in added.items() if entry.special}
        self.special = frozenset(special)  # token ids
        self.markup = frozenset(special.values())  # what they look like in a chat template
        self._table = _Table(self._tokenizer, size, self.special)
        unknown = self._unknown() & self.special
        self.control = self.special - unknown  # those that no plain text ever makes
        # Some models find a special token in plain text by themselves, as one of their words: it is spelled out.
        self._spelled = {token: self._spell(special[token], tuple(unknown)) for token in self.control}
        self._density = self._bytes_of_a_token(swallows=any(a.lstrip or a.rstrip for a in added.values()))

    def encode(self, text: str, param: str = "prompt", *, special: bool = False) -> tuple[int, ...]:
        """Token ids of a text, without what a prompt of the model begins or ends with.

        Markup of special tokens in it is text like any other, unless `special` says that the text is to be trusted.
        Raises BadRequest, which names `param`, for half a surrogate pair and for NUL, which no text has.
        """
        if "\0" in text:
            raise BadRequest("The text has a NUL character in it.", param=param)
        # One tokenizer knows one way at a time; a second one would cost 90 MB at 128,000 tokens.
        with self._lock:
            self._tokenizer.encode_special_tokens = not special
            try:
                tokens = tuple(self._tokenizer.encode(text, add_special_tokens=False).ids)
            except TypeError as error:
                raise BadRequest("The text has half a surrogate pair in it.", param=param) from error
        if special or self.control.isdisjoint(tokens):
            return tokens
        return tuple(letter for token in tokens for letter in self._spelled.get(token, (token,)))

    def check(self, tokens: Iterable[int], param: str) -> None:
        """Raise BadRequest for token ids that the model does not have."""
        if not all(0 <= token < self.size for token in tokens):
            raise BadRequest(f"Token ids must be below {self.size}.", param=param)

    def least_tokens(self, text: str) -> int:
        """A number of tokens that the text certainly makes, found without encoding it. Microseconds for a megabyte."""
        return -(-len(text.encode("utf-8", "surrogatepass")) // self._density)

    def decode(self, tokens: Sequence[int], *, special: bool = False) -> str:
        """Text of token ids, bytes that are no UTF-8 replaced; special tokens are silent unless asked for."""
        stream = self.stream(fresh=True, special=special)
        return stream.feed_all(tokens) + stream.flush()

    def token_bytes(self, token: int) -> bytes:
        """Bytes of one token as it stands inside a text; a special token's markup."""
        return self._table.inside[token]

    @property
    def pieces(self) -> Sequence[bytes]:
        """`token_bytes` of every token."""
        return self._table.inside

    def stream(self, *, fresh: bool = False, special: bool = False) -> "Detokenizer":
        """A decoder for one growing sequence.

        `fresh`: it is a text of its own (a translation, an answer in a conversation) and not the continuation of a
        prompt, so the space that some tokenizers put before a text's first word is taken away.
        """
        return Detokenizer(self._table, fresh=fresh, special=special)

    def _unknown(self) -> set[int]:
        """The token that stands for what the model has no word for, if it ever needs it."""
        model: Any = self._tokenizer.model
        if self._table.complete:
            return set()
        if hasattr(model, "unk_token"):
            found = model.token_to_id(model.unk_token) if model.unk_token else None
            return set() if found is None else {found}
        return {token.id for token in model.tokenize(_UNKNOWN)}

    def _spell(self, word: str, unknown: tuple[int, ...]) -> tuple[int, ...]:
        """Tokens of a word's letters, one by one."""
        letters = [self._tokenizer.token_to_id(letter) for letter in word]
        return tuple(token for found in letters for token in (unknown if found is None else (found,)))

    def _bytes_of_a_token(self, *, swallows: bool) -> int:
        """Most bytes of text that one token can stand for."""
        longest = max(1, max(map(len, self._table.inside), default=1))
        parts = (self._tokenizer.normalizer, self._tokenizer.pre_tokenizer)
        steps = [step for part in parts for step in _steps(_state(part))]
        kinds = {step["type"] for step in steps}
        if swallows or any(map(_drops, steps)) or kinds - _KEEPERS or not self._table.complete:
            return longest * _DROPPED
        return longest * (_COMPOSED if "NFC" in kinds else 1)


class _Table:
    """Bytes of every token: `inside` a text, and as the first of a fresh one."""

    def __init__(self, tokenizer: Tokenizer, size: int, special: frozenset[int]) -> None:
        self.pieces = Pieces(_state(tokenizer.decoder))
        self.special = special
        self._tokenizer = tokenizer
        self.inside = [self._bytes(token, first=False) for token in range(size)]

    def first(self, token: int) -> bytes:
        return self._bytes(token, first=True)

    @cached_property
    def complete(self) -> bool:
        """Whether any bytes can be written in this vocabulary, so that none are dropped for want of a token."""
        return {piece[0] for piece in self.inside if len(piece) == 1} == set(range(256))

    def _bytes(self, token: int, *, first: bool) -> bytes:
        word = self._tokenizer.id_to_token(token)
        return b"" if word is None else self.pieces.bytes_of(word, first=first)


class Detokenizer:
    """Turns tokens into text one at a time, holding back characters whose bytes are not complete.

    Not `tokenizers.decoders.DecodeStream`: it holds back all that follows a broken byte, and decodes it anew at every
    token (4,000 broken bytes: 4 s).
    """

    def __init__(self, table: _Table, *, fresh: bool, special: bool) -> None:
        self._table = table
        self._silent = frozenset[int]() if special else table.special
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._first = fresh
        self._strip = table.pieces.strip if fresh else 0

    def feed(self, token: int) -> str:
        """Text completed by this token, maybe none."""
        if token in self._silent:
            return ""
        if self._first or self._strip:
            return self._decoder.decode(self._opening(token))
        return self._decoder.decode(self._table.inside[token])

    def feed_all(self, tokens: Sequence[int]) -> str:
        """Text completed by these tokens."""
        return "".join([self.feed(token) for token in tokens])

    def flush(self) -> str:
        """What a character cut off by the end leaves behind: a replacement character."""
        return self._decoder.decode(b"", final=True)

    def _opening(self, token: int) -> bytes:
        piece = self._table.first(token) if self._first else self._table.inside[token]
        self._first = False
        kept = piece.lstrip(b" ")
        spaces = min(self._strip, len(piece) - len(kept))
        self._strip = self._strip - spaces if not kept else 0
        return piece[spaces:]


# Steps that leave every byte of a text in some token.
_KEEPERS: Final = frozenset(
    {"Sequence", "NFC", "Prepend", "Replace", "ByteLevel", "Metaspace", "Split", "Digits", "Punctuation"}
)


def _open(file: bytes) -> Tokenizer:
    try:
        tokenizer = Tokenizer.from_buffer(file)
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:  # a broken file can make the library panic, which is no Exception
        raise InvalidManifest("the tokenizer cannot be read") from error
    # Some come with the lengths of their training: what is too long is refused here, not cut.
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


def _state(part: Any) -> dict[str, Any] | None:
    """A part of the tokenizer as it stands in `tokenizer.json`."""
    if part is None:
        return None
    state: dict[str, Any] = json.loads(part.__getstate__())
    return state


def _steps(part: dict[str, Any] | None) -> Sequence[dict[str, Any]]:
    if part is None:
        return ()
    inner = part.get("normalizers") or part.get("pretokenizers")
    return [step for one in inner for step in _steps(one)] if inner else [part]


def _drops(step: dict[str, Any]) -> bool:
    """Whether a step may leave out text or write it shorter."""
    if step["type"] == "Replace":
        old = step["pattern"].get("String")
        return old is None or len(step["content"]) < len(old)
    return step.get("behavior") == "Removed"
