"""The README's blocks do what they say: its shell lines and its Python against a running service."""

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import requests
from PIL import Image

from model_store.store import Store
from model_store.store import shipped as packages
from tests.e2e.conftest import Service, end, short_folder, start
from tests.model_store.export.diffusers import tiny as painters
from tests.model_store.export.hf.tiny import save

ROOT = Path(__file__).parents[2]
BLOCKS = re.findall(
    r"^```(\w+)\n(.*?)^```", (ROOT / "README.md").read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE
)


@pytest.fixture(scope="module")
def shipped() -> Iterator[Service]:
    """`make serve` without make: the shipped packages."""
    with short_folder() as folder:
        running = start(folder)
        yield running
        end(running)


def blocks(kind: str, containing: str) -> list[str]:
    return [text for found, text in BLOCKS if found == kind and containing in text]


def shell(service: Service, text: str, folder: Path) -> str:
    script = "set -euo pipefail\n" + text.replace("127.0.0.1:8000", f"127.0.0.1:{service.port}")
    done = subprocess.run(
        ["bash", "-c", script], cwd=folder, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def shape(value: object) -> object:
    """Keys and kinds: texts and times differ from machine to machine."""
    if isinstance(value, dict):
        return {key: shape(each) for key, each in value.items()}
    return [shape(each) for each in value[:1]] if isinstance(value, list) else type(value).__name__


def size(file: Path) -> tuple[int, int]:
    with Image.open(file) as picture:
        return picture.size


def test_the_commands_are_those_of_the_makefile() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    [commands] = blocks("sh", "make serve")
    for line in commands.strip().splitlines():
        assert f"\n{line.split()[1]}:" in makefile


def test_the_first_curl_answers_as_shown(shipped: Service, tmp_path: Path) -> None:
    [text] = blocks("sh", "ROMEO")
    [shown] = blocks("json", "choices")
    answer = json.loads(shell(shipped, text, tmp_path))
    assert shape(answer) == shape(json.loads(shown))
    assert answer["usage"] == json.loads(shown)["usage"]


def test_the_python_block_prints_text(shipped: Service, tmp_path: Path) -> None:
    [text] = blocks("python", "import openai")
    script = text.replace("127.0.0.1:8000", f"127.0.0.1:{shipped.port}")
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert len(done.stdout) > 20


def test_the_other_curl_lines(shipped: Service, tmp_path: Path) -> None:
    [text] = blocks("sh", "fashion-gan")
    output = shell(shipped, text, tmp_path)
    assert size(tmp_path / "boot.png") == (28, 28)
    assert size(tmp_path / "sketch.png") == (28, 28)
    assert size(tmp_path / "potion.png") == (32, 32)
    assert size(tmp_path / "large-potion.png") == (64, 64)
    assert size(tmp_path / "other-boot.png") == (28, 28)
    assert output.count("event: image_generation.completed") == 4
    assert '"is_anomaly"' in output
    assert '"imputed":{"x3":' in output
    assert '"alarms":[{"start":23,"end":23,' in output
    assert "data: [DONE]" in output
    assert "cargo build --release" in output
    assert "nous resterons à la maison." in output
    assert output.count('"object":"output"') == 8


def test_every_line_the_terminal_offers_works(shipped: Service, tmp_path: Path) -> None:
    offered = re.findall(r"^curl .*?(?:\n  .*?)?$", shipped.output, re.MULTILINE)
    lines = [line for line in shipped.output.split("\n\n") if line.strip().startswith("curl")]
    assert len(lines) == len(Store(packages()).names()), offered
    for line in lines:
        output = shell(shipped, line, tmp_path)
        assert "error" not in output
    for name in ("fashion-gan", "fashion-vae"):
        picture = tmp_path / f"{name}.png"
        assert not picture.exists() or size(picture) == (28, 28)


def test_a_model_is_exported_and_served_as_the_readme_says(tmp_path: Path) -> None:
    [model] = blocks("python", "nn.Module")
    [export] = blocks("sh", "atelier export torch")
    (tmp_path / "denoiser.py").write_text(model, encoding="utf-8")
    train = "import denoiser, torch; torch.save(denoiser.Denoiser().state_dict(), 'trained.pt')"
    subprocess.run([sys.executable, "-c", train], cwd=tmp_path, check=True)
    command = export.replace("atelier ", f"{Path(sys.executable).with_name('atelier')} ")
    done = subprocess.run(["bash", "-ec", command], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    with short_folder() as folder:
        running = start(folder, "--store", str(tmp_path / "packages"))
        try:
            names = {
                entry["id"] for entry in requests.get(f"{running.url}/v1/models", timeout=10).json()["data"]
            }
            assert len(names) == 1
        finally:
            end(running)


def test_a_hugging_face_directory_is_exported_as_the_readme_says(tmp_path: Path) -> None:
    save("llama", tmp_path / "my-llama")
    [export] = blocks("sh", "atelier export hf")
    command = export.replace("atelier ", f"{Path(sys.executable).with_name('atelier')} ")
    done = subprocess.run(["bash", "-ec", command], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "The package beside transformers" in done.stdout
    assert (tmp_path / "packages" / "my-llama" / "1" / "model.json").is_file()


def test_a_pipeline_is_exported_as_the_readme_says(tmp_path: Path) -> None:
    painters.save("ddpm", tmp_path / "my-painter")
    [export] = blocks("sh", "atelier export diffusers")
    command = export.replace("atelier ", f"{Path(sys.executable).with_name('atelier')} ")
    done = subprocess.run(["bash", "-ec", command], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "! DDPMScheduler is not served: the solver ddim stands in for it" in done.stdout
    assert "The package beside diffusers" in done.stdout
    assert (tmp_path / "packages" / "my-painter" / "1" / "model.json").is_file()


def test_detectors_are_fitted_as_the_readme_says(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    np.savez(
        tmp_path / "bearings.npz",
        X=generator.standard_normal((200, 12)) @ generator.standard_normal((12, 12)),
        y=np.arange(200) >= 190,
    )
    rows = generator.random((60, 3)).round(3).tolist()
    lines = [["pressure", "flow", "heat", "broken"], *([*row, 0] for row in rows)]
    (tmp_path / "pumps.csv").write_text("".join(",".join(map(str, line)) + "\n" for line in lines))
    [fits] = blocks("sh", "atelier fit")
    command = fits.replace("atelier ", f"{Path(sys.executable).with_name('atelier')} ")
    done = subprocess.run(["bash", "-ec", command], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    names = {"bearings-pca", "bearings-knn", "bearings-far", "pumps"}
    assert {each.name for each in (tmp_path / "packages").iterdir() if not each.name.startswith(".")} >= names
