from pathlib import Path

import pytest

from model_store.export.cases import check_cases, only
from model_store.export.sampled import unsampled
from model_store.zoo import shakespeare_gpt, tldr_gpt, transformer_graph
from model_store.zoo.transformer import Config


@pytest.mark.parametrize("config", [shakespeare_gpt.SIZES, tldr_gpt.SIZES], ids=["shakespeare", "tldr"])
def test_cases_fit_the_graph_move_every_dimension_and_reach_the_caches_last_place(config: Config) -> None:
    graph = unsampled(transformer_graph.step("recipe", Path("unused"), config))
    cases = transformer_graph.cases(config)
    check_cases(graph, [only(graph.inputs, case) for case in cases])
    assert max(int(case["seqlens_k"].max()) for case in cases) == config.context - 1


def test_a_graph_names_what_its_recipe_has() -> None:
    graph = transformer_graph.step(shakespeare_gpt.__name__, Path("w"), shakespeare_gpt.SIZES)
    assert graph.factory == "model_store.zoo.shakespeare_gpt:step_module"
    assert graph.cases == "model_store.zoo.shakespeare_gpt:cases"


def test_each_layer_has_keys_and_values_written_in_place() -> None:
    states = transformer_graph.states(shakespeare_gpt.SIZES)
    assert len(states) == 2 * shakespeare_gpt.SIZES.layers
    assert all(state.in_place and state.shape == (2, "cache", 64) for state in states)
