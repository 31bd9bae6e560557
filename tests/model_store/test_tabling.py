import json
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from model_store.manifest import Manifest
from model_store.store import Store
from model_store.tabling import Series, Table
from tests.records import AGE, COLOUR, series, table


def described(store: Path, name: str) -> dict[str, Any]:
    return Store(str(store)).open(name).manifest.model_dump()


def refused(fields: dict[str, Any]) -> str:
    with pytest.raises(ValidationError) as error:
        Manifest.model_validate(fields)
    return str(error.value)


def test_a_table_has_a_column_for_each_number_and_category() -> None:
    unknown = {**COLOUR, "unknown": True}
    assert Table.model_validate_json(_json(features=[AGE, COLOUR])).columns == 4
    assert Table.model_validate_json(_json(features=[AGE, unknown])).columns == 5


def _json(**fields: Any) -> str:
    return json.dumps(fields)


@pytest.mark.parametrize(
    "features",
    [
        [],
        [AGE, AGE],
        [{**AGE, "minimum": 200.0}],
        [{**AGE, "deviation": 0.0}],
        [{**COLOUR, "categories": []}],
        [{**COLOUR, "categories": ["red", "red"]}],
        [{**COLOUR, "kind": "colour"}],
    ],
    ids=str,
)
def test_what_is_no_table(features: list[dict[str, Any]]) -> None:
    with pytest.raises(ValidationError):
        Table.model_validate_json(_json(features=features))


@pytest.mark.parametrize(
    "fields",
    [
        {"window": 4, "hop": 5},
        {"window": 65_537},
        {"window": 0},
        {"window": 4, "channels": [{"name": "a"}, {"name": "a"}]},
        {"window": 4, "alarms": {"hysteresis": 1.0}},
        {"window": 4, "merge": "last"},
    ],
    ids=str,
)
def test_what_is_no_series(fields: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        Series.model_validate_json(_json(**{"channels": [{"name": "a"}], **fields}))


def test_graphs_take_what_the_manifest_reads(tmp_path: Path) -> None:
    table(tmp_path)
    series(tmp_path)
    rows, windows = described(tmp_path, "tiny-table"), described(tmp_path, "tiny-series")
    assert Manifest.model_validate(rows)
    assert "'input' has rows of [5], not [4]" in refused({**rows, "table": {"features": (AGE, _shorter())}})
    wider = {**windows["series"], "window": 5}
    assert "'input' has rows of [4, 1], not [5, 1]" in refused({**windows, "series": wider})
    assert "pictures, or table rows, or series" in refused({**rows, "series": windows["series"]})


def _shorter() -> dict[str, Any]:
    return {**COLOUR, "categories": ("red", "green", "blue")}


def test_to_impute_takes_known(tmp_path: Path) -> None:
    table(tmp_path, known=False, capabilities=["reconstruct"])
    fields = described(tmp_path, "tiny-table")
    assert "with an input 'known'" in refused({**fields, "capabilities": ("impute",)})
