"""How words become the token ids that a package's graph `condition` takes: by the rules of the manifest's `Prompt`."""

from tokenizers import Tokenizer

from model_store.imaging import Prompt


class PromptTooLong(ValueError):
    """The words are `count` tokens, more than the model reads."""

    def __init__(self, count: int, length: int) -> None:
        super().__init__(f"{count} tokens where {length} fit")
        self.count = count


class PromptReader:
    """One tokenizer of a package. May be used from any thread."""

    def __init__(self, part: Prompt, file: bytes) -> None:
        """`file` is the part's `tokenizer.json`."""
        self.part = part
        self._tokenizer = Tokenizer.from_str(file.decode())
        self._tokenizer.no_padding()
        self._tokenizer.no_truncation()
        self._tokenizer.encode_special_tokens = True  # what looks like markup in a prompt is text

    def ids(self, text: str) -> list[int]:
        """Token ids of a text, those that the tokenizer puts around it among them.

        Raises PromptTooLong, and TypeError for half a surrogate pair.
        """
        found: list[int] = self._tokenizer.encode(text).ids
        if len(found) > self.part.length:
            raise PromptTooLong(len(found), self.part.length)
        return found

    def padded(self, ids: list[int]) -> list[int]:
        """As many ids as the graph takes."""
        return ids + [self.part.pad] * (self.part.length - len(ids))
