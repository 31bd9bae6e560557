"""The manifest's own rules, and the JSON Schema that is published of it."""

import json
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from model_store import manifest as module
from model_store.fields import RelativePath
from model_store.imaging import Betas, Denoise
from model_store.manifest import Calibration, Manifest, Measure, Name, Scoring, Tensor, Version, digest_of
from model_store.schema import json_schema
from model_store.seal import render
from model_store.store import Store
from tests import packages
from tests.flows import flow

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return packages.store(tmp_path_factory.mktemp("store"))


def fields(store: Path, name: str = "tiny-gan") -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads((store / name / "1/model.json").read_bytes())
    return loaded


# -- names and paths --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["a", "shakespeare-gpt", "llama-3.2_1b", "0", "a" * 63])
def test_names_that_fit(name: str) -> None:
    assert TypeAdapter(Name).validate_python(name) == name


@pytest.mark.parametrize(
    "name", ["", "A", "-a", ".a", "_a", "a/b", "a b", "a" * 64, "ä", "a\n", "a:1", "a\0"]
)
def test_names_that_do_not(name: str) -> None:
    with pytest.raises(ValidationError):
        TypeAdapter(Name).validate_python(name)


@pytest.mark.parametrize(
    ("adapters", "complaint"),
    [
        (["legal", "legal"], "an adapter is named twice"),
        (["2"], "should match pattern"),
        (["a:b"], "should match pattern"),
        (["legal"], "the graph 'step' does not take which adapter a row wants"),
    ],
)
def test_adapters_that_cannot_be_chosen(store: Path, adapters: list[str], complaint: str) -> None:
    changed = fields(store, "tiny-text")
    changed["text"]["adapters"] = adapters
    with pytest.raises(ValidationError, match=complaint):
        Manifest.model_validate_json(json.dumps(changed))


@pytest.mark.parametrize("version", ["0", "01", "1.0", "-1", "v1", "", "1" * 10, "1\n", "१"])
def test_versions_are_positive_numbers_without_zeros_in_front(version: str) -> None:
    with pytest.raises(ValidationError):
        TypeAdapter(Version).validate_python(version)


@given(st.text(max_size=30))
def test_no_accepted_path_leaves_its_folder(path: str) -> None:
    try:
        TypeAdapter(RelativePath).validate_python(path)
    except ValidationError:
        return
    parts = path.split("/")
    assert all(part and part[0] not in ".-" for part in parts)
    assert (Path("/package") / path).resolve().is_relative_to("/package")
    assert not {"\\", "\0", "\n", ":"} & set(path)


@given(
    st.from_regex(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,20}(/[A-Za-z0-9_][A-Za-z0-9_.-]{0,20}){0,3}", fullmatch=True)
)
def test_ordinary_paths_are_accepted(path: str) -> None:
    assert TypeAdapter(RelativePath).validate_python(path) == path


# -- strictness -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["tiny-text", "tiny-attention", "tiny-ae", "tiny-vae", "tiny-gan"])
def test_a_manifest_survives_its_own_json(store: Path, name: str) -> None:
    manifest = Store(store).manifest(name)
    assert Manifest.model_validate_json(manifest.model_dump_json()) == manifest


def test_a_manifest_cannot_be_changed(store: Path) -> None:
    with pytest.raises(ValidationError):
        Store(store).manifest("tiny-gan").name = "other"


def test_every_listed_path_is_named(store: Path) -> None:
    assert Store(store).manifest("tiny-vae").named_files() == Store(store).manifest("tiny-vae").files.keys()
    assert "tokenizer.json" in Store(store).manifest("tiny-text").named_files()


def test_a_named_file_without_a_digest_is_refused(store: Path) -> None:
    given = fields(store)
    del given["files"]["generate.onnx"], given["files"]["generate.inputs.npz"]
    with pytest.raises(
        ValidationError, match=r"files without a digest: generate\.inputs\.npz, generate\.onnx"
    ):
        Manifest.model_validate_json(json.dumps(given))


@pytest.mark.parametrize("value", [float("nan"), float("inf"), "1", True, None])
def test_a_measure_is_a_finite_number(value: object) -> None:
    with pytest.raises(ValidationError):
        Measure.model_validate({"value": value, "higher_is_better": True, "data": "x"})


@pytest.mark.parametrize("shape", [["batch", 0], ["batch", -1], [1.5], ["batch", True], [None]])
def test_sizes_are_positive_or_named(shape: list[object]) -> None:
    with pytest.raises(ValidationError):
        Tensor.model_validate_json(json.dumps({"name": "x", "role": "x", "dtype": "float32", "shape": shape}))


@pytest.mark.parametrize("costs", [{}, {"kl": 0.1, "cosine_distance": 0.1}])
def test_rounding_has_one_cost(costs: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match="either a KL divergence or a cosine distance"):
        module.Quantization(bits=8, limit=1.0, **costs)


FLOW: dict[str, Any] = {"prediction": "velocity", "solvers": ["euler"], "spacing": "even"}
BETAS = {"schedule": "linear", "start": 0.0001, "end": 0.02}
DIFFUSION: dict[str, Any] = {
    "prediction": "epsilon",
    "solvers": ["ddim"],
    "spacing": "leading",
    "betas": BETAS,
}


@pytest.mark.parametrize(
    ("given", "complaint"),
    [
        (FLOW | {"betas": BETAS}, "a flow has none"),
        (DIFFUSION | {"betas": None}, "has betas"),
        (FLOW | {"spacing": "trailing"}, "no spacing"),
        (DIFFUSION | {"spacing": "even"}, "no spacing"),
        (FLOW | {"solvers": ["dpm"]}, "not the solvers"),
        (DIFFUSION | {"solvers": ["heun"]}, "not the solvers"),
        (FLOW | {"solvers": ["euler", "euler"]}, "not the solvers"),
        (FLOW | {"solvers": []}, "at least 1"),
        (FLOW | {"steps": 30, "most_steps": 20}, "more than the most"),
        (FLOW | {"guidance": 3.0}, "more than the most"),
        (FLOW | {"guidance": 0.5}, "greater than or equal to 1"),
        (FLOW | {"shift": 0.0}, "greater than 0"),
        (DIFFUSION | {"most_steps": 1000}, "fewer steps"),
        (DIFFUSION | {"betas": BETAS | {"zero_snr": True}}, "predict v"),
        (DIFFUSION | {"betas": BETAS | {"start": 0.5}}, "grows with time"),
        (FLOW | {"surprise": 1}, "Extra inputs"),
    ],
)
def test_ways_to_denoise_that_cannot_be(given: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ValidationError, match=complaint):
        Denoise.model_validate_json(json.dumps(given))


def test_ways_to_denoise() -> None:
    assert Denoise.model_validate_json(json.dumps(FLOW)).steps == 20
    assert Denoise.model_validate_json(json.dumps(DIFFUSION)).betas == Betas(
        schedule="linear", start=0.0001, end=0.02
    )


PROMPT: dict[str, Any] = {"tokenizer": "tokenizer.json", "length": 8, "pad": 0}


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"denoise": FLOW}, "does not take a latent"),
        ({"denoise": FLOW | {"reduction": 3}}, "no multiple of 3"),
        ({"denoise": FLOW | {"reduction": 2, "sizes": [[10, 9]]}}, "10x9 is no multiple"),
        ({"edit": {"tasks": ["colorize"]}}, "'edit' does not take input, task"),
        ({"edit": {"tasks": ["inpaint"]}}, "'edit' does not take input, mask, task"),
        ({"edit": {"tasks": ["inpaint", "inpaint"]}}, "named twice"),
        ({"prompt": [PROMPT]}, "files without a digest: tokenizer.json"),
    ],
)
def test_pictures_that_cannot_be_denoised(store: Path, change: dict[str, Any], complaint: str) -> None:
    given = fields(store)
    given["image"] |= change
    with pytest.raises(ValidationError, match=complaint):
        Manifest.model_validate_json(json.dumps(given))


def test_a_prompt_is_read_by_the_graph_for_it(tmp_path: Path) -> None:
    flow(tmp_path, text=True)
    given = fields(tmp_path, "tiny-flow")
    file = next(path for path in given["files"] if path.endswith(".onnx"))
    given["image"]["prompt"] = [PROMPT | {"tokenizer": file, "role": "words", "count": "length"}]
    with pytest.raises(ValidationError, match="'condition' does not take words"):
        Manifest.model_validate_json(json.dumps(given))


def test_the_graphs_output_is_what_is_predicted(tmp_path: Path) -> None:
    flow(tmp_path)
    given = fields(tmp_path, "tiny-flow")
    given["image"]["denoise"] |= DIFFUSION
    with pytest.raises(ValidationError, match="no output 'epsilon'"):
        Manifest.model_validate_json(json.dumps(given))


def test_the_default_score_needs_a_calibration() -> None:
    calibration = Calibration(scores="s.npy", threshold=1.0, quantile=0.95, data="x")
    Scoring(default="l1", calibrations={"l1": calibration})
    with pytest.raises(ValidationError, match="default score 'l2' has no calibration"):
        Scoring(default="l2", calibrations={"l1": calibration})


def test_a_score_is_computed_and_calibrated(tmp_path: Path) -> None:
    packages.scorer(tmp_path)
    given = fields(tmp_path, "tiny-score")
    assert Manifest.model_validate_json(json.dumps(given)).scoring
    with pytest.raises(ValidationError, match="scores need a calibration"):
        Manifest.model_validate_json(json.dumps(given | {"scoring": None}))
    calibrations = given["scoring"]["calibrations"]
    given["scoring"]["calibrations"] = calibrations | {"dark": calibrations["bright"]}
    with pytest.raises(ValidationError, match=r"no graph computes score\.dark"):
        Manifest.model_validate_json(json.dumps(given))


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"samples": {"l2": 4}}, "sampled scores without a calibration: l2"),
        ({"samples": {"l1": 1}}, "greater than or equal to 2"),
        ({"samples": {"l1": 257}}, "less than or equal to 256"),
        ({"latents": "other.npy"}, "files without a digest: other.npy"),
        ({"default": "l1", "calibrations": {"kl": {}}}, "no better than chance"),
    ],
)
def test_scores_may_be_sampled(tmp_path: Path, change: dict[str, Any], complaint: str) -> None:
    packages.autoencoder(tmp_path, variational=True, samples=4, latents=np.zeros((3, 64), np.float32))
    given = fields(tmp_path, "tiny-ae")
    assert Manifest.model_validate_json(json.dumps(given)).scoring
    own = given["scoring"]["calibrations"]
    change = {**change, "calibrations": own | dict.fromkeys(change.get("calibrations", {}), own["l1"])}
    given["scoring"] |= change
    with pytest.raises(ValidationError, match=complaint):
        Manifest.model_validate_json(json.dumps(given))


def test_what_is_sampled_takes_noise(tmp_path: Path) -> None:
    packages.autoencoder(tmp_path)
    given = fields(tmp_path, "tiny-ae")
    given["scoring"] |= {"samples": {"l1": 4}}
    with pytest.raises(ValidationError, match=r"sampled without taking noise: score\.l1"):
        Manifest.model_validate_json(json.dumps(given))


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"noise": None}, "a style needs a generator and the role of its noise"),
        ({"noise": "z"}, "the graph 'mapping' does not take z"),
        ({"style": {"mapping": "map", "mean": "mean_style.npy"}}, "the graph 'map' does not take noise"),
        ({"generator": "mapping"}, "a style is an output of its mapping and an input of the generator"),
        ({"style": {"mapping": "mapping", "mean": "mean.npy"}}, "files without a digest: mean.npy"),
        ({"style": {"mapping": "mapping", "mean": "mean_style.npy", "truncation": 0}}, "greater than 0"),
    ],
)
def test_styles_go_from_one_graph_into_the_other(
    tmp_path: Path, change: dict[str, Any], complaint: str
) -> None:
    packages.styled(tmp_path)
    given = fields(tmp_path, "tiny-style")
    assert Manifest.model_validate_json(json.dumps(given)).image
    given["image"] |= change
    with pytest.raises(ValidationError, match=complaint):
        Manifest.model_validate_json(json.dumps(given))


# -- the digest -------------------------------------------------------------------------------------------------------


def test_the_digest_covers_every_byte_but_its_own(store: Path) -> None:
    raw = render(
        {key: value for key, value in fields(store).items() if key not in {"schema_version", "digest"}}
    )
    digest = json.loads(raw)["digest"]
    assert digest_of(raw, digest) == digest
    assert digest_of(raw.replace(b"tiny", b"tinY"), digest) != digest
    assert digest_of(raw + b"\n", digest) != digest
    other = "sha256:" + "1" * 64
    assert digest_of(raw.replace(digest.encode(), other.encode()), other) == digest


def test_a_blank_digest_among_the_files_stays_what_it_is(store: Path) -> None:
    given = {key: value for key, value in fields(store).items() if key not in {"schema_version", "digest"}}
    given["files"]["generate.onnx"]["sha256"] = "sha256:" + "0" * 64
    read = json.loads(render(given))
    assert read["files"]["generate.onnx"]["sha256"] == "sha256:" + "0" * 64
    assert read["digest"] != "sha256:" + "0" * 64


# -- the published schema ---------------------------------------------------------------------------------------------


def test_the_published_schema_is_the_codes() -> None:
    published = (ROOT / "docs/model.schema.json").read_text()
    assert published == json_schema(), "run: python -m model_store.schema > docs/model.schema.json"


@pytest.mark.parametrize("name", ["tiny-text", "tiny-attention", "tiny-ae", "tiny-vae", "tiny-gan"])
def test_packages_follow_the_schema(store: Path, name: str) -> None:
    jsonschema.Draft202012Validator(json.loads(json_schema())).validate(fields(store, name))


@pytest.mark.parametrize(
    "change",
    [
        {"name": "Upper"},
        {"schema_version": 2},
        {"surplus": 1},
        {"graphs": []},
        {"files": {"../x": {}}},
        {"task": "x"},
    ],
)
def test_what_the_code_refuses_the_schema_refuses(store: Path, change: dict[str, Any]) -> None:
    given = fields(store) | change
    with pytest.raises(ValidationError):
        Manifest.model_validate_json(json.dumps(given))
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.Draft202012Validator(json.loads(json_schema())).validate(given)


def test_the_schema_says_its_version() -> None:
    schema = json.loads(json_schema())
    assert schema["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    assert schema["properties"]["schema_version"]["const"] == module.SCHEMA_VERSION
    jsonschema.Draft202012Validator.check_schema(schema)
