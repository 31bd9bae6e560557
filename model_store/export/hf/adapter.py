"""Merges a PEFT LoRA adapter into a model's weights: W + (alpha / r) B A. Needs no peft; reads safetensors only."""

import re
from pathlib import Path
from typing import Final

import torch
from safetensors import safe_open
from torch import Tensor, nn

from model_store.export.errors import GraphFailed
from model_store.export.hf.adapter_config import WEIGHTS, check_adapter

_NAME: Final = re.compile(r"(?:base_model\.model\.)?(?P<module>.+)\.lora_(?P<part>A|B)(?:\.default)?\.weight")


def merge_adapter(model: nn.Module, path: Path) -> None:
    """Add the adapter to the weights in place. Raises GraphFailed where its tensors do not fit the model."""
    config = check_adapter(path)
    rank = int(config["r"])
    scale = config.get("lora_alpha", rank) / (rank**0.5 if config.get("use_rslora") else rank)
    with safe_open(path / WEIGHTS, framework="pt") as stored:
        pairs = _pairs(list(stored.keys()))
        for name, (down, up) in pairs.items():
            _add(model, name, stored.get_tensor(down), stored.get_tensor(up), scale)


def _pairs(names: list[str]) -> dict[str, tuple[str, str]]:
    found: dict[str, dict[str, str]] = {}
    for name in names:
        match = _NAME.fullmatch(name)
        if match is None:
            raise GraphFailed(f"the adapter holds {name!r}, which is no LoRA matrix")
        found.setdefault(match["module"], {})[match["part"]] = name
    half = sorted(name for name, parts in found.items() if len(parts) != 2)
    if half or not found:
        raise GraphFailed(f"the adapter is incomplete: {', '.join(half[:3]) or 'it holds no matrices'}")
    return {name: (parts["A"], parts["B"]) for name, parts in found.items()}


def _add(model: nn.Module, name: str, down: Tensor, up: Tensor, scale: float) -> None:
    try:
        weight = model.get_submodule(name).get_parameter("weight")
    except AttributeError as error:
        raise GraphFailed(f"the adapter changes {name!r}, which the model does not have") from error
    change = scale * (up.float() @ down.float())
    if weight.shape != change.shape:
        change = change.t()  # GPT-2's layers are transposed
    if weight.shape != change.shape:
        raise GraphFailed(
            f"the adapter's {name} is {list(change.shape)} where the model has {list(weight.shape)}"
        )
    with torch.no_grad():
        weight.add_(change.to(weight.dtype))
