"""Tokenizer, special tokens and chat template of a directory."""

import json
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer
from tokenizers.processors import TemplateProcessing

from model_store.export.errors import DraftError
from model_store.export.hf.directory import Directory
from model_store.export.hf.text import read_words
from model_store.manifest import Chat
from tests.model_store.export.hf.tiny import save_tokenizer


def directory(folder: Path, **parts: dict[str, Any]) -> Directory:
    save_tokenizer(folder)
    own = json.loads(folder.joinpath("tokenizer_config.json").read_text())
    return Directory(
        folder, parts.get("config", {}), parts.get("generation", {}), own | parts.get("tokenizer_config", {})
    )


def test_everything_is_read(tmp_path: Path) -> None:
    generation = {"bos_token_id": 1, "eos_token_id": [7, 9]}

    words = read_words(directory(tmp_path, config={"eos_token_id": 5}, generation=generation))

    assert words.vocabulary == 258
    assert (words.bos_token_id, words.eos_token_ids) == (1, (7, 9, 0))  # 0 is the tokenizer's own <end>
    assert (words.prefix, words.suffix) == ((), ())
    special = {"bos_token": "<begin>", "eos_token": "<end>"}
    assert words.chat == Chat.model_validate({"template": "chat_template.jinja", **special})
    assert words.files.keys() == {"tokenizer.json", "chat_template.jinja"}


def test_what_the_tokenizer_puts_around_a_text_is_seen(tmp_path: Path) -> None:
    where = directory(tmp_path)
    path = tmp_path / "tokenizer.json"
    tokenizer = Tokenizer.from_file(str(path))
    tokenizer.post_processor = TemplateProcessing(
        single="<begin> $A <end>", special_tokens=[("<begin>", 1), ("<end>", 0)]
    )
    tokenizer.save(str(path))

    words = read_words(where)

    assert (words.prefix, words.suffix) == ((1,), (0,))


def test_without_a_template_there_is_no_chat(tmp_path: Path) -> None:
    words = read_words(directory(tmp_path, tokenizer_config={"chat_template": None}))

    assert words.chat is None
    assert words.files.keys() == {"tokenizer.json"}


def test_of_several_templates_the_default_counts(tmp_path: Path) -> None:
    templates = [{"name": "rag", "template": "x"}, {"name": "default", "template": "y"}]

    words = read_words(directory(tmp_path, tokenizer_config={"chat_template": templates}))

    assert words.files["chat_template.jinja"] == b"y"


@pytest.mark.parametrize(
    ("name", "content"),
    [("chat_template.jinja", "hello"), ("chat_template.json", '{"chat_template": "hello"}')],
)
def test_a_template_in_a_file_of_its_own_counts(name: str, content: str, tmp_path: Path) -> None:
    tmp_path.joinpath(name).write_text(content)

    assert read_words(directory(tmp_path)).files["chat_template.jinja"] == b"hello"


@pytest.mark.parametrize(
    ("template", "style"),
    [
        ("{{ tools }}<tool_call>", "hermes"),
        ("{{ tools }}[TOOL_CALLS]", "mistral"),
        ("{{ tools }}<|python_tag|>", "llama3"),
        ("{{ tools }}", None),
        ("<tool_call>", None),
    ],
)
def test_how_tools_are_called_is_read_from_the_template(
    template: str, style: str | None, tmp_path: Path
) -> None:
    words = read_words(directory(tmp_path, tokenizer_config={"chat_template": template}))

    assert words.chat is not None
    assert words.chat.tools == style


def test_a_broken_template_is_refused(tmp_path: Path) -> None:
    tmp_path.joinpath("chat_template.json").write_text("{")
    with pytest.raises(DraftError, match=r"chat_template\.json is not JSON"):
        read_words(directory(tmp_path))
    tmp_path.joinpath("chat_template.jinja").write_bytes(b"\xff")
    with pytest.raises(DraftError, match=r"chat_template\.jinja is not UTF-8"):
        read_words(directory(tmp_path))


def test_a_missing_or_broken_tokenizer_is_refused(tmp_path: Path) -> None:
    where = directory(tmp_path)
    path = tmp_path / "tokenizer.json"
    path.write_text("{}")
    with pytest.raises(DraftError, match=r"tokenizer\.json cannot be read"):
        read_words(where)
    path.unlink()
    with pytest.raises(DraftError, match=r"there is no tokenizer\.json: load the tokenizer with"):
        read_words(where)
