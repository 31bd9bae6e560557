import contextlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from deployments.errors import BadRequest
from deployments.messages import (
    Array,
    Calibrate,
    Decode,
    Embed,
    Encode,
    ImageItem,
    Imputed,
    Interpolate,
    Output,
    Reconstruct,
    RowItem,
    Score,
    TensorItem,
)
from deployments.reconstruction.tasks import Autoencoding
from deployments.studio import Studio
from model_store.store import Store
from tests.deployments.conftest import OpenStudio

NORMAL = RowItem({"age": 48, "income": 950.0, "colour": "red"})
POOR = RowItem({"age": 48, "income": 450.0, "colour": "red"})
AGELESS = RowItem({"age": None, "income": 950.0, "colour": "red"})


def floats(array: Array | None) -> list[float]:
    assert array is not None
    return [float(value) for value in np.frombuffer(array.data, "<f4")]


async def refused(studio: Studio, request: Any) -> BadRequest:
    with pytest.raises(BadRequest) as error:
        await studio.call(request)
    return error.value


async def scored(studio: Studio, model: str, *rows: RowItem, **options: Any) -> tuple[Output, ...]:
    return (await studio.call(Score(model, rows, **options))).outputs


# -- scores ------------------------------------------------------------------------------------------------------------


async def test_rows_are_scored(open_recorded: OpenStudio) -> None:
    opened = open_recorded("tiny-table")
    normal, poor = await scored(opened.studio, "tiny-table", NORMAL, POOR)
    # One category of three, redrawn as 3/4 and 1/4.
    assert normal.score == pytest.approx(2 * 0.25**2 / 5)
    assert poor.score == pytest.approx((5**2 + 2 * 0.25**2) / 5)
    assert (normal.is_anomaly, poor.is_anomaly, poor.contributions) == (False, True, None)
    assert opened.value("items_total", model="tiny-table") == 2


async def test_contributions_are_shares_of_the_squared_error(open_recorded: OpenStudio) -> None:
    studio = open_recorded("tiny-table").studio
    normal, poor = await scored(studio, "tiny-table", NORMAL, POOR, contributions=True)
    assert poor.contributions is not None
    assert poor.contributions == pytest.approx({"age": 0, "income": 200 / 201, "colour": 1 / 201})
    assert normal.contributions == pytest.approx({"age": 0, "income": 0, "colour": 1})
    (ageless,) = await scored(studio, "tiny-table", AGELESS, contributions=True)
    assert ageless.contributions is not None
    assert ageless.contributions["age"] == 0  # what is not known has no error


async def test_rows_calibrate_and_are_held_against_it(open_recorded: OpenStudio, tmp_path: Path) -> None:
    opened = open_recorded("tiny-table", calibrations=str(tmp_path))
    request = Calibrate("tiny-table", (NORMAL, AGELESS, POOR), labels=(False, False, True), method="f1")
    (made,) = (await opened.studio.call(request)).calibrations
    assert (made.items, made.anomalies, made.f1) == (2, 1, 1)
    normal, poor = await scored(opened.studio, "tiny-table", NORMAL, POOR, calibration=made.id)
    assert (normal.is_anomaly, poor.is_anomaly) == (False, True)
    assert poor.p_value == pytest.approx(1 / 3)
    (bad,) = (RowItem({"age": 48, "income": "much", "colour": "red"}),)
    error = await refused(opened.studio, Calibrate("tiny-table", (NORMAL, bad), method="quantile"))
    assert error.param == "input[1].features.income"
    missing = RowItem({"age": 40, "income": None, "colour": None})
    mean = RowItem({"age": 40, "income": 1000.0, "colour": None})  # the same numbers, but known
    apart = Calibrate("tiny-table", (missing, mean), labels=(False, True), method="quantile")
    await opened.studio.call(apart)
    same = Calibrate("tiny-table", (mean, mean), labels=(False, True), method="quantile")
    assert (await refused(opened.studio, same)).code == "contradictory_labels"


async def test_a_rate_of_false_discoveries_among_rows(open_recorded: OpenStudio) -> None:
    studio = open_recorded("tiny-table").studio
    normal, poor = await scored(studio, "tiny-table", NORMAL, POOR, false_discovery_rate=0.1)
    assert (normal.is_anomaly, poor.is_anomaly) == (False, True)
    assert poor.adjusted_p_value == pytest.approx(0.02)


async def test_a_graph_may_say_itself_what_contributes(open_recorded: OpenStudio) -> None:
    (output,) = await scored(open_recorded("told-table").studio, "told-table", NORMAL, contributions=True)
    assert output.contributions == {"age": 0, "income": 1, "colour": 0}


async def test_only_tables_have_contributions_and_only_series_steps(open_recorded: OpenStudio) -> None:
    studio = open_recorded("tiny-table", "tiny-ae").studio
    picture = (TensorItem([0.25] * 64),)
    assert (await refused(studio, Score("tiny-ae", picture, contributions=True))).param == "return"
    assert (await refused(studio, Score("tiny-table", (NORMAL,), steps=True))).param == "return"


def test_what_is_no_picture_and_no_tensor_has_no_map(recorded: Path) -> None:
    found = Store(str(recorded)).open("tiny-table").manifest
    graph = found.graphs["reconstruct"]
    mapped = {"latent": {"role": "error_map"}}
    outputs = tuple(each.model_copy(update=mapped.get(each.role, {})) for each in graph.outputs)
    graphs = {"reconstruct": graph.model_copy(update={"outputs": outputs})}
    for table, refusal in ((found.table, pytest.raises(BadRequest)), (None, contextlib.nullcontext())):
        rows = Autoencoding(found.model_copy(update={"graphs": graphs, "table": table}))
        with refusal:
            assert rows.error_map(picture=False) == "error_map"


# -- what rows are -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("features", "param", "code"),
    [
        ({"age": 1, "height": 2}, ".height", "unknown_parameter"),
        ({"age": "old"}, ".age", "invalid_type"),
        ({"age": True}, ".age", "invalid_type"),
        ({"age": [1]}, ".age", "invalid_type"),
        ({"age": -1}, ".age", "invalid_value"),
        ({"age": 121}, ".age", "invalid_value"),
        ({"age": float("nan")}, ".age", "invalid_value"),
        ({"income": float("nan")}, ".income", "invalid_value"),
        ({"income": 1e300}, ".income", "invalid_value"),
        ({"colour": "pink"}, ".colour", "invalid_value"),
        ({"colour": 1}, ".colour", "invalid_type"),
        ({"colour": None}, "", "invalid_value"),
        ({}, "", "invalid_value"),
    ],
    ids=str,
)
async def test_what_is_no_row_is_refused_by_its_feature(
    open_recorded: OpenStudio, features: dict[str, Any], param: str, code: str
) -> None:
    studio = open_recorded("tiny-table").studio
    error = await refused(studio, Score("tiny-table", (NORMAL, RowItem(features))))
    assert (error.param, error.code) == (f"input[1].features{param}", code)
    assert (await scored(studio, "tiny-table", NORMAL))[0].score is not None


async def test_without_known_nothing_may_be_missing(open_recorded: OpenStudio) -> None:
    studio = open_recorded("full-table").studio
    error = await refused(studio, Score("full-table", (AGELESS,)))
    assert (error.param, error.code) == ("input[0].features.age", "missing_required_parameter")
    assert (await scored(studio, "full-table", NORMAL, contributions=True))[0].contributions


async def test_a_place_for_other_categories(open_recorded: OpenStudio) -> None:
    studio = open_recorded("told-table").studio
    pink = RowItem({"age": 48, "income": 950.0, "colour": "pink"})
    (latent,) = (await studio.call(Encode("told-table", (pink,)))).outputs
    assert floats(latent.latent) == pytest.approx([0.8, -0.5, 0, 0, 0, 1])


async def test_rows_may_be_tensors_and_items_of_other_kinds_are_refused(open_recorded: OpenStudio) -> None:
    studio = open_recorded("tiny-table", "tiny-ae").studio
    row = TensorItem([0.8, -0.5, 1, 0, 0])
    tensor, named = (await studio.call(Score("tiny-table", (row, NORMAL), contributions=True))).outputs
    assert tensor == named
    (output,) = (await studio.call(Reconstruct("tiny-table", (row,)))).outputs
    assert (output.features, output.array is None) == (None, False)
    assert (await refused(studio, Score("tiny-table", (ImageItem(b"x"),)))).param == "input[0].image"
    assert (await refused(studio, Score("tiny-ae", (NORMAL,)))).param == "input[0].features"


# -- what is missing ---------------------------------------------------------------------------------------------------


async def test_every_feature_is_redrawn_in_its_own_unit(open_recorded: OpenStudio) -> None:
    studio = open_recorded("tiny-table").studio
    (output,) = (await studio.call(Reconstruct("tiny-table", (NORMAL,)))).outputs
    assert output.features is not None
    assert output.features == pytest.approx({"age": 48.0, "income": 950.0, "colour": "red"})
    assert (output.array, output.imputed) == (None, None)


def imputed(output: Output, name: str) -> Imputed:
    assert output.imputed is not None
    return output.imputed[name]


async def test_what_is_missing_is_filled_in_with_a_spread(open_recorded: OpenStudio) -> None:
    opened = open_recorded("tiny-table")
    request = Reconstruct("tiny-table", (NORMAL, AGELESS), samples=32)
    whole, output = (await opened.studio.call(request)).outputs
    assert whole.imputed is None
    assert output.imputed is not None
    assert output.imputed.keys() == {"age"}
    age = imputed(output, "age")
    assert age.value == pytest.approx(47.0)  # two features are known
    assert age.spread is not None
    # Each sample knows one or both of them, which moves age by up to a year; the model's own error is 3.
    assert 3.0 < age.spread < np.sqrt(1 + 9)
    assert opened.value("items_total", model="tiny-table") == 2
    again = (await opened.studio.call(request)).outputs[1]
    assert again == output  # the seed is 0 unless it is given
    other = (await opened.studio.call(Reconstruct("tiny-table", (AGELESS,), samples=32, seed=5))).outputs[0]
    assert imputed(other, "age").spread != age.spread


async def test_a_category_is_filled_in_with_the_chance_that_it_is_another(open_recorded: OpenStudio) -> None:
    studio = open_recorded("tiny-table").studio
    row = RowItem({"age": 48, "income": 950.0})
    (output,) = (await studio.call(Reconstruct("tiny-table", (row,)))).outputs
    assert imputed(output, "colour").value == "red"
    assert imputed(output, "colour").spread == pytest.approx(0.25)


async def test_noise_spreads_where_the_model_takes_it(open_recorded: OpenStudio) -> None:
    studio = open_recorded("noisy-table").studio
    (output,) = (await studio.call(Reconstruct("noisy-table", (AGELESS,), samples=64))).outputs
    age = imputed(output, "age")
    assert age.value == pytest.approx(47.0)  # the mean, without a seed
    assert age.spread == pytest.approx(np.sqrt(1 + 9), rel=0.1)


async def test_without_samples_there_is_no_spread(open_recorded: OpenStudio) -> None:
    studio = open_recorded("tiny-table", "tiny-ae").studio
    (output,) = (await studio.call(Reconstruct("tiny-table", (AGELESS,), samples=0))).outputs
    assert imputed(output, "age").spread is None
    error = await refused(studio, Reconstruct("tiny-ae", (TensorItem([0.25] * 64),), samples=2))
    assert error.param == "samples"
    assert (await refused(studio, Reconstruct("tiny-table", (NORMAL,), seed=1))).param == "seed"


# -- latents -----------------------------------------------------------------------------------------------------------


async def test_latents_there_and_back(open_recorded: OpenStudio) -> None:
    studio = open_recorded("tiny-table").studio
    (latent,) = (await studio.call(Encode("tiny-table", (NORMAL,)))).outputs
    (row,) = (await studio.call(Decode("tiny-table", (floats(latent.latent),)))).outputs
    assert row.features == pytest.approx({"age": 48, "income": 950, "colour": "red"})
    between = (await studio.call(Interpolate("tiny-table", NORMAL, POOR, steps=3))).outputs
    assert [output.features["income"] for output in between if output.features] == pytest.approx(
        [950, 700, 450]
    )


async def test_embeddings_are_latents_of_length_one(open_recorded: OpenStudio) -> None:
    studio = open_recorded("tiny-table", "tiny-ae").studio
    (whole,) = (await studio.call(Embed("tiny-table", (POOR,)))).outputs
    latent = np.array([0.8, -5.5, 1, 0, 0])
    assert floats(whole.array) == pytest.approx(latent / np.linalg.norm(latent), abs=1e-6)
    (short,) = (await studio.call(Embed("tiny-table", (POOR,), dimensions=2))).outputs
    assert floats(short.array) == pytest.approx(latent[:2] / np.linalg.norm(latent[:2]), abs=1e-6)
    assert (await refused(studio, Embed("tiny-table", (POOR,), dimensions=6))).param == "dimensions"
    assert (await refused(studio, Embed("tiny-table", ("text",)))).param == "input[0]"
    assert (await refused(studio, Embed("tiny-ae", (POOR,)))).code == "task_not_supported"
