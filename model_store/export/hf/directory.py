"""A local Hugging Face directory: what its JSON files say, which kind of model it holds, and what is refused unread.

Knows file names and fields, no tensors; imports neither torch nor transformers.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal, TypeAlias

from model_store.export.errors import DraftError

Kind: TypeAlias = Literal["decoder", "encoder-decoder", "encoder"]
Fields: TypeAlias = Mapping[str, Any]

MOST_JSON_BYTES: Final = 1 << 28
_PICKLES: Final = ("*.bin", "*.pt", "*.pth", "*.ckpt")
_DECODERS: Final = ("ForCausalLM", "LMHeadModel")
_ENCODERS: Final = ("ForSequenceClassification", "ForMaskedLM", "Model")


@dataclass(frozen=True)
class Directory:
    """The directory and its configuration files, read. `generation` is empty where there is no such file."""

    path: Path
    config: Fields
    generation: Fields
    tokenizer_config: Fields

    @property
    def architecture(self) -> str:
        """Name of the model class the weights were saved from."""
        names = self.config.get("architectures") or [""]
        return str(names[0])

    @property
    def model_type(self) -> str:
        """Name of the family, as transformers calls it."""
        return str(self.config.get("model_type", ""))


def read_directory(path: Path) -> Directory:
    """Read the configuration files. Raises DraftError for what is no model, needs its own code, or is pickled."""
    if not path.is_dir():
        raise DraftError(
            f"{path.name!r} is no folder: give the local directory of a model, nothing is downloaded"
        )
    if not (path / "config.json").is_file():
        if (path / "adapter_config.json").is_file():
            raise DraftError("this is a LoRA adapter: export its base model with --adapter and this folder")
        raise DraftError("there is no config.json: this is no Hugging Face model directory")
    found = Directory(
        path,
        config=read_json(path / "config.json"),
        generation=read_json(path / "generation_config.json", optional=True),
        tokenizer_config=read_json(path / "tokenizer_config.json", optional=True),
    )
    _check_code(found)
    check_weights(path)
    return found


def kind_of(directory: Directory) -> Kind:
    """Which of the exporters takes it. Raises DraftError for an architecture that is none of theirs."""
    name = directory.architecture
    if not name:
        raise DraftError("config.json names no architecture: save the model with save_pretrained")
    if "vision_config" in directory.config or "audio_config" in directory.config:
        raise DraftError(f"{name} reads pictures or sound; only models of text are exported")
    if directory.config.get("is_encoder_decoder"):
        return "encoder-decoder"
    if name.endswith(_DECODERS):
        return "decoder"
    if name.endswith(_ENCODERS):
        return "encoder"
    raise DraftError(f"{name} is no decoder, encoder-decoder or encoder of text that can be exported")


def _check_code(directory: Directory) -> None:
    auto_map = directory.config.get("auto_map")
    if auto_map and not directory.model_type:
        raise DraftError("the model needs code of its own (auto_map), which is never run")


def check_weights(path: Path) -> None:
    """Raise DraftError for a folder without safetensors."""
    if any(path.glob("*.safetensors")):
        return
    if any(found for pattern in _PICKLES for found in path.glob(pattern)):
        raise DraftError(
            "the weights are pickled, which can run code when read: save them again with "
            "save_pretrained(safe_serialization=True), or convert them to model.safetensors"
        )
    raise DraftError("there are no weights: the directory holds no .safetensors file")


def read_json(path: Path, *, optional: bool = False) -> Fields:
    """A JSON object; empty where it is optional and not there. Raises DraftError."""
    if optional and not path.is_file():
        return {}
    if path.stat().st_size > MOST_JSON_BYTES:
        raise DraftError(f"{path.name} has more than {MOST_JSON_BYTES} bytes")
    try:
        fields = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise DraftError(f"{path.name} is not JSON: {error!s:.120}") from error
    if not isinstance(fields, dict):
        raise DraftError(f"{path.name} is not a JSON object")
    return fields
