"""From a directory to a package that opens; and options that make no sense for it."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM

from model_store.export.errors import DraftError, GraphFailed
from model_store.export.hf.decoder import check_options, context_limit, export_decoder, make_job
from model_store.export.hf.directory import Directory
from model_store.export.hf.golden_case import greedy_controls
from model_store.export.hf.options import Options
from model_store.export.hf.rows import Rows
from model_store.export.witness import Witness
from model_store.session import Device, open_graph
from model_store.store import Store
from tests.model_store.export.hf.conftest import Llama
from tests.model_store.export.hf.test_adapter import adapter

PLACE = "model.layers.0.self_attn.v_proj"


def test_a_directory_becomes_a_package(llama: Llama, tmp_path: Path) -> None:
    """With LoRAs and in int4: everything on the way, in the fresh process it runs in."""
    tensors = {
        f"base_model.model.{PLACE}.lora_A.weight": torch.randn(2, 64),
        f"base_model.model.{PLACE}.lora_B.weight": torch.randn(32, 2) * 0.1,
    }
    lora = adapter(tmp_path / "lora", tensors)
    stages: list[str] = []
    options = Options(
        "tiny", "int4", context=128, adapter=lora, block=16, licence="MIT", adapters={"legal": lora}
    )

    manifest = export_decoder(llama.directory, str(tmp_path / "store"), options, Witness(stage=stages.append))

    assert stages[:2] == ["load the model", "merge the adapter"]
    assert (manifest.task, manifest.capabilities, manifest.licence) == (
        "text-generation",
        ("complete", "chat"),
        "MIT",
    )
    text, rounding = manifest.text, manifest.quantization
    assert text is not None
    assert rounding is not None
    assert (text.vocabulary, text.context, text.attention) == (288, 128, True)
    assert text.adapters == ("legal",)
    assert {state.shape for state in text.state} == {(2, "cache", 16)}
    assert (rounding.bits, rounding.block, rounding.limit) == (4, 16, 0.5)
    assert rounding.kl is not None
    assert 0 < rounding.kl < 0.5
    assert manifest.quality["perplexity"].baseline is not None
    assert manifest.provenance.parameters == sum(
        each.numel() for each in AutoModelForCausalLM.from_pretrained(llama.directory).parameters()
    )
    package = Store(str(tmp_path / "store")).open("tiny")
    session = open_graph(package, "step", device=Device("cpu"))  # replays the golden run
    rows = Rows(session, llama.report.layers, vocabulary=288, batch=1, cache=4, adapters=np.array([1]))
    feeds = rows.inputs(np.array([[3, 5]]), np.array([[1]]), np.array([2])) | greedy_controls(1, 1, 288)
    token, logprob = session.run(feeds, ["token", "logprob"])
    assert 0 <= token[0, 0] < 288
    assert logprob[0, 0] < 0


def directory(**config: Any) -> Directory:
    fields = {
        "architectures": ["LlamaForCausalLM"],
        "max_position_embeddings": 512,
        "vocab_size": 99,
        **config,
    }
    return Directory(Path("nowhere"), fields, {}, {})


@pytest.mark.parametrize(
    ("config", "limit"),
    [
        ({}, 512),
        ({"max_position_embeddings": None, "n_positions": 64}, 64),
        ({"rope_parameters": {"rope_type": "longrope", "original_max_position_embeddings": 128}}, 128),
        ({"rope_scaling": {"type": "su"}, "original_max_position_embeddings": 256}, 256),
        ({"rope_parameters": {"rope_type": "dynamic"}}, 512),
        ({"rope_parameters": {"rope_type": "yarn", "original_max_position_embeddings": 128}}, 512),
    ],
)
def test_how_far_positions_reach(config: dict[str, Any], limit: int) -> None:
    assert context_limit(directory(**config)) == limit


def test_without_positions_a_directory_is_refused() -> None:
    with pytest.raises(DraftError, match="does not say how many positions"):
        context_limit(directory(max_position_embeddings=None))


@pytest.mark.parametrize(
    ("options", "config", "complaint"),
    [
        (Options("No"), {}, "'No' is no package name"),
        (Options("x", context=513), {}, "--context 513: the model knows positions up to 512"),
        (Options("x", context=1), {}, "--context 1"),
        (Options("x", block=48), {}, "--block 48: it must be one of 16, 32"),
        (Options("x", "bf16", "cuda"), {}, "on CUDA use fp16"),
        (Options("x", device="cuda", kv_cache="int8"), {}, "--kv-cache int8 is for the CPU"),
        (Options("x"), {"architectures": ["BertModel"]}, "BertModel is no decoder"),
        (Options("x"), {"num_local_experts": 8}, "LlamaForCausalLM is a mixture of experts"),
        (Options("x", adapter=Path("nowhere")), {}, "'nowhere' is no adapter"),
        (Options("x", adapters={"legal": Path("nowhere")}), {}, "'nowhere' is no adapter"),
        (Options("x", adapters={"7": Path("nowhere")}), {}, "'7' is no adapter's name: a small letter, then"),
    ],
)
def test_options_that_make_no_sense_are_refused(
    options: Options, config: dict[str, Any], complaint: str
) -> None:
    with pytest.raises(DraftError, match=complaint):
        check_options(directory(**config), options)


def test_a_tokenizer_of_another_model_is_refused(llama: Llama, tmp_path: Path) -> None:
    config = json.loads((llama.directory / "config.json").read_text())
    for size, complaint in (
        (200, "the tokenizer knows 258 tokens, the model 200"),
        (None, "how many tokens the model knows"),
    ):
        (tmp_path / "config.json").write_text(json.dumps(config | {"vocab_size": size}))
        for name in ("tokenizer.json", "model.safetensors"):
            (tmp_path / name).write_bytes((llama.directory / name).read_bytes())
        with pytest.raises(DraftError, match=complaint):
            export_decoder(tmp_path, str(tmp_path / "store"), Options("tiny"))


def test_a_short_context_is_compared_as_far_as_it_goes() -> None:
    whole, short, tiny = (make_job(directory(), Options("x", context=each)) for each in (None, 40, 8))

    assert (whole.context, whole.prompts, whole.steps) == (512, (37, 5, 18), 64)
    assert (short.prompts, short.steps) == ((37, 5, 18), 3)
    assert (tiny.prompts, tiny.steps) == ((7, 5, 7), 1)


def without(name: str) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        path = folder / "config.json"
        path.write_text(path.read_text().replace(f'"{name}"', '"nothing_like_it"'))

    return change


def cut(folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (cut, "transformers cannot load the directory"),
        (without("intermediate_size"), "transformers cannot load|do not fit"),
    ],
)
def test_weights_that_do_not_fit_are_refused(
    change: Callable[[Path], None], complaint: str, llama: Llama, tmp_path: Path
) -> None:
    broken = tmp_path / "model"
    broken.mkdir()
    for file in llama.directory.iterdir():
        (broken / file.name).write_bytes(file.read_bytes())
    change(broken)

    with pytest.raises(GraphFailed, match=complaint):
        export_decoder(broken, str(tmp_path / "store"), Options("tiny"))
    assert not (tmp_path / "store" / "tiny").exists()
