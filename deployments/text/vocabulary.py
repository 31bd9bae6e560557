"""Token ids to text and back, over a byte-level Hugging Face `tokenizer.json`. Knows no model and no sequence."""

import codecs
from collections.abc import Sequence

from tokenizers import Tokenizer
from tokenizers.decoders import ByteLevel

from model_store.errors import InvalidManifest


class Vocabulary:
    """One model's tokenizer. May be used from any thread."""

    def __init__(self, file: bytes, size: int) -> None:
        """`file` is `tokenizer.json`. Raises InvalidManifest where its tokens are not made of bytes."""
        self._tokenizer = Tokenizer.from_buffer(file)
        if not isinstance(self._tokenizer.decoder, ByteLevel):
            raise InvalidManifest("the tokenizer is not byte-level")
        # Markup of special tokens in a prompt is text like any other.
        self._tokenizer.encode_special_tokens = True
        self.size = size
        alphabet = _alphabet()
        self._bytes = [_bytes_of(self._tokenizer.id_to_token(token) or "", alphabet) for token in range(size)]

    def encode(self, text: str) -> tuple[int, ...]:
        """Token ids of a text."""
        return tuple(self._tokenizer.encode(text, add_special_tokens=False).ids)

    def decode(self, tokens: Sequence[int]) -> str:
        """Text of token ids, bytes that are no UTF-8 replaced."""
        return b"".join([self._bytes[token] for token in tokens]).decode("utf-8", "replace")

    def text(self, token: int) -> str:
        r"""How a token is shown in a list of log-probabilities: its text, or `bytes:\xe2\x82` for part of a character."""
        raw = self._bytes[token]
        try:
            return raw.decode("utf-8")
        except UnicodeDecodeError:
            return "bytes:" + "".join(f"\\x{byte:02x}" for byte in raw)

    def stream(self) -> "Detokenizer":
        """A decoder for one growing sequence."""
        return Detokenizer(self._bytes)


class Detokenizer:
    """Turns tokens into text one at a time, holding back characters whose bytes are not complete.

    Not `tokenizers.decoders.DecodeStream`: it holds back all that follows a broken byte, and decodes it anew at every
    token (4,000 broken bytes: 4 s).
    """

    def __init__(self, bytes_of: Sequence[bytes]) -> None:
        self._bytes_of = bytes_of
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")

    def feed(self, token: int) -> str:
        """Text completed by this token, maybe none."""
        return self._decoder.decode(self._bytes_of[token])

    def flush(self) -> str:
        """What a character cut off by the end leaves behind: a replacement character."""
        return self._decoder.decode(b"", final=True)


def _bytes_of(token: str, alphabet: dict[str, int]) -> bytes:
    """Bytes of a token as the tokenizer writes it; an added token stands for its own letters."""
    try:
        return bytes([alphabet[letter] for letter in token])
    except KeyError:
        return token.encode()


def _alphabet() -> dict[str, int]:
    """The byte that each letter of a byte-level token stands for (GPT-2's `bytes_to_unicode`, turned around)."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in printable]
    return {chr(byte): byte for byte in printable} | {chr(256 + i): byte for i, byte in enumerate(others)}
