"""Runs a drafted graph's module in eager torch, on the inputs that an export would compare it on."""

from pkgutil import resolve_name

import numpy as np
import torch
from safetensors.torch import load_model
from torch import nn

from model_store.export.cases import Case, bind, check_cases, random_cases
from model_store.export.draft import GraphDraft


def run_drafted(graph: GraphDraft) -> list[Case]:
    """Compute every case with the draft's weights, by output name; fail unless inputs and outputs are as declared."""
    module = resolve_name(graph.factory)().eval()
    assert isinstance(module, nn.Module)
    assert graph.weights is not None
    load_model(module, graph.weights, strict=True)
    cases = random_cases(graph)
    check_cases(graph, cases)
    return [_run(module, graph, case) for case in cases]


@torch.no_grad()
def _run(module: nn.Module, graph: GraphDraft, case: Case) -> Case:
    result = getattr(module, graph.method)(*(torch.from_numpy(case[each.name]) for each in graph.inputs))
    values = [result] if isinstance(result, torch.Tensor) else list(result)
    outputs = {each.name: value.numpy() for each, value in zip(graph.outputs, values, strict=True)}
    bind((*graph.inputs, *graph.outputs), case | outputs)
    assert all(np.isfinite(each).all() for each in outputs.values())
    return outputs
