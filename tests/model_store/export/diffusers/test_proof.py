"""What `export` makes of the figures that the comparing process leaves. The process itself is seen at work in `test_layouts`."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from model_store.export import graph_process
from model_store.export.diffusers.proof import prove, read_job, write_figures
from model_store.export.diffusers.proof_process import scheduler_of
from model_store.export.errors import GraphFailed, ParityError
from model_store.export.parity import Figure
from model_store.export.witness import Witness
from model_store.imaging import Betas, Denoise
from model_store.package import Package

BETAS = Betas(schedule="scaled_linear", start=0.00085, end=0.012, zero_snr=True)


def compare(
    monkeypatch: pytest.MonkeyPatch, folder: Path, figures: list[Figure], status: int = 0
) -> list[Figure]:
    def watch(command: list[str], stderr: int, on_stage: Callable[[str], None]) -> int:
        job = read_job(Path(command[-1]))
        assert (job.directory, job.package, job.exact, job.rounded) == (folder, folder, True, False)
        write_figures(Path(command[-1]), figures)
        return status

    told = list[Figure]()
    monkeypatch.setattr(graph_process, "watch", watch)
    package = Package(folder, None)  # type: ignore[arg-type]  # only where it lies is told
    prove(folder, package, Witness(figure=told.append), exact=True, rounded=False)
    return told


def test_figures_are_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    figures = [Figure("denoise", "picture", 1, 1e-6, 1e-2), Figure("denoise", "rows", 3, 0.0, 1e-3)]

    assert compare(monkeypatch, tmp_path, figures) == figures


@pytest.mark.parametrize("error", [0.5, float("nan")])
def test_another_picture_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, error: float) -> None:
    figures = [Figure("denoise", "picture after 4 steps", 1, error, 1e-2)]

    with pytest.raises(ParityError, match=r"picture after 4 steps: an error of .* where 1e-02 is allowed"):
        compare(monkeypatch, tmp_path, figures)


def test_a_process_that_ends_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with pytest.raises(GraphFailed, match="killed by signal 9"):
        compare(monkeypatch, tmp_path, [], status=-9)


@pytest.mark.parametrize(
    ("fields", "name", "config"),
    [
        ({"prediction": "velocity", "solvers": ("euler",), "spacing": "even", "shift": 3.0}, "FlowMatchEuler", {"shift": 3.0}),
        ({"prediction": "velocity", "solvers": ("heun",), "spacing": "trained"}, "FlowMatchHeun", {"shift": 1.0}),
        ({"solvers": ("ddim",), "clip": 2.0, "to_clean": False}, "DDIM", {"clip_sample": True, "clip_sample_range": 2.0, "set_alpha_to_one": False}),
        ({"solvers": ("euler",), "offset": 1}, "EulerDiscrete", {"steps_offset": 1, "timestep_spacing": "trailing"}),
        ({"solvers": ("dpm",)}, "DPMSolverMultistep", {"rescale_betas_zero_snr": True, "beta_end": 0.012, "prediction_type": "v_prediction"}),
    ],
)  # fmt: skip
def test_a_manifest_is_stepped_by_diffusers(
    fields: dict[str, Any], name: str, config: dict[str, Any]
) -> None:
    common = (
        {"prediction": "v_prediction", "spacing": "trailing", "betas": BETAS}
        if "prediction" not in fields
        else {}
    )

    found = scheduler_of(Denoise(**{**common, **fields}))

    assert type(found).__name__.startswith(name)
    assert {key: found.config[key] for key in config} == config
