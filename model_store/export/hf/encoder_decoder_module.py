"""A transformers encoder-decoder as the two graphs that serve it: `encode` reads a source once, `step` writes an answer.

The model's own forward code, with the decoder's attention brought in through transformers' attention interface: to its own
tokens by GroupQueryAttention over a cache in place, to the source by plain products over as many places as the longest
source of the batch has. Knows no files and no runtime. A step changes the model for good: compute what it must give, and
export `Encode`, before.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final, cast

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import AttentionInterface
from transformers.modeling_outputs import BaseModelOutput

from model_store.export.errors import GraphFailed
from model_store.export.hf.decoder_module import NODE, Norm, simplify

NAME: Final = "atelier-encoder-decoder"
UNSEEN: Final = -1e30
"""Added to the score of a place that holds no source. Finite: a row without a source gives numbers."""


def attentions(model: Any, *, own: bool) -> list[Any]:
    """The decoder's attention layers in order: to its own tokens, or to the source. Raises GraphFailed."""
    decoder = model.get_decoder()
    found = [each for each in decoder.modules() if hasattr(each, "layer_idx") and hasattr(each, "is_causal")]
    chosen = [each for each in found if bool(each.is_causal) == own]
    if [each.layer_idx for each in chosen] != list(range(len(chosen))) or not chosen:
        raise GraphFailed(f"the decoder of {type(model).__name__} is not made of layers that can be exported")
    return chosen


def heads_of(attention: Any) -> tuple[int, int]:
    """Number of heads and the width of one."""
    if hasattr(attention, "key_value_proj_dim"):
        return attention.n_heads, attention.key_value_proj_dim
    return attention.num_heads, attention.head_dim


class Encode(nn.Module):
    """Sources [batch, time], right-padded, and their lengths -> keys and values of every decoder layer.

    Each is [batch, heads, source, head_dim]; places behind a row's length are zero.
    """

    def __init__(self, model: Any, source: int) -> None:
        super().__init__()
        self.encoder = model.get_encoder()
        self.source = source
        self.layers = nn.ModuleList(attentions(model, own=False))

    def forward(self, input_ids: Tensor, length: Tensor) -> list[Tensor]:
        """Keys and values in turn."""
        real = torch.arange(input_ids.shape[1]) < length[:, None]
        states = self.encoder(input_ids=input_ids, attention_mask=real.long()).last_hidden_state
        found = []
        for layer in self.layers:
            for names in (("k_proj", "k"), ("v_proj", "v")):
                project = next(getattr(layer, name) for name in names if hasattr(layer, name))
                found.append(self._placed(project(states), real, *heads_of(layer)))
        return found

    def _placed(self, wide: Tensor, real: Tensor, heads: int, width: int) -> Tensor:
        batch, time, _ = wide.shape
        split = wide.masked_fill(~real[..., None], 0).view(batch, time, heads, width).transpose(1, 2)
        # Joined and cut, because an amount of padding that depends on the input is a negative one to the exporter.
        return torch.cat([split, split.new_zeros(batch, heads, self.source, width)], dim=2)[
            :, :, : self.source
        ]


@dataclass
class Run:
    """What the attention layers of one forward call share."""

    past: Sequence[Tensor] = ()
    cross: Sequence[Tensor] = ()
    lengths: Sequence[Tensor] = ()
    positions: Tensor | None = None
    select: Tensor | None = None
    bias: Tensor | None = None
    unseen: Tensor | None = None
    longest: Tensor | None = None
    present: dict[int, tuple[Tensor, Tensor]] = field(default_factory=dict)


class Step(nn.Module):
    """New tokens of each answer, its cache and its source -> logits [batch, selected, vocabulary] and the cache with them.

    `banned` tokens are never chosen: their logits are UNSEEN.
    """

    bans: Tensor

    def __init__(self, model: Any, context: int, banned: Sequence[int] = ()) -> None:
        super().__init__()
        self.model: Any = model
        self.layers = len(attentions(model, own=True))
        self._run = Run()
        head = model.get_output_embeddings()
        if head is None:
            raise GraphFailed(f"{type(model).__name__} has no language model head")
        self.banned = bool(banned)
        bans = torch.zeros(head.weight.shape[0])
        bans[list(banned)] = UNSEEN
        self.register_buffer("bans", bans)
        self.register_buffer("distances", distance_bias(model, context))
        simplify(model)
        _simplify_t5(model)
        self._place_positions()
        head.register_forward_pre_hook(self._selected)
        AttentionInterface.register(NAME, self._attend)
        model.set_attn_implementation(NAME)

    def forward(
        self,
        input_ids: Tensor,
        select: Tensor,
        seqlens_k: Tensor,
        total_sequence_length: Tensor,
        source_length: Tensor,
        *state: Tensor,
    ) -> tuple[Tensor, ...]:
        """`state` holds the layers' own keys and values in turn, then those of the source."""
        past, cross = state[: 2 * self.layers], state[2 * self.layers :]
        run = self._run = Run(past, cross, (seqlens_k, total_sequence_length), select=select)
        batch, time = input_ids.shape
        # A right-padded row of a first prompt is shorter than `time`: its positions start at 0 all the same.
        start = (seqlens_k.long() + 1 - time).clamp(min=0)
        run.positions = start[:, None] + torch.arange(time)
        run.bias = self._own_bias(total_sequence_length, past[0].shape[2])
        run.longest, run.unseen = _reach(source_length, cross[0].shape[2], past[0].shape[2])
        nothing = torch.zeros(batch, 1, self.model.config.d_model)
        output = self.model(
            encoder_outputs=BaseModelOutput(last_hidden_state=nothing),
            decoder_input_ids=input_ids,
            use_cache=False,
        )
        logits = output.logits + self.bans if self.banned else output.logits
        return (logits, *(each for layer in range(self.layers) for each in run.present[layer]))

    def _place_positions(self) -> None:
        """Let every row have positions of its own, where the decoder knows positions by a table."""
        table = getattr(self.model.get_decoder(), "embed_positions", None)
        if table is None:
            return
        offset = int(getattr(table, "offset", 0))

        def forward(*_: object, **__: object) -> Tensor:
            return functional.embedding(cast("Tensor", self._run.positions) + offset, table.weight)

        table.forward = forward

    def _own_bias(self, total: Tensor, places: int) -> Tensor | None:
        """T5's bias [batch, heads, time, total] by distance. The exporter is told that all `places` of a cache are in use."""
        distances = cast("Tensor", self.distances)
        if distances is None:
            return None
        zero, one = torch.zeros((), dtype=torch.long), torch.ones((), dtype=torch.long)
        keys = torch.onnx.ops.symbolic(
            "Range", [zero, total.long(), one], dtype=torch.long, shape=(places,), version=11
        )
        apart = (cast("Tensor", self._run.positions)[..., None] - keys).clamp(min=0)
        return distances[apart].permute(0, 3, 1, 2).contiguous()

    def _selected(self, _: nn.Module, arguments: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """Only the selected positions reach the head."""
        (hidden,) = arguments
        select = cast("Tensor", self._run.select)
        return (hidden.gather(1, select[..., None].expand(-1, -1, hidden.shape[-1])),)

    def _attend(
        self,
        module: nn.Module,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        attention_mask: Tensor | None,  # noqa: ARG002 - what is seen is known by lengths
        **settings: Any,
    ) -> tuple[Tensor, None]:
        """One layer over [batch, heads, time, head_dim] -> [batch, time, heads, head_dim]."""
        layer, scale = cast("int", module.layer_idx), float(settings["scaling"])
        if not module.is_causal:
            return self._to_source(layer, query * scale), None
        run = self._run
        batch, heads, time, width = query.shape
        past = run.past[2 * layer], run.past[2 * layer + 1]
        flat = [each.transpose(1, 2).reshape(batch, time, -1) for each in (query, key, value)]
        inputs: list[Tensor | None] = [*flat, *past, *run.lengths]
        if run.bias is not None:
            inputs += [None, None, None, run.bias]
        mixed, *present = torch.onnx.ops.symbolic_multi_out(
            NODE,
            inputs,
            {"num_heads": heads, "kv_num_heads": heads, "scale": scale},
            dtypes=[query.dtype] * 3,
            shapes=[flat[0].shape, *(each.shape for each in past)],
            version=1,
        )
        run.present[layer] = (present[0], present[1])
        return mixed.view(batch, time, heads, width), None

    def _to_source(self, layer: int, query: Tensor) -> Tensor:
        run = self._run
        longest, unseen = cast("Tensor", run.longest), cast("Tensor", run.unseen)
        places = unseen.shape[-1]
        keys, values = (_cut(each, longest, 2, places) for each in run.cross[2 * layer : 2 * layer + 2])
        scores = query @ keys.transpose(-1, -2) + unseen[:, None, None]
        mixed: Tensor = (scores.softmax(-1) @ values).transpose(1, 2)
        return mixed


def _reach(length: Tensor, source: int, places: int) -> tuple[Tensor, Tensor]:
    """Length [1] of the batch's longest source; what to add to scores [batch, places] of so many places.

    The exporter is told that there are as many as places of a cache, a number it knows nothing of.
    """
    longest = torch.onnx.ops.symbolic(
        "ReduceMax", [length.long()], {"keepdims": 1}, dtype=torch.long, shape=(1,), version=18
    )
    unseen = torch.where(torch.arange(source) < length[:, None], 0.0, UNSEEN)
    return longest, _cut(unseen, longest, 1, places)


def _cut(tensor: Tensor, end: Tensor, axis: int, places: int) -> Tensor:
    """The first `end` [1] places along an axis; copying them is far cheaper than attending to padding."""
    start, axes = torch.zeros(1, dtype=torch.long), torch.full((1,), axis)
    shape = [*tensor.shape[:axis], places, *tensor.shape[axis + 1 :]]
    return torch.onnx.ops.symbolic(
        "Slice", [tensor, start, end, axes], dtype=tensor.dtype, shape=shape, version=13
    )


def distance_bias(model: Any, context: int) -> Tensor | None:
    """T5's bias [context, heads] of a key so many tokens before its query; None for models that know positions otherwise."""
    first = attentions(model, own=True)[0]
    if not hasattr(first, "compute_bias"):
        return None
    with torch.no_grad():
        square: Tensor = first.compute_bias(context, context)  # [1, heads, query, key]
    return square[0, :, -1].flip(-1).t().contiguous()


def _simplify_t5(model: Any) -> None:
    for module in list(model.modules()):
        for name, child in list(module.named_children()):
            if type(child).__name__ in {"T5LayerNorm", "MT5LayerNorm"}:
                setattr(module, name, Norm(child.weight.detach(), float(child.variance_epsilon)))
