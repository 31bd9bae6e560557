"""Which directories are taken, and what is said of the others."""

import json
from pathlib import Path
from typing import Any

import pytest

from model_store.export.errors import DraftError
from model_store.export.hf.directory import MOST_JSON_BYTES, kind_of, read_directory


def directory(folder: Path, weights: str = "model.safetensors", **config: Any) -> Path:
    folder.joinpath("config.json").write_text(json.dumps({"model_type": "llama", **config}))
    folder.joinpath(weights).write_bytes(b"")
    return folder


@pytest.mark.parametrize(
    ("config", "kind"),
    [
        ({"architectures": ["LlamaForCausalLM"]}, "decoder"),
        ({"architectures": ["GPT2LMHeadModel"]}, "decoder"),
        ({"architectures": ["T5ForConditionalGeneration"], "is_encoder_decoder": True}, "encoder-decoder"),
        ({"architectures": ["MarianMTModel"], "is_encoder_decoder": True}, "encoder-decoder"),
        ({"architectures": ["BertModel"]}, "encoder"),
        ({"architectures": ["RobertaForSequenceClassification"]}, "encoder"),
    ],
)
def test_the_architecture_says_which_kind_it_is(config: dict[str, Any], kind: str, tmp_path: Path) -> None:
    assert kind_of(read_directory(directory(tmp_path, **config))) == kind


@pytest.mark.parametrize(
    ("config", "complaint"),
    [
        ({}, "config.json names no architecture"),
        (
            {"architectures": ["LlavaForCausalLM"], "vision_config": {}},
            "LlavaForCausalLM reads pictures or sound",
        ),
        (
            {"architectures": ["ResNetBackbone"]},
            "ResNetBackbone is no decoder, encoder-decoder or encoder of text",
        ),
    ],
)
def test_other_architectures_are_refused(config: dict[str, Any], complaint: str, tmp_path: Path) -> None:
    with pytest.raises(DraftError, match=complaint):
        kind_of(read_directory(directory(tmp_path, **config)))


def test_a_model_that_brings_its_own_code_is_refused(tmp_path: Path) -> None:
    own: dict[str, Any] = {"model_type": "", "auto_map": {"AutoModelForCausalLM": "modeling_mine.Mine"}}

    with pytest.raises(DraftError, match="needs code of its own"):
        read_directory(directory(tmp_path, "model.safetensors", **own))


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.pt", "model.pth", "last.ckpt"])
def test_pickled_weights_are_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(DraftError, match="the weights are pickled, which can run code"):
        read_directory(directory(tmp_path, name))


def test_what_is_no_model_directory_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DraftError, match="'nowhere' is no folder"):
        read_directory(tmp_path / "nowhere")
    with pytest.raises(DraftError, match=r"there is no config\.json"):
        read_directory(tmp_path)
    tmp_path.joinpath("adapter_config.json").write_text("{}")
    with pytest.raises(DraftError, match="this is a LoRA adapter: export its base model"):
        read_directory(tmp_path)
    tmp_path.joinpath("config.json").write_text("{}")
    with pytest.raises(DraftError, match="there are no weights"):
        read_directory(tmp_path)


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (b"{", "is not JSON"),
        (b"[]", "is not a JSON object"),
        (b"\xff", "is not JSON"),
        (b"[" * 100_000, "is not JSON"),
    ],
)
def test_a_broken_configuration_is_refused(content: bytes, complaint: str, tmp_path: Path) -> None:
    directory(tmp_path).joinpath("config.json").write_bytes(content)

    with pytest.raises(DraftError, match=complaint):
        read_directory(tmp_path)


def test_a_huge_configuration_is_not_read(tmp_path: Path) -> None:
    with directory(tmp_path).joinpath("config.json").open("wb") as file:
        file.truncate(MOST_JSON_BYTES + 1)

    with pytest.raises(DraftError, match="has more than"):
        read_directory(tmp_path)
