"""What the words of a request are to a model: conditions. Knows no latent and no step."""

from collections.abc import Mapping, Sequence

import numpy as np
from tokenizers import Tokenizer

from deployments.errors import BadRequest
from deployments.image.painting import GRAPHS, Condition
from model_store.imaging import Prompt
from model_store.manifest import Manifest
from model_store.session import Array


class Wording:
    """One model's way from a prompt to the inputs of its graphs: token ids, the place of a class, or nothing."""

    def __init__(self, manifest: Manifest, tokenizers: Mapping[str, bytes]) -> None:
        """`tokenizers`: the `tokenizer.json` of each prompt of the manifest, by its path."""
        image = manifest.image
        if image is None or image.denoise is None:
            raise ValueError(f"{manifest.name} does not make pictures in steps")
        self._classes = {name.casefold(): place for place, name in enumerate(image.classes)}
        self._names = image.classes
        self._without = (
            image.denoise.most_guidance > 1
        )  # whether the model knows what no class in particular is
        # Of the tokenizer that reads least.
        self.limits: dict[str, object] = (
            {"prompt_tokens": min(part.length for part in image.prompt)} if image.prompt else {}
        )
        self._readers = [(part, _opened(tokenizers[part.tokenizer])) for part in image.prompt]
        self._taken = {
            each.role for name, graph in manifest.graphs.items() if name in GRAPHS for each in graph.inputs
        }

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
            tokens = [_read(part, tokenizer, prompt, param) for part, tokenizer in self._readers]
            return Condition(feeds | {role: ids for each, _ in tokens for role, ids in each.items()}), max(
                count for _, count in tokens
            )
        if self._names:
            return Condition(feeds | {"label": np.asarray(self._class(prompt, param))}), 0
        if prompt.strip():
            raise BadRequest("This model draws unconditionally: leave the prompt empty.", param=param)
        return Condition(feeds), 0

    def _class(self, prompt: str, param: str) -> int:
        name = prompt.strip().casefold()
        if not name and self._without:
            return len(self._names)
        place = self._classes.get(name)
        if place is None:
            known = ", ".join(self._names)
            raise BadRequest(f"The prompt must name a class: {known}.", code="unknown_class", param=param)
        return place


def _opened(file: bytes) -> Tokenizer:
    tokenizer = Tokenizer.from_str(file.decode())
    tokenizer.no_padding()
    tokenizer.no_truncation()
    tokenizer.encode_special_tokens = True  # what looks like markup in a prompt is text
    return tokenizer


def _read(part: Prompt, tokenizer: Tokenizer, text: str, param: str) -> tuple[dict[str, Array], int]:
    """Inputs by role, and how many tokens the text has."""
    if "\0" in text:
        raise BadRequest("The text has a NUL character in it.", param=param)
    try:
        ids: Sequence[int] = tokenizer.encode(text).ids
    except TypeError as error:
        raise BadRequest("The text has half a surrogate pair in it.", param=param) from error
    if len(ids) > part.length:
        raise BadRequest(
            f"The text has {len(ids)} tokens, the model reads {part.length}.",
            code="prompt_too_long",
            param=param,
        )
    padded = np.full(part.length, part.pad, np.int64)
    padded[: len(ids)] = ids
    feeds: dict[str, Array] = {part.role: padded}
    if part.count:
        feeds[part.count] = np.asarray(len(ids), np.int32)
    return feeds, len(ids)
