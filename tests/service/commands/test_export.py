"""`atelier export torch` from its options to a package that opens."""

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx_ir
import pytest
import torch
from typer.testing import CliRunner

from model_store.export import graph_process
from model_store.imaging import Image
from model_store.session import Device, open_graph
from model_store.store import Store
from service.commands.export import app, split_adapters
from tests.model_store.export.hf.tiny import save, save_tokenizer
from tests.model_store.export.modules import Autoencoder
from tests.model_store.export.test_foreign import decoder
from tests.model_store.export.test_foreign_pictures import denoiser

HERE = "tests.model_store.export.modules"
GENERATOR = ["--name", "tiny-gan", "--task", "image-generation", "--family", "gan"]
LATENT = ["--example", "latent=float32[batch,4]"]


def run(*arguments: str, command: str = "torch") -> tuple[int, str, str]:
    result = CliRunner().invoke(app, [command, *arguments], terminal_width=160)
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.exit_code, result.stdout, result.stderr


def test_any_module_becomes_a_package(tmp_path: Path) -> None:
    torch.save(Autoencoder().state_dict(), tmp_path / "w.pt")
    store = tmp_path / "store"

    status, shown, errors = run(
        f"{HERE}:Autoencoder", *GENERATOR, *LATENT, "--method", "decode", "--weights", str(tmp_path / "w.pt"),
        "--licence", "MIT", "--description", "Dots.", "--store", str(store),
    )  # fmt: skip

    assert (status, errors) == (0, "")
    assert [line.split(" ")[0] for line in shown.splitlines()[:4]] == ["✓"] * 4
    assert "generate │ output │     2 │" in shown
    assert re.search(rf"✓ Published tiny-gan version 1 \([0-9.]+ kB\) to {store}\n$", shown)
    package = Store(store).open("tiny-gan")
    manifest = package.manifest
    assert manifest.image == Image(channels=1, height=8, width=8, generator="generate", noise="noise")
    assert (manifest.licence, manifest.description, manifest.capabilities) == (
        "MIT",
        "Dots.",
        ("generate_image",),
    )
    assert manifest.provenance.parameters == 517
    latent = np.ones((3, 4), np.float32)
    [found] = open_graph(package, "generate", device=Device("cpu")).run({"latent": latent}, ["output"])
    expected = Autoencoder().decode(torch.from_numpy(latent)).detach().numpy()
    np.testing.assert_allclose(found, expected, atol=1e-6)


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ([*GENERATOR, "--example", "z=float32"], "✗ --example 'z=float32' is not like"),
        ([*GENERATOR], "✗ say what goes in: --example"),
        ([*GENERATOR, "--example", "z=int64[batch]"], "say which it is with --input z:noise"),
        (["--name", "No", *GENERATOR[2:], *LATENT], "✗ 'No' is no package name"),
    ],
)
def test_options_that_make_no_sense_are_one_sentence(
    arguments: list[str], complaint: str, tmp_path: Path
) -> None:
    status, shown, errors = run(f"{HERE}:Autoencoder", *arguments, "--store", str(tmp_path / "store"))

    assert status == 1
    assert complaint in errors
    assert len(errors.splitlines()) == 1
    assert "Traceback" not in shown + errors
    assert not (tmp_path / "store").exists()


def test_a_module_that_is_not_there_is_one_sentence(tmp_path: Path) -> None:
    status, shown, errors = run("no_such_file:Net", *GENERATOR, *LATENT, "--store", str(tmp_path / "store"))

    assert status == 1
    assert shown.startswith("✗ run the module in torch")
    assert errors == "✗ 'no_such_file:Net' cannot be imported: No module named 'no_such_file'\n"


@pytest.mark.filterwarnings("ignore")  # transformers' own, while it makes the model
def test_a_local_directory_becomes_a_package(tmp_path: Path) -> None:
    directory, store = save("llama", tmp_path / "model"), tmp_path / "store"

    status, shown, errors = run(
        str(directory),
        "--name",
        "tiny",
        "--context",
        "128",
        "--precision",
        "int8",
        "--store",
        str(store),
        command="hf",
    )

    assert (status, errors) == (0, "")
    assert [line[:2] for line in shown.splitlines()[:6]] == ["✓ "] * 6
    assert "The package beside transformers" in shown
    assert re.search(r"step +│ greedy tokens, 3 rows +│ +192 │ +equal │ +equal", shown)
    assert re.search(r"KL of int8 from float32 +│ +8 │ +[0-9.e-]+ │ +5e-02", shown)
    assert re.search(r"perplexity ↓", shown)
    assert "✓ Published tiny version 1" in shown
    manifest = Store(str(store)).open("tiny").manifest
    assert manifest.quantization is not None
    assert manifest.quantization.bits == 8


def test_adapters_are_merged_or_named() -> None:
    assert split_adapters([]) == (None, {})
    assert split_adapters(["some/dir", "legal=a", "medical=b=c"]) == (
        Path("some/dir"),
        {"legal": Path("a"), "medical": Path("b=c")},
    )


@pytest.mark.parametrize(
    ("adapters", "complaint"),
    [
        (["a", "b"], "only one adapter is merged"),
        (["legal=a", "legal=b"], "--adapter legal: the name is given twice"),
    ],
)
def test_adapters_that_contradict_each_other_are_one_sentence(
    adapters: list[str], complaint: str, tmp_path: Path
) -> None:
    given = [part for each in adapters for part in ("--adapter", each)]
    status, _, errors = run(str(tmp_path), "--name", "tiny", *given, command="hf")
    assert status == 1
    assert complaint in errors
    assert len(errors.splitlines()) == 1


@pytest.mark.parametrize(
    ("files", "complaint"),
    [
        ({}, "there is no config.json: this is no Hugging Face model directory"),
        ({"config.json": "{}", "pytorch_model.bin": ""}, "the weights are pickled"),
        ({"config.json": '{"architectures": ["ResNet"]}', "model.safetensors": ""}, "ResNet is no decoder"),
    ],
)
def test_a_directory_that_cannot_be_exported_is_one_sentence(
    files: dict[str, str], complaint: str, tmp_path: Path
) -> None:
    for name, content in files.items():
        tmp_path.joinpath(name).write_text(content)

    status, _, errors = run(str(tmp_path), "--name", "tiny", "--store", str(tmp_path / "store"), command="hf")

    assert status == 1
    assert complaint in errors
    assert len(errors.splitlines()) == 1


def test_a_graph_made_elsewhere_becomes_a_package(tmp_path: Path) -> None:
    onnx_ir.save(decoder(), tmp_path / "model.onnx")
    save_tokenizer(tmp_path)
    options = ["--name", "made", "--task", "text-generation", "--tokenizer", str(tmp_path / "tokenizer.json")]

    status, shown, errors = run(
        str(tmp_path / "model.onnx"),
        *options,
        "--context",
        "32",
        "--store",
        str(tmp_path / "store"),
        command="onnx",
    )

    assert (status, errors) == (0, "")
    assert re.search(r"position_ids +│ INT64\[batch, sequence\] +│ position_ids", shown)
    assert re.search(r"ids +│ INT64\[batch, sequence\] +│ input_ids", shown)
    assert "logits, ragged rows" in shown
    assert "✓ Published made version 1" in shown


def test_a_painter_made_elsewhere_becomes_a_package(tmp_path: Path) -> None:
    onnx_ir.save(denoiser(output="out"), tmp_path / "model.onnx")

    status, shown, errors = run(
        str(tmp_path / "model.onnx"), "--name", "made", "--task", "image-generation", "--map", "out:velocity",
        "--class-name", "cat", "--class-name", "dog", "--guidance", "3", "--steps", "8", "--store", str(tmp_path / "store"),
        command="onnx",
    )  # fmt: skip

    assert (status, errors) == (0, "")
    assert re.search(r"x +│ FLOAT\[batch, 3, 8, 8\] +│ latent", shown)
    assert re.search(r"out +│ .* +│ velocity", shown)
    assert "rows alone and among others" in shown
    image = Store(str(tmp_path / "store")).open("made").manifest.image
    assert image is not None
    assert image.denoise is not None
    assert (image.classes, image.denoise.guidance, image.denoise.steps) == (("cat", "dog"), 3.0, 8)


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ((), "there is no model_index.json: this is no diffusers directory"),
        (("--name", "No"), "'No' is no package name"),
    ],
)
def test_a_pipeline_that_cannot_be_exported_is_one_sentence(
    options: tuple[str, ...], complaint: str, tmp_path: Path
) -> None:
    status, _, errors = run(
        str(tmp_path), "--name", "x", *options, "--store", str(tmp_path), command="diffusers"
    )

    assert status == 1
    assert complaint in errors
    assert len(errors.splitlines()) == 1


def test_an_encoder_and_its_decoder_get_scores(tmp_path: Path) -> None:
    pictures = np.random.default_rng(0).integers(0, 256, (30, 8, 8), np.uint8)
    np.savez(tmp_path / "normal.npz", X=pictures)

    status, shown, errors = run(
        f"{HERE}:Autoencoder", "--method", "encode", "--decoder", f"{HERE}:Decoder", "--name", "pair",
        "--task", "reconstruction", "--family", "autoencoder", "--example", "images=float32[batch,1,8,8]:0..1",
        "--calibration", str(tmp_path / "normal.npz"), "--store", str(tmp_path / "store"),
    )  # fmt: skip

    assert (status, errors) == (0, "")
    assert re.search(r"errors +│ score\.ssim", shown)
    manifest = Store(str(tmp_path / "store")).open("pair").manifest
    assert manifest.capabilities == ("reconstruct", "score", "encode", "embed", "decode", "interpolate")
    assert manifest.scoring is not None
    assert manifest.scoring.default == "ssim"
    assert set(manifest.graphs) == {"reconstruct", "decode"}


def test_a_detector_of_anomalib_is_recognised(tmp_path: Path) -> None:
    np.savez(tmp_path / "normal.npz", X=np.random.default_rng(0).uniform(0, 1, (30, 1, 8, 8)))
    options = [
        f"{HERE}:Detector", "--name", "seen", "--task", "anomaly-score", "--family", "autoencoder",
        "--example", "input=float32[batch,1,8,8]:0..1", "--store", str(tmp_path / "store"),
    ]  # fmt: skip

    status, _, errors = run(*options, "--calibration", str(tmp_path / "normal.npz"))

    assert (status, errors) == (0, "")
    manifest = Store(str(tmp_path / "store")).open("seen").manifest
    assert (manifest.task, manifest.capabilities) == ("anomaly-detection", ("score",))
    assert {each.role for each in manifest.graphs["score"].outputs} == {"score.anomaly", "error_map"}
    status, _, errors = run(*options)
    assert (status, errors[:42]) == (1, "✗ anomaly scores need a calibration: --cal")


def test_without_torch_the_command_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(graph_process, "TOOLS", ("no_such_torch",))

    status, _, errors = run(f"{HERE}:Autoencoder", *GENERATOR, *LATENT, "--store", str(tmp_path))

    assert (status, errors) == (1, '✗ exporting needs no_such_torch: pip install "atelier[export]"\n')


def test_the_help_shows_how_an_example_is_written() -> None:
    status, shown, _ = run("--help")

    assert status == 0
    assert "input=float32[batch,1,28,28]" in " ".join(shown.replace("│", " ").split())


def test_help_and_refusals_need_neither_torch_nor_a_runtime() -> None:
    code = "import sys, service.commands.export, service.commands.train; print(*sys.modules)"

    loaded = subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, text=True
    ).stdout.split()

    assert not {"torch", "onnxruntime", "ray"} & set(loaded)
