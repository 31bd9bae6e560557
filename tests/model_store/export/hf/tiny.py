"""Tiny random models of each family as local directories, and their export without the fresh process."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import torch
import transformers
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from torch import nn
from transformers import AutoModelForCausalLM, PreTrainedModel

from model_store.export.hf import job as jobs
from model_store.export.hf.decoder_process import work

SIZES: Mapping[str, Any] = {
    "vocab_size": 288,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
    "pad_token_id": None,
}
GPT2: Mapping[str, Any] = {"vocab_size": 288, "n_embd": 64, "n_layer": 2, "n_head": 4, "n_positions": 256}
PARTIAL = {"rope_type": "default", "rope_theta": 10_000.0, "partial_rotary_factor": 0.5}

FAMILIES: Mapping[str, tuple[str, Mapping[str, Any]]] = {
    "llama": ("LlamaConfig", {"tie_word_embeddings": True}),
    "llama-biased": ("LlamaConfig", {"attention_bias": True, "mlp_bias": True, "rope_parameters": {"rope_type": "llama3", "rope_theta": 500_000.0, "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 64}}),
    "smollm3": ("SmolLM3Config", {"num_hidden_layers": 4, "pad_token_id": 0}),
    "qwen2": ("Qwen2Config", {}),
    "qwen3": ("Qwen3Config", {"head_dim": 32}),
    "mistral": ("MistralConfig", {"sliding_window": 16}),
    "phi": ("PhiConfig", {"hidden_size": 128, "rope_parameters": PARTIAL}),
    "phi-narrow": ("PhiConfig", {"rope_parameters": PARTIAL}),
    "phi3": ("Phi3Config", {"pad_token_id": 0}),
    "gemma": ("GemmaConfig", {"head_dim": 32, "pad_token_id": 0}),
    "gemma2": ("Gemma2Config", {"head_dim": 32, "sliding_window": 16, "query_pre_attn_scalar": 24, "pad_token_id": 0}),
    "gemma3": ("Gemma3TextConfig", {"head_dim": 32, "sliding_window": 16, "query_pre_attn_scalar": 24, "layer_types": ["sliding_attention", "full_attention"], "pad_token_id": 0}),
    "gpt2": ("GPT2Config", GPT2),
    "gpt_neox": ("GPTNeoXConfig", {"hidden_size": 128, "num_attention_heads": 2, "rope_parameters": PARTIAL | {"partial_rotary_factor": 0.25}}),
    "gpt_neox-narrow": ("GPTNeoXConfig", {"rope_parameters": PARTIAL | {"partial_rotary_factor": 0.25}}),
    "starcoder2": ("Starcoder2Config", {}),
    "cohere": ("CohereConfig", {}),
    "glm": ("GlmConfig", {"head_dim": 32, "pad_token_id": 0}),
}  # fmt: skip
"""Configuration class of each family, and what differs from `SIZES`."""


def model_of(family: str, **changes: Any) -> PreTrainedModel:
    """A model whose weights are large enough to make its tokens differ."""
    name, own = FAMILIES[family]
    sizes = own if own.keys() >= GPT2.keys() else {**SIZES, **own}
    torch.manual_seed(0)
    config = getattr(transformers, name)(**{**sizes, **changes})
    model = cast("PreTrainedModel", AutoModelForCausalLM.from_config(config))  # type: ignore[no-untyped-call]
    for label, parameter in model.named_parameters():
        if parameter.ndim >= 2:
            nn.init.normal_(parameter, std=0.1)
        elif "bias" in label or "norm" in label or "ln" in label:
            parameter.data += 0.1 * torch.randn_like(parameter)
    model.eval()  # type: ignore[no-untyped-call]
    return model


def save_tokenizer(folder: Path) -> None:
    """Bytes as tokens, with an end and a beginning, and a chat template."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: place for place, token in enumerate(["<end>", "<begin>", *alphabet])}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(["<end>", "<begin>"])
    tokenizer.save(str(folder / "tokenizer.json"))
    template = "{% for m in messages %}{{ m['role'] + ': ' + m['content'] + eos_token }}{% endfor %}"
    fields = {"eos_token": "<end>", "bos_token": {"content": "<begin>"}, "chat_template": template}
    (folder / "tokenizer_config.json").write_text(json.dumps(fields))


def save(family: str, folder: Path, **changes: Any) -> Path:
    """The family's directory as transformers would leave it."""
    model_of(family, **changes).save_pretrained(folder)
    save_tokenizer(folder)
    return folder


def exported(
    directory: Path, folder: Path, *, context: int = 256, adapter: Path | None = None, steps: int = 64
) -> jobs.Report:
    """Do the fresh process's work in this one; the graph and the references lie in `folder`."""
    folder.mkdir(exist_ok=True)
    jobs.write_job(folder, jobs.Job(directory, adapter, context, 288, (37, 5, 18), steps))
    work(folder, lambda _: None)
    return jobs.read_report(folder)
