"""Tokenizers as a pipeline's files have them: what a prompt is to the graphs is what it is to diffusers."""

import json
from pathlib import Path

import pytest
from tokenizers import Tokenizer

from model_store.export.diffusers.directory import read_pipeline
from model_store.export.diffusers.words import Words, read_words
from model_store.export.errors import DraftError
from tests.model_store.export.diffusers.skeletons import skeleton
from tests.model_store.export.diffusers.tiny import clip_files, clip_tokenizer, t5_tokenizer

BEGIN, END = 514, 515


def slow(folder: Path, **config: object) -> None:
    """The files that Stable Diffusion's repositories have."""
    folder.mkdir(parents=True)
    vocabulary, merges = clip_files()
    (folder / "vocab.json").write_text(json.dumps(vocabulary))
    (folder / "merges.txt").write_text("\n".join(["#version: 0.2", *merges]) + "\n")
    fields = {"tokenizer_class": "CLIPTokenizer", "model_max_length": 16, "pad_token": "!", **config}
    (folder / "tokenizer_config.json").write_text(json.dumps(fields))


def words(folder: Path, layout: str) -> Words:
    return read_words(read_pipeline(skeleton(folder, layout)))


def test_slow_files_become_one_that_adds_start_and_end(tmp_path: Path) -> None:
    slow(tmp_path / "tokenizer")

    found = words(tmp_path, "sd")

    [prompt] = found.prompts
    assert (prompt.tokenizer, prompt.length, prompt.role) == ("tokenizer.json", 16, "text")
    vocabulary, _ = clip_files()
    cat = vocabulary["cat</w>"]
    assert prompt.pad == vocabulary["!"]
    assert found.ids("a CAT")["text"] == [BEGIN, vocabulary["a</w>"], cat, END] + [prompt.pad] * 12
    assert found.ids("")["text"][:2] == [BEGIN, END]
    assert Tokenizer.from_str(found.files["tokenizer.json"].decode()).truncation is None


def test_every_tokenizer_reads_the_same_prompt(tmp_path: Path) -> None:
    clip, t5 = clip_tokenizer(), t5_tokenizer()
    clip.save_pretrained(tmp_path / "tokenizer")
    t5.save_pretrained(tmp_path / "tokenizer_2")

    found = words(tmp_path, "flux")

    assert [(each.role, each.length, each.pad) for each in found.prompts] == [
        ("text", 16, END),
        ("text_2", 512, 0),
    ]
    for text in ("a cat", "", "Two   ducks!"):
        ids = found.ids(text)
        assert ids["text"] == clip(text, padding="max_length", max_length=16).input_ids
        assert ids["text_2"] == t5(text, padding="max_length", max_length=512).input_ids


def test_a_prompt_that_is_too_long_is_not_cut(tmp_path: Path) -> None:
    slow(tmp_path / "tokenizer")

    with pytest.raises(ValueError, match="18 tokens where 16 fit"):
        words(tmp_path, "sd").ids("a " * 16)


@pytest.mark.parametrize(
    ("config", "complaint"),
    [
        (None, "there is no tokenizer"),
        (
            {"model_max_length": 10**30},
            "tokenizer says neither how long prompts are nor what they are padded with",
        ),
    ],
)
def test_a_tokenizer_that_does_not_say_enough_is_refused(
    tmp_path: Path, config: dict[str, object] | None, complaint: str
) -> None:
    if config is not None:
        slow(tmp_path / "tokenizer", **config)

    with pytest.raises(DraftError, match=complaint):
        words(tmp_path, "sd")


def test_a_tokenizer_that_cannot_be_read_is_refused(tmp_path: Path) -> None:
    slow(tmp_path / "tokenizer")
    (tmp_path / "tokenizer" / "tokenizer.json").write_text("{")

    with pytest.raises(DraftError, match="tokenizer cannot be read"):
        words(tmp_path, "sd")
