"""A pipeline's tokenizers as the files and the lengths that a server reads prompts with. Opens no model.

transformers reads them, as diffusers' pipelines let it: what it makes of slow files, or of a file it changes, is what is kept.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from tokenizers import Tokenizer
from transformers import CLIPTokenizer, T5Tokenizer

from model_store.export.diffusers.directory import Pipeline, numbered
from model_store.export.diffusers.layouts import T5
from model_store.export.errors import DraftError
from model_store.imaging import Prompt
from model_store.prompting import PromptReader

ROLES: Final = numbered("text")
MOST: Final = 4096
"""A tokenizer that says nothing of its length says 10^30."""


@dataclass(frozen=True)
class Words:
    """The `prompts` of a manifest, and the `files` they name."""

    prompts: tuple[Prompt, ...]
    files: Mapping[str, bytes]

    def ids(self, text: str) -> dict[str, list[int]]:
        """What a text is to the graph `condition`, by role, as a server reads it. Raises PromptTooLong."""
        readers = [PromptReader(each, self.files[each.tokenizer]) for each in self.prompts]
        return {each.part.role: each.padded(each.ids(text)) for each in readers}


def read_words(pipeline: Pipeline) -> Words:
    """Read every tokenizer. Raises DraftError for one that cannot be read."""
    read = [
        _read(pipeline, folder.replace("text_encoder", "tokenizer"), role, kind, length)
        for (folder, kind), role, length in zip(
            pipeline.encoders, ROLES, pipeline.layout.lengths, strict=False
        )
    ]
    return Words(tuple(prompt for prompt, _ in read), {prompt.tokenizer: content for prompt, content in read})


def _read(pipeline: Pipeline, folder: str, role: str, kind: str, length: int | None) -> tuple[Prompt, bytes]:
    if not (pipeline.path / folder).is_dir():
        raise DraftError(f"there is no {folder}")
    reader = T5Tokenizer if kind == T5 else CLIPTokenizer
    try:
        made = reader.from_pretrained(pipeline.path / folder, local_files_only=True)
        tokenizer = Tokenizer.from_str(made.backend_tokenizer.to_str())
    except Exception as error:
        raise DraftError(f"{folder} cannot be read: {' '.join(str(error).split()):.200}") from error
    tokenizer.no_truncation()
    tokenizer.no_padding()
    length = length or int(made.model_max_length)
    if length > MOST or made.pad_token_id is None:
        raise DraftError(f"{folder} says neither how long prompts are nor what they are padded with")
    prompt = Prompt(tokenizer=f"{folder}.json", length=length, pad=made.pad_token_id, role=role)
    return prompt, tokenizer.to_str().encode()
