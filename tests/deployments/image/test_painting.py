from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from deployments.errors import BadRequest
from deployments.image.painting import Painter, plan_of, spread
from model_store.imaging import Denoise
from tests.deployments.image.conftest import OpenEasel


@pytest.fixture
def painter(easel: OpenEasel) -> Painter:
    return easel("sized-flow").painter


@pytest.mark.parametrize(
    ("settings", "code", "param"),
    [
        ({"steps": 0}, "invalid_steps", "steps"),
        ({"steps": -3}, "invalid_steps", "steps"),
        ({"steps": 10_000}, "invalid_steps", "steps"),
        ({"guidance": float("nan")}, "invalid_guidance", "guidance_scale"),
        ({"guidance": 0.0}, "invalid_guidance", "guidance_scale"),
        ({"guidance": float("inf")}, "invalid_guidance", "guidance_scale"),
        ({"guidance": 10.5}, "invalid_guidance", "guidance_scale"),
        ({"solver": "ddim"}, "invalid_solver", "solver"),
        ({"size": (8, 16)}, "invalid_size", "size"),
        ({"size": (0, 0)}, "invalid_size", "size"),
    ],
)
def test_what_the_model_cannot_is_refused_by_its_field(
    painter: Painter, easel: OpenEasel, settings: dict[str, Any], code: str, param: str
) -> None:
    with pytest.raises(BadRequest) as refused:
        painter.paintings(easel().label(0), **settings)
    assert (refused.value.code, refused.value.param) == (code, param)


def test_a_model_that_cannot_be_guided_says_so(easel: OpenEasel) -> None:
    model = easel("unguided-flow")
    with pytest.raises(BadRequest, match="cannot be guided"):
        model.request(guidance=2.0)
    assert model.request(guidance=1.0)


def test_defaults_are_the_models(painter: Painter, easel: OpenEasel) -> None:
    (work,) = painter.paintings(easel().label(0))
    assert work.plan is plan_of(painter.denoise, "euler", 4)
    assert (work.shape, work.pixels, work.guidance, work.without) == ((3, 8, 8), 64, 1.0, None)


def test_cost_counts_evaluations_and_pairs(painter: Painter, easel: OpenEasel) -> None:
    label, none = easel().label(0), easel().label(3)
    (plain,) = painter.paintings(label, none, steps=6)
    (guided,) = painter.paintings(label, none, steps=6, guidance=2.0)
    (heun,) = painter.paintings(label, none, steps=6, solver="heun")
    (wide,) = painter.paintings(label, none, steps=6, size=(16, 8))
    assert plain.cost == 64 * 6
    assert guided.cost == wide.cost == 2 * plain.cost
    assert heun.cost == 64 * 11


def test_a_latent_may_be_smaller_than_its_picture(easel: OpenEasel) -> None:
    (work,) = easel("latent-flow").request()
    assert (work.shape, work.pixels) == ((3, 4, 4), 64)


def test_noise_depends_on_seed_and_place_alone(painter: Painter, easel: OpenEasel) -> None:
    label = easel().label(0)
    three = painter.paintings(label, n=3, seed=7)
    (long,) = painter.paintings(easel().label(1), seed=7, steps=30)
    assert (three[0].begin() == long.begin()).all()
    assert len({work.begin().tobytes() for work in three}) == 3
    (other,) = painter.paintings(label, seed=8)
    assert (other.begin() != three[0].begin()).any()
    assert three[0].begin().dtype == np.float32


@given(st.integers(0, 10), st.integers(1, 100))
def test_previews_are_spread_over_the_steps(previews: int, steps: int) -> None:
    shown = spread(previews, steps)
    assert len(shown) == previews if steps > 2 * previews else len(shown) <= previews
    assert all(0 < step < steps for step in shown)


def test_plans_follow_the_manifest() -> None:
    """Stable Diffusion's grid, by each of its solvers; and a flow's."""
    diffusion = Denoise.model_validate_json(
        '{"prediction": "epsilon", "solvers": ["ddim", "euler", "dpm"], "spacing": "leading", "offset": 1,'
        ' "betas": {"schedule": "scaled_linear", "start": 0.00085, "end": 0.012}, "to_clean": false}'
    )
    for solver, times in (
        ("ddim", [751, 501, 251, 1]),
        ("euler", [751, 501, 251, 1]),
        ("dpm", [801, 601, 401, 201]),
    ):
        assert [stage.time for stage in plan_of(diffusion, solver, 4).stages] == times
    flow = Denoise.model_validate_json(
        '{"prediction": "velocity", "solvers": ["heun", "euler"], "spacing": "even", "shift": 3.0}'
    )
    assert [round(stage.time, 3) for stage in plan_of(flow, "euler", 4).stages] == [0, 0.1, 0.25, 0.5]
    assert len(plan_of(flow, "heun", 4).stages) == 7


def test_only_models_that_paint_in_steps(easel: OpenEasel) -> None:
    manifest = easel().manifest
    assert manifest.image is not None
    still = manifest.model_copy(update={"image": manifest.image.model_copy(update={"denoise": None})})
    with pytest.raises(ValueError, match="in steps"):
        Painter(still)
