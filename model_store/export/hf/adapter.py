"""What a PEFT LoRA adapter changes in a model: W + (alpha / r) B A. Needs no peft; reads safetensors only."""

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeAlias

import numpy as np
import torch
from safetensors import safe_open
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from model_store.export.errors import GraphFailed
from model_store.export.hf.adapter_config import WEIGHTS, check_adapter
from model_store.export.hf.rewrite import SEPARATOR
from model_store.export.hf.stack import Stack

_NAME: Final = re.compile(r"(?:base_model\.model\.)?(?P<module>.+)\.lora_(?P<part>A|B)(?:\.default)?\.weight")


@dataclass(frozen=True)
class Change:
    """What is added to one layer's weight [out, in]: `up` [out, r] times `down` [r, in], float32, the scale in `up`."""

    down: Tensor
    up: Tensor


Adapter: TypeAlias = Mapping[str, Change]
"""Changes by the names of the layers."""


def read_adapter(model: nn.Module, path: Path) -> Adapter:
    """Read an adapter. Raises GraphFailed where its tensors do not fit the model, DraftError where it is no plain LoRA."""
    config = check_adapter(path)
    rank = int(config["r"])
    scale = config.get("lora_alpha", rank) / (rank**0.5 if config.get("use_rslora") else rank)
    changes = {}
    with safe_open(path / WEIGHTS, framework="pt") as stored:
        for name, (down, up) in _pairs(list(stored.keys())).items():
            change = Change(stored.get_tensor(down).float(), scale * stored.get_tensor(up).float())
            _check(model, name, change)
            changes[name] = change
    return changes


def merge(model: nn.Module, adapter: Adapter) -> None:
    """Add the adapter to the weights in place."""
    with torch.no_grad():
        for name, change in adapter.items():
            layer = model.get_submodule(name)
            added = change.up @ change.down
            weight = layer.get_parameter("weight")
            weight.add_((added.t() if isinstance(layer, Conv1D) else added).to(weight.dtype))


@contextmanager
def merged(model: nn.Module, adapter: Adapter) -> Iterator[None]:
    """Have the adapter in the weights as long as the context lasts."""
    weights = [model.get_submodule(name).get_parameter("weight") for name in adapter]
    kept = [each.detach().clone() for each in weights]
    merge(model, adapter)
    try:
        yield
    finally:
        with torch.no_grad():
            for weight, before in zip(weights, kept, strict=True):
                weight.copy_(before)


def stack(model: nn.Module, nodes: Sequence[str], adapters: Sequence[Adapter]) -> dict[str, Stack]:
    """What the adapters add to each of a graph's products, which are called after their layers. Raises GraphFailed for other layers."""
    missing = {name for adapter in adapters for name in adapter}
    stacks = {}
    for node in nodes:
        layers = node.split(SEPARATOR)
        changes = [
            (layer, owner, adapter[layer])
            for layer in layers
            for owner, adapter in enumerate(adapters, 1)
            if layer in adapter
        ]
        if changes:
            missing -= set(layers)
            widths = [len(model.get_submodule(layer).get_parameter("weight")) for layer in layers]
            stacks[node] = _side_by_side(
                changes, dict(zip(layers, np.cumsum([0, *widths]), strict=False)), sum(widths)
            )
    if missing:
        raise GraphFailed(f"an adapter changes {min(missing)!r}, which is no linear layer of the graph")
    return stacks


def _side_by_side(changes: Sequence[tuple[str, int, Change]], starts: Mapping[str, int], width: int) -> Stack:
    """Each change in columns of its own; what they give lies where its layer's results do."""
    owner = np.repeat([owner for _, owner, _ in changes], [len(change.down) for *_, change in changes])
    up, end = np.zeros((len(owner), width), np.float32), 0
    for layer, _, change in changes:
        first, (out, rank) = starts[layer], change.up.shape
        up[end : end + rank, first : first + out] = change.up.t().numpy()
        end += rank
    down = torch.cat([change.down for *_, change in changes]).t().contiguous().numpy()
    return Stack(down, up, owner)


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


def _check(model: nn.Module, name: str, change: Change) -> None:
    try:
        layer = model.get_submodule(name)
        weight = layer.get_parameter("weight")
    except AttributeError as error:
        raise GraphFailed(f"the adapter changes {name!r}, which the model does not have") from error
    shape = list(weight.shape)[:: -1 if isinstance(layer, Conv1D) else 1]  # GPT-2's layers are transposed
    if change.down.shape[0] != change.up.shape[1] or shape != [change.up.shape[0], change.down.shape[1]]:
        fits = f"{list(change.up.shape)} times {list(change.down.shape)}"
        raise GraphFailed(f"the adapter's {name} is {fits} where the model has {shape}")
    if not all(bool(each.isfinite().all()) for each in (change.down, change.up)):
        raise GraphFailed(f"the adapter's {name} holds what is no number")
