"""What the words of a request are to a model: conditions. Knows no latent and no step."""

from collections.abc import Mapping

import numpy as np

from deployments.errors import BadRequest
from deployments.image.choices import Classes
from deployments.image.painting import Condition, roles_taken
from model_store.manifest import Manifest
from model_store.prompting import PromptReader, PromptTooLong
from model_store.session import Array


class Wording:
    """One model's way from a prompt to the inputs of its graphs: token ids, the place of a class, or nothing."""

    def __init__(self, manifest: Manifest, tokenizers: Mapping[str, bytes]) -> None:
        """`tokenizers`: the `tokenizer.json` of each prompt of the manifest, by its path."""
        image = manifest.image
        if image is None or image.denoise is None:
            raise ValueError(f"{manifest.name} does not make pictures in steps")
        self._names, self._classes = image.classes, Classes(image.classes)
        # Whether the model knows what no class in particular is.
        self._without = image.denoise.most_guidance > 1
        # Of the tokenizer that reads least.
        self.limits: dict[str, object] = (
            {"prompt_tokens": min(part.length for part in image.prompt)} if image.prompt else {}
        )
        self._readers = [PromptReader(part, tokenizers[part.tokenizer]) for part in image.prompt]
        self._taken = roles_taken(manifest)

    def condition(
        self, prompt: str, param: str, size: tuple[int, int], guidance: float
    ) -> tuple[Condition, int]:
        """A prompt as the model takes it, for a picture of that width and height, and how many tokens it has.

        An empty one asks for nothing in particular. Raises BadRequest, which names `param`.
        """
        feeds: dict[str, Array] = {
            "size": np.array(size[::-1], np.float32),
            "guidance": np.asarray(guidance, np.float32),
        }
        feeds = {role: value for role, value in feeds.items() if role in self._taken}
        if self._readers:
            tokens = [_read(reader, prompt, param) for reader in self._readers]
            return Condition(feeds | {role: ids for each, _ in tokens for role, ids in each.items()}), max(
                count for _, count in tokens
            )
        if self._names:
            return Condition(feeds | {"label": np.asarray(self._class(prompt, param))}), 0
        if prompt.strip():
            raise BadRequest("This model draws unconditionally: leave the prompt empty.", param=param)
        return Condition(feeds), 0

    def _class(self, prompt: str, param: str) -> int:
        if self._without and not prompt.strip():
            return len(self._names)
        return self._classes.place(prompt, param)


def _read(reader: PromptReader, text: str, param: str) -> tuple[dict[str, Array], int]:
    """Inputs by role, and how many tokens the text has."""
    part = reader.part
    if "\0" in text:
        raise BadRequest("The text has a NUL character in it.", param=param)
    try:
        ids = reader.ids(text)
    except TypeError as error:
        raise BadRequest("The text has half a surrogate pair in it.", param=param) from error
    except PromptTooLong as error:
        message = f"The text has {error.count} tokens, the model reads {part.length}."
        raise BadRequest(message, code="prompt_too_long", param=param) from error
    feeds: dict[str, Array] = {part.role: np.array(reader.padded(ids), np.int64)}
    if part.count:
        feeds[part.count] = np.asarray(len(ids), np.int32)
    return feeds, len(ids)
