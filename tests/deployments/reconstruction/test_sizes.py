"""Pictures of any size, as a manifest says that they reach the model."""

import json
from pathlib import Path

import numpy as np
import pytest
from pydantic import ValidationError

from deployments.errors import BadRequest
from deployments.messages import Array, ImageItem, Score
from deployments.pictures import encode
from model_store.manifest import Manifest
from tests import packages
from tests.deployments.conftest import Opened


def png(height: int, width: int, bright: float) -> ImageItem:
    return ImageItem(encode(np.full((1, height, width), bright, np.float32)))


SIZES = [(8, 8), (5, 30), (64, 64), (5, 30), (1, 1)]


@pytest.mark.parametrize("mode", ["stretch", "crop", "pad", "keep"])
async def test_pictures_of_mixed_sizes_share_a_request(tmp_path: Path, mode: str) -> None:
    packages.scorer(tmp_path, mapped=True, mode=mode, largest=32)
    opened = Opened(tmp_path, {"models": ("tiny-score",)})
    try:
        items = tuple(png(*size, place / 5) for place, size in enumerate(SIZES))
        outputs = (await opened.studio.call(Score("tiny-score", items, map=True, map_numbers=True))).outputs
        shapes = [each.map.shape for each in outputs if isinstance(each.map, Array)]
        assert shapes == ([(8, 8), (5, 30), (32, 32), (5, 30), (1, 1)] if mode == "keep" else [(8, 8)] * 5)
        if mode != "pad":  # what is added is black
            assert [each.score for each in outputs] == pytest.approx(
                [k / 5 - 0.5 for k in range(5)], abs=0.01
            )
        card = (await opened.studio.cards())[0]
        assert card.limits["resize"] == mode
        assert card.limits.get("largest_side") == (32 if mode == "keep" else None)
    finally:
        opened.studio.close()


async def test_where_other_sizes_are_refused_the_item_is_named(tmp_path: Path) -> None:
    packages.scorer(tmp_path, mode="refuse")
    opened = Opened(tmp_path, {"models": ("tiny-score",)})
    try:
        with pytest.raises(BadRequest) as error:
            await opened.studio.call(Score("tiny-score", (png(8, 8, 0), png(8, 9, 0))))
        assert (error.value.code, error.value.param) == ("invalid_size", "input[1].image")
    finally:
        opened.studio.close()


def test_graphs_read_the_pictures_that_the_manifest_tells_of(tmp_path: Path) -> None:
    fixed, kept = packages.scorer(tmp_path), packages.scorer(tmp_path, name="kept", mode="keep")
    for package, resize in ((fixed, {"mode": "keep"}), (kept, {"mode": "crop"})):
        fields = json.loads((package / "model.json").read_text())
        fields["image"]["resize"] = resize
        with pytest.raises(ValidationError, match="'input' takes"):
            Manifest.model_validate_json(json.dumps(fields))
