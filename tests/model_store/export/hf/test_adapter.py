"""A LoRA adapter is what peft would add: W + (alpha / r) B A."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import nn
from transformers.pytorch_utils import Conv1D

from model_store.export.errors import DraftError, GraphFailed
from model_store.export.hf.adapter import merge, merged, read_adapter
from model_store.export.hf.adapter_config import check_adapter


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.up = nn.Linear(3, 5)
        self.turned = Conv1D(5, 3)  # type: ignore[no-untyped-call]  # its weight is [3, 5]


def adapter(folder: Path, tensors: dict[str, torch.Tensor] | None = None, **config: Any) -> Path:
    folder.mkdir(exist_ok=True)
    fields = {"peft_type": "LORA", "r": 2, "lora_alpha": 8, "bias": "none", **config}
    folder.joinpath("adapter_config.json").write_text(json.dumps(fields))
    save_file(tensors or pair("up"), folder / "adapter_model.safetensors")
    return folder


def pair(name: str, rows: int = 5) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    prefix = f"base_model.model.{name}.lora_"
    return {
        f"{prefix}A.weight": torch.randn(2, 3, generator=generator),
        f"{prefix}B.weight": torch.randn(rows, 2, generator=generator),
    }


@pytest.mark.parametrize(("config", "scale"), [({}, 4.0), ({"use_rslora": True}, 8 / 2**0.5)])
def test_weights_become_what_the_adapter_says(config: dict[str, Any], scale: float, tmp_path: Path) -> None:
    net, tensors = Net(), pair("up")
    before = net.up.weight.detach().clone()
    down, up = tensors.values()

    merge(net, read_adapter(net, adapter(tmp_path, tensors, **config)))

    assert torch.allclose(net.up.weight, before + scale * up @ down)


def test_a_square_transposed_layer_is_transposed_as_well(tmp_path: Path) -> None:
    net = nn.Module()
    net.turned = Conv1D(3, 3)  # type: ignore[no-untyped-call]
    before = net.turned.weight.detach().clone()
    tensors = pair("turned", rows=3)
    down, up = tensors.values()

    merge(net, read_adapter(net, adapter(tmp_path, tensors)))

    assert torch.allclose(net.turned.weight, before + 4 * (up @ down).t())


def test_a_merged_adapter_leaves_nothing_behind(tmp_path: Path) -> None:
    net = Net()
    before = net.up.weight.detach().clone()
    changes = read_adapter(net, adapter(tmp_path))

    with merged(net, changes):
        assert not torch.equal(net.up.weight, before)

    assert torch.equal(net.up.weight, before)


def test_transposed_layers_are_transposed(tmp_path: Path) -> None:
    net, tensors = Net(), pair("turned")
    before = net.turned.weight.detach().clone()
    down, up = tensors.values()

    merge(net, read_adapter(net, adapter(tmp_path, tensors)))

    assert torch.allclose(net.turned.weight, before + 4 * (up @ down).t())


@pytest.mark.parametrize(
    ("tensors", "complaint"),
    [
        (pair("down"), "changes 'down', which the model does not have"),
        (pair("up", rows=4), r"the adapter's up is \[4, 2\] times \[2, 3\] where the model has \[5, 3\]"),
        (dict(list(pair("up").items())[:1]), "the adapter is incomplete: up"),
        ({"base_model.model.up.bias": torch.zeros(5)}, "which is no LoRA matrix"),
        (
            {name: each * torch.nan for name, each in pair("up").items()},
            "the adapter's up holds what is no number",
        ),
    ],
)
def test_what_does_not_fit_is_refused(
    tensors: dict[str, torch.Tensor], complaint: str, tmp_path: Path
) -> None:
    with pytest.raises(GraphFailed, match=complaint):
        read_adapter(Net(), adapter(tmp_path, tensors))


@pytest.mark.parametrize(
    ("config", "complaint"),
    [
        ({"peft_type": "IA3"}, "the adapter is IA3, where only LORA can be merged"),
        ({"use_dora": True}, "uses use_dora"),
        ({"modules_to_save": ["lm_head"]}, "uses modules_to_save"),
        ({"bias": "all"}, "uses bias"),
    ],
)
def test_other_adapters_are_refused(config: dict[str, Any], complaint: str, tmp_path: Path) -> None:
    with pytest.raises(DraftError, match=complaint):
        check_adapter(adapter(tmp_path, **config))


def test_what_is_no_adapter_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DraftError, match="is no adapter"):
        check_adapter(tmp_path)
    adapter(tmp_path / "pickled").joinpath("adapter_model.safetensors").unlink()
    with pytest.raises(DraftError, match="pickled adapters are never read"):
        check_adapter(tmp_path / "pickled")
