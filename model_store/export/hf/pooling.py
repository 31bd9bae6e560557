"""How sentence-transformers makes one vector of a text's token vectors, read from its configuration files. Knows no tensors."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal, TypeAlias

from model_store.export.errors import DraftError

Pool: TypeAlias = Literal["cls", "max", "mean", "mean_sqrt_len", "lasttoken"]
Activation: TypeAlias = Literal["Tanh", "Identity", "ReLU", "GELU", "Sigmoid"]

# In the order in which sentence-transformers joins them.
_POOLS: Final[Mapping[str, Pool]] = {
    "pooling_mode_cls_token": "cls",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len",
    "pooling_mode_lasttoken": "lasttoken",
}
_ACTIVATIONS: Final[Mapping[str, Activation]] = {
    "torch.nn.modules.activation.Tanh": "Tanh",
    "torch.nn.modules.linear.Identity": "Identity",
    "torch.nn.modules.activation.ReLU": "ReLU",
    "torch.nn.modules.activation.GELU": "GELU",
    "torch.nn.modules.activation.Sigmoid": "Sigmoid",
}


@dataclass(frozen=True)
class Dense:
    """A layer behind the pooling: its weights are in `path`/model.safetensors."""

    path: str
    inputs: int
    outputs: int
    bias: bool
    activation: Activation


@dataclass(frozen=True)
class Pooling:
    """How token vectors become one: the pools side by side, then the layers. The result is always scaled to length 1."""

    pools: tuple[Pool, ...] = ("mean",)
    layers: tuple[Dense, ...] = ()
    context: int | None = None


def read_pooling(folder: Path) -> Pooling:
    """What sentence-transformers' files say; without them the mean of the tokens, as there. Raises DraftError."""
    modules = folder / "modules.json"
    if not modules.is_file():
        return Pooling()
    _check_prompt(folder)
    pools: tuple[Pool, ...] = ()
    layers: list[Dense] = []
    transformer = ""
    for module in _read(modules):
        kind, path = str(module.get("type", "")).rpartition(".")[2], str(module.get("path", ""))
        if kind == "Transformer":
            transformer = path
        elif kind == "Pooling":
            pools = _pools(_fields(folder / path / "config.json"))
        elif kind == "Dense":
            layers.append(_dense(path, _fields(folder / path / "config.json")))
        elif kind != "Normalize":
            raise DraftError(f"modules.json names a module {kind!r}, which is not exported")
    if transformer:
        raise DraftError("modules.json keeps the transformer in a folder of its own; it must lie at the top")
    if not pools:
        raise DraftError("modules.json names no Pooling: the model has no vector for a text")
    return Pooling(pools, tuple(layers), _trained_length(folder))


def _check_prompt(folder: Path) -> None:
    fields = _fields(folder / "config_sentence_transformers.json")
    if fields.get("default_prompt_name"):
        raise DraftError(
            "the model puts a prompt of its own before every text (default_prompt_name): remove that setting, "
            "and let callers send the prompt"
        )


def _pools(fields: Mapping[str, Any]) -> tuple[Pool, ...]:
    mode = fields.get("pooling_mode")  # as newer versions write it: one name, or several joined by +
    named = {f"pooling_mode_{each}" for each in str(mode).split("+")} if mode else set()
    asked = {
        key for key, value in fields.items() if key.startswith("pooling_mode_") and value is True
    } | named
    asked = {_spelled(each) for each in asked}
    unknown = sorted(asked - _POOLS.keys())
    if unknown or not asked:
        raise DraftError(f"the pooling {', '.join(unknown) or 'without a mode'} is not exported")
    return tuple(pool for key, pool in _POOLS.items() if key in asked)


def _spelled(mode: str) -> str:
    """Newer versions leave `_tokens` out."""
    return next((key for key, pool in _POOLS.items() if mode in {key, f"pooling_mode_{pool}"}), mode)


def _dense(path: str, fields: Mapping[str, Any]) -> Dense:
    named = str(fields.get("activation_function", ""))
    activation = _ACTIVATIONS.get(named)
    if activation is None:
        raise DraftError(f"the layer {path} has the activation {named!r}, which is not exported")
    sizes = int(fields["in_features"]), int(fields["out_features"])
    return Dense(path, *sizes, bias=bool(fields.get("bias", True)), activation=activation)


def _trained_length(folder: Path) -> int | None:
    fields = _fields(folder / "sentence_bert_config.json")
    if fields.get("do_lower_case"):
        raise DraftError(
            "sentence_bert_config.json asks for lower case: let the tokenizer do it (normalizer)"
        )
    length = fields.get("max_seq_length")
    return int(length) if length else None


def _fields(path: Path) -> Mapping[str, Any]:
    """A JSON object; empty where there is no file. Raises DraftError."""
    fields = _read(path) if path.is_file() else {}
    if not isinstance(fields, dict):
        raise DraftError(f"{path.name} is not a JSON object")
    return fields


def _read(path: Path) -> Any:
    try:
        return json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise DraftError(f"{path.name} is not JSON: {error!s:.120}") from error
