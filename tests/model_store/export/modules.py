"""Tiny modules that the export tests turn into graphs: honest ones, and ones that must not be published."""

import sys
import warnings
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn


class Autoencoder(nn.Module):
    """Images [batch, 1, 8, 8] to a latent [batch, 4] and back, convolutions from end to end."""

    def __init__(self) -> None:
        """Make one whose weights are always the same."""
        super().__init__()
        torch.manual_seed(0)
        self.down = nn.Conv2d(1, 4, 8)
        self.up = nn.ConvTranspose2d(4, 1, 8)

    def encode(self, images: Tensor) -> Tensor:
        """Map images to latents."""
        return torch.tanh(self.down(images)).flatten(1)

    def decode(self, latent: Tensor) -> Tensor:
        """Map latents to images in [0, 1]."""
        return torch.sigmoid(self.up(latent[:, :, None, None]))

    def forward(self, images: Tensor) -> Mapping[str, Tensor]:
        """Reconstruct; the mapping's order is not the declared one."""
        latent = self.encode(images)
        return {"latent": latent, "reconstruction": self.decode(latent)}


class Decoder(nn.Module):
    """The other half of `Autoencoder` as a module of its own."""

    def __init__(self) -> None:
        """Make one whose weights are those of the whole."""
        super().__init__()
        self.up = Autoencoder().up

    def forward(self, latent: Tensor) -> Tensor:
        """Map latents to images in [0, 1]."""
        return torch.sigmoid(self.up(latent[:, :, None, None]))


class Inferred(NamedTuple):
    """What Anomalib's modules return."""

    pred_score: Tensor | None = None
    pred_label: Tensor | None = None
    anomaly_map: Tensor | None = None
    pred_mask: Tensor | None = None


class Detector(nn.Module):
    """Scores images [batch, 1, 8, 8] by their lightest pixel, as Anomalib's modules do."""

    def forward(self, images: Tensor) -> Inferred:
        """Return scores, labels and a map."""
        score = images.amax(dim=(-2, -1))
        return Inferred(pred_score=score, pred_label=score > 0.5, anomaly_map=images)


class Recurrent(nn.Module):
    """Token ids [batch, time] and a state to the most probable next tokens and the new state."""

    def __init__(self) -> None:
        """Make one whose weights are always the same."""
        super().__init__()
        torch.manual_seed(1)
        self.embedding = nn.Embedding(16, 8)
        self.cell = nn.LSTM(8, 12, num_layers=2, batch_first=True)
        self.head = nn.Linear(12, 16)

    def forward(self, ids: Tensor, hidden: Tensor, memory: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Map ids i64 [batch, time] and states [batch, layers, 12] to tokens i64 [batch, time] and states."""
        state = (hidden.transpose(0, 1).contiguous(), memory.transpose(0, 1).contiguous())
        values, (hidden, memory) = self.cell(self.embedding(ids), state)
        return self.head(values).argmax(-1), hidden.transpose(0, 1), memory.transpose(0, 1)


class Attention(nn.Module):
    """Causal self-attention over a cache [batch, 2, 16, 8]: GroupQueryAttention when exported, plain in eager torch."""

    def forward(
        self, x: Tensor, past_key: Tensor, past_value: Tensor, last: Tensor, total: Tensor
    ) -> list[Tensor]:
        """Attend with x [batch, time, 32] as queries, its halves as keys and values, after `last + 1 - time` tokens."""
        key, value = x[..., :16], x[..., 16:]
        if torch.onnx.is_in_onnx_export():
            return list(_grouped(x, key, value, past_key, past_value, last, total))
        batch, time, _ = x.shape
        places = last[:, None].long() + 1 - time + torch.arange(time)
        keys = _stored(past_key, key, places)
        values = _stored(past_value, value, places)
        seen = torch.arange(16) <= places[:, :, None]
        mixed = nn.functional.scaled_dot_product_attention(
            x.view(batch, time, 4, 8).transpose(1, 2), keys, values, attn_mask=seen[:, None], enable_gqa=True
        )
        return [mixed.transpose(1, 2).flatten(2), keys, values]


def _grouped(x: Tensor, key: Tensor, value: Tensor, *rest: Tensor) -> tuple[Tensor, ...]:
    return tuple(
        torch.onnx.ops.symbolic_multi_out(
            "com.microsoft::GroupQueryAttention",
            [x, key, value, *rest],
            attrs={"num_heads": 4, "kv_num_heads": 2},
            dtypes=[x.dtype] * 3,
            shapes=[x.shape, rest[0].shape, rest[1].shape],
            version=1,
        )
    )


def _stored(past: Tensor, new: Tensor, places: Tensor) -> Tensor:
    heads = new.view(*new.shape[:2], 2, 8).transpose(1, 2)
    return past.scatter(2, places[:, None, :, None].expand_as(heads), heads)


def attention_cases() -> list[dict[str, np.ndarray]]:
    """Prefill of two lengths at batch 1, then one token for two rows of different lengths."""
    generator = np.random.default_rng(0)
    cases = []
    for lengths, time in (((3,), 3), ((5,), 5), ((4, 9), 1)):
        past = np.zeros((2, len(lengths), 2, 16, 8), np.float32)
        for row, length in enumerate(lengths):
            past[:, row, :, : length - time] = generator.standard_normal((2, 2, length - time, 8))
        cases.append(
            {
                "x": generator.standard_normal((len(lengths), time, 32)).astype(np.float32),
                "past_key": past[0],
                "past_value": past[1],
                "last": np.array(lengths, np.int32) - 1,
                "total": np.array(max(lengths), np.int32),
            }
        )
    return cases


class Liar(nn.Module):
    """Computes something else when it is exported, for one element."""

    def forward(self, values: Tensor) -> Tensor:
        """Map values [batch, 3] to twice the values."""
        if torch.onnx.is_in_onnx_export():
            return values * torch.tensor([2.0, 2.5, 2.0])
        return values * 2.0


class Frozen(nn.Module):
    """Decides on the length of its input in Python, so tracing keeps one of the two ways."""

    def forward(self, values: Tensor) -> Tensor:
        """Map values [batch, time] to their sums, of short inputs only in part."""
        return values.sum(1) if values.shape[1] > 5 else values[:, :2].sum(1)


class Broken(nn.Module):
    """Fails on any input."""

    def forward(self, values: Tensor) -> Tensor:
        """Multiply what cannot be multiplied."""
        return values @ torch.zeros(99, 1)


class Noisy(nn.Module):
    """Warns and prints."""

    def forward(self, values: Tensor) -> Tensor:
        """Return values [batch, 3], loudly."""
        warnings.warn("be careful", stacklevel=1)
        sys.stdout.write("look at me\n")
        return values


def not_a_module() -> dict[str, int]:
    """Return something that cannot be exported."""
    return {"a": 1}
