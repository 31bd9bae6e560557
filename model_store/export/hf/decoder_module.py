"""A transformers decoder as the step that serves it: its own forward code, with attention and norms as one ONNX node each.

Attention comes in through transformers' attention interface, so every family that uses it is exported by the same lines.
GroupQueryAttention turns queries and keys itself where the model's rotation is one it knows; else the rotation stays in the
graph. Knows no files and no runtime. A module is changed for good: compute what it must give before.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, cast

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, PreTrainedModel
from transformers.pytorch_utils import Conv1D

from model_store.export.errors import GraphFailed
from model_store.export.hf.rotary import Tables, turn_inside

NAME: Final = "atelier"
NODE: Final = "com.microsoft::GroupQueryAttention"
HEAD_STEP: Final = 8


@dataclass(frozen=True)
class Layer:
    """One attention layer's cache [batch, kv_heads, cache, head_dim]."""

    kv_heads: int
    head_dim: int


@dataclass
class Run:
    """What the attention layers of one forward call share."""

    past: Sequence[Tensor] = ()
    lengths: Sequence[Tensor] = ()
    select: Tensor | None = None
    rotation: Tables | None = None
    present: dict[int, tuple[Tensor, Tensor]] = field(default_factory=dict)


class Step(nn.Module):
    """New tokens of each row and its cache -> logits [batch, selected, vocabulary] and the cache with them.

    `layers` describes the caches, in the order of the layers; `vocabulary` counts the logits. Raises GraphFailed for a model whose layers are not all
    causal attention through transformers' interface.
    """

    def __init__(self, model: PreTrainedModel, context: int) -> None:
        super().__init__()
        self.model = model
        self.layers = probe(model)
        self._run = Run()
        simplify(model)
        turn_inside(model, context, self.rotation)
        head = cast("Callable[[], nn.Module | None]", model.get_output_embeddings)()
        if head is None:
            raise GraphFailed(f"{type(model).__name__} has no language model head")
        self.vocabulary = int(cast("Tensor", head.weight).shape[0])
        head.register_forward_pre_hook(self._selected)
        AttentionInterface.register(NAME, self._attend)
        model.set_attn_implementation(NAME)

    def forward(
        self,
        input_ids: Tensor,
        select: Tensor,
        seqlens_k: Tensor,
        total_sequence_length: Tensor,
        *past: Tensor,
    ) -> tuple[Tensor, ...]:
        """`past` holds the layers' keys and values in turn. Several new tokens on top of a past need batch 1."""
        run = self._run = Run(past, (seqlens_k, total_sequence_length), select)
        time = input_ids.shape[1]
        # A right-padded row of a first prompt is shorter than `time`: its positions start at 0 all the same.
        start = (seqlens_k.long() + 1 - time).clamp(min=0)
        positions = start[:, None] + torch.arange(time)
        output = self.model(input_ids=input_ids, position_ids=positions, use_cache=False)
        present = [each for layer in range(len(self.layers)) for each in run.present[layer]]
        return (output.logits.float(), *present)

    def rotation(self, tables: Tables | None) -> None:
        """The rotation that the next attention layer is to make."""
        self._run.rotation = tables

    def _selected(self, _: nn.Module, arguments: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """Only the selected positions reach the head."""
        (hidden,) = arguments
        select = cast("Tensor", self._run.select)
        shape = (*select.shape, hidden.shape[-1])
        places = [hidden, select[..., None]]
        return (
            torch.onnx.ops.symbolic(
                "GatherND", places, {"batch_dims": 1}, dtype=hidden.dtype, shape=shape, version=13
            ),
        )

    def _attend(
        self,
        module: nn.Module,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        _: Tensor | None,
        **settings: Any,
    ) -> tuple[Tensor, None]:
        """One layer over [batch, heads, time, head_dim] as one node; -> [batch, time, heads, head_dim]."""
        run, layer = self._run, cast("int", module.layer_idx)
        batch, heads, time, head_dim = query.shape
        past = run.past[2 * layer], run.past[2 * layer + 1]
        flat = [each.transpose(1, 2).reshape(batch, time, -1) for each in (query, key, value)]
        inputs = [*flat, *past, *run.lengths]
        attributes = _attributes(module, settings) | {"num_heads": heads, "kv_num_heads": key.shape[1]}
        if run.rotation is not None:
            inputs += [run.rotation.cos, run.rotation.sin]
            attributes |= {"do_rotary": 1, "rotary_interleaved": int(run.rotation.interleaved)}
            run.rotation = None
        mixed, *present = torch.onnx.ops.symbolic_multi_out(
            NODE,
            inputs,
            attributes,
            dtypes=[query.dtype] * 3,
            shapes=[flat[0].shape, *(each.shape for each in past)],
            version=1,
        )
        run.present[layer] = (present[0], present[1])
        return mixed.view(batch, time, heads, head_dim), None


def _attributes(module: nn.Module, settings: Mapping[str, Any]) -> dict[str, Any]:
    scaling = settings.get("scaling")
    attributes: dict[str, Any] = {
        "scale": float(cast("float", module.scaling) if scaling is None else scaling)
    }
    if settings.get("softcap"):
        attributes["softcap"] = float(settings["softcap"])
    if settings.get("sliding_window"):
        attributes["local_window_size"] = int(settings["sliding_window"])
    return attributes


def probe(model: PreTrainedModel) -> list[Layer]:
    """Run two tokens through the model to see which layers attend, and over what."""
    found: dict[int, Layer] = {}

    def look(
        module: nn.Module, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, **settings: Any
    ) -> tuple[Tensor, None]:
        layer = getattr(module, "layer_idx", None)
        if layer is None or layer in found:
            raise GraphFailed(
                f"{type(module).__name__} attends without a layer of its own to keep keys and values in"
            )
        if key.shape != value.shape or mask is not None or settings.get("s_aux") is not None:
            raise GraphFailed(
                f"{type(module).__name__} attends in a way that GroupQueryAttention does not know"
            )
        if key.shape[3] % HEAD_STEP:
            raise GraphFailed(
                f"its heads are {key.shape[3]} wide; GroupQueryAttention takes multiples of {HEAD_STEP}"
            )
        found[layer] = Layer(key.shape[1], key.shape[3])
        return torch.zeros_like(query.transpose(1, 2)), None

    AttentionInterface.register(NAME, look)
    try:
        model.set_attn_implementation(NAME)
        with torch.no_grad():
            model(input_ids=torch.zeros(1, 2, dtype=torch.long), use_cache=False)
    except (ValueError, NotImplementedError) as error:
        raise GraphFailed(f"{type(model).__name__} does not take attention from outside: {error}") from error
    count = model.config.get_text_config().num_hidden_layers
    if sorted(found) != list(range(count)):
        raise GraphFailed(
            f"{len(found)} of the {count} layers of {type(model).__name__} attend through transformers' attention interface, "
            "where all must: its state cannot be kept"
        )
    return [found[layer] for layer in range(count)]


# -- simpler parts, same numbers ------------------------------------------------------------------------------------------


def simplify(model: nn.Module) -> None:
    """Replace parts that would become many nodes by ones that become one."""
    for module in list(model.modules()):
        for name, child in list(module.named_children()):
            if isinstance(child, Conv1D):
                setattr(module, name, _linear(child))
            elif type(child).__name__ in {"NewGELUActivation", "FastGELUActivation", "GELUTanh"}:
                setattr(module, name, nn.GELU(approximate="tanh"))
            elif type(child).__name__.endswith("RMSNorm"):
                setattr(module, name, _norm(child))


def _linear(module: nn.Module) -> nn.Linear:
    """GPT-2's transposed linear layer."""
    weight, bias = cast("Tensor", module.weight), cast("Tensor", module.bias)
    linear = nn.Linear(weight.shape[0], weight.shape[1], dtype=weight.dtype)
    linear.weight, linear.bias = nn.Parameter(weight.detach().t().contiguous()), nn.Parameter(bias.detach())
    return linear


class Norm(nn.Module):
    """x / sqrt(mean(x^2) + epsilon) * scale over the last axis, in float32."""

    def __init__(self, scale: Tensor, epsilon: float) -> None:
        super().__init__()
        self.scale = nn.Parameter(scale)
        self.epsilon = epsilon

    def forward(self, x: Tensor) -> Tensor:
        """As one node in an exported graph."""
        if not torch.onnx.is_in_onnx_export():
            wide = x.float()
            return (
                wide * (wide.pow(2).mean(-1, keepdim=True) + self.epsilon).rsqrt() * self.scale.float()
            ).to(x.dtype)
        attributes: dict[str, Any] = {"axis": -1, "epsilon": self.epsilon, "stash_type": 1}
        return torch.onnx.ops.symbolic(
            "SimplifiedLayerNormalization",
            [x, self.scale],
            attributes,
            dtype=x.dtype,
            shape=x.shape,
            version=1,
        )


def _norm(module: nn.Module) -> nn.Module:
    """The same norm as one node if it is one: scaled by its weight, or by one more (Gemma); else the module itself."""
    epsilon = next(
        (getattr(module, name) for name in ("variance_epsilon", "eps", "epsilon") if hasattr(module, name)),
        None,
    )
    weight = getattr(module, "weight", None)
    if not isinstance(weight, Tensor) or weight.ndim != 1 or epsilon is None:
        return module
    sample = torch.randn(4, len(weight), generator=torch.Generator().manual_seed(0)).to(weight.dtype)
    with torch.no_grad():
        expected = module(sample)
        for scale in (weight.detach(), 1 + weight.detach()):
            norm = Norm(scale, float(epsilon))
            if torch.allclose(
                norm(sample).float(), expected.float(), rtol=1e-2 if weight.dtype != torch.float32 else 1e-5
            ):
                return norm
    return module
