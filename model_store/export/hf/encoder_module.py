"""The modules behind `encode` graphs: a transformers encoder with its pooling or its classification head.

Imported only by the process that exports. In eager torch everything is transformers' own computation, on right-padded rows
with the attention mask that their lengths make: the oracle of the exported graph.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional
from transformers import AutoModel, AutoModelForSequenceClassification

from model_store.export.cases import Case
from model_store.export.hf.directory import read_directory
from model_store.export.hf.encoder import CLASSIFIER, exclusive, positions
from model_store.export.hf.pooling import Dense, Pool, Pooling, read_pooling

_ROWS = ((5, 3), (9,), (12, 1, 7))
"""Lengths of the rows of each case: padding, none, and a row of one token. The last case is as long as texts can be."""


class Embedder(nn.Module):
    """Token ids [batch, time], lengths [batch] -> vectors [batch, width] of length 1."""

    def __init__(self, encoder: nn.Module, pooling: Pooling, folder: Path) -> None:
        super().__init__()
        self.encoder = encoder
        self.pools = pooling.pools
        self.layers = nn.ModuleList(_layer(dense, folder) for dense in pooling.layers)

    def forward(self, input_ids: Tensor, length: Tensor) -> Tensor:
        """Rows are right-padded; what stands behind a row's length changes nothing."""
        real = torch.arange(input_ids.shape[1]) < length[:, None]
        hidden = self.encoder(input_ids=input_ids, attention_mask=real.long()).last_hidden_state
        vector = torch.cat([pool(each, hidden, real, length) for each in self.pools], dim=-1)
        for layer in self.layers:
            vector = layer(vector)
        return functional.normalize(vector, dim=-1)


class Classifier(nn.Module):
    """Token ids [batch, time], lengths [batch] -> probabilities [batch, classes]."""

    def __init__(self, model: nn.Module, *, exclusive: bool) -> None:
        super().__init__()
        self.model = model
        self.exclusive = exclusive

    def forward(self, input_ids: Tensor, length: Tensor) -> Tensor:
        """Rows are right-padded. Classes that do not exclude each other have a probability each."""
        real = torch.arange(input_ids.shape[1]) < length[:, None]
        logits: Tensor = self.model(input_ids=input_ids, attention_mask=real.long()).logits
        return logits.softmax(-1) if self.exclusive else logits.sigmoid()


def pool(kind: Pool, hidden: Tensor, real: Tensor, length: Tensor) -> Tensor:
    """One vector [batch, width] of token vectors [batch, time, width], of which those marked `real` count."""
    if kind == "cls":
        return hidden[:, 0]
    if kind == "lasttoken":
        last = (length.long() - 1)[:, None, None].expand(-1, 1, hidden.shape[-1])
        return hidden.gather(1, last)[:, 0]
    seen = real[..., None]
    if kind == "max":
        return hidden.masked_fill(~seen, -torch.inf).amax(1)
    count = length[:, None].to(hidden.dtype)
    total = hidden.masked_fill(~seen, 0).sum(1)
    return total / (count if kind == "mean" else count.sqrt())


def _layer(dense: Dense, folder: Path) -> nn.Module:
    linear = nn.Linear(dense.inputs, dense.outputs, bias=dense.bias)
    tensors = load_file(folder / dense.path / "model.safetensors")
    linear.load_state_dict({name.removeprefix("linear."): value for name, value in tensors.items()})
    return nn.Sequential(linear, getattr(nn, dense.activation)())


def module(folder: Path) -> nn.Module:
    """The module of a directory, with its weights."""
    directory = read_directory(folder)
    # Not the fused attention: it exports to what checks for rows without any token, at every layer.
    settings: dict[str, Any] = {
        "attn_implementation": "eager",
        "dtype": torch.float32,
        "local_files_only": True,
    }
    if directory.architecture.endswith(CLASSIFIER):
        model = AutoModelForSequenceClassification.from_pretrained(folder, **settings)
        return Classifier(model, exclusive=exclusive(directory))
    extra = {} if directory.model_type in {"distilbert", "electra"} else {"add_pooling_layer": False}
    return Embedder(AutoModel.from_pretrained(folder, **settings, **extra), read_pooling(folder), folder)


def cases(folder: Path) -> list[Case]:
    """Random tokens in rows of different lengths; the padding is random as well, because it must not matter."""
    directory = read_directory(folder)
    generator = np.random.default_rng(0)
    vocabulary, padding = int(directory.config["vocab_size"]), int(directory.config.get("pad_token_id") or 0)
    rows = [*_ROWS, (positions(directory),)]
    return [_case(generator, lengths, vocabulary, padding) for lengths in rows]


def _case(generator: np.random.Generator, lengths: Sequence[int], vocabulary: int, padding: int) -> Case:
    ids = generator.integers(0, vocabulary - 1, (len(lengths), max(lengths)))
    ids += ids >= padding  # the padding token, which some families give no position, is no part of any text
    return {"input_ids": ids, "length": np.array(lengths, np.int32)}
