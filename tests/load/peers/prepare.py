"""Makes the benchmark's model and its peers in one folder. What is there already stays; peers never enter the project's environment.

hf/                   the model as a Hugging Face directory, random weights
store/                it as our packages, one for each precision
venv/                 onnxruntime-genai, transformers and llama.cpp's converter
llama.cpp/, build/    the source in `llama-cpp-python`, and its batched bench made from it
*.gguf, genai-*/      the model as the peers read it
"""

import subprocess
import sys
import tarfile
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from model_store.export.hf.decoder import export_decoder
from model_store.export.hf.options import Options, Precision
from tests.load.peers.environment import environment
from tests.load.peers.model import write_model

PRECISIONS: Final[tuple[Precision, ...]] = ("fp32", "int4")
STORE: Final = "store"
LLAMA_BENCH: Final = "build/bin/llama-batched-bench"
WORKERS: Final = ("genai", "transformers")
"""Peers that run as workers."""

_LLAMA: Final = "llama-cpp-python==0.3.36"
_REQUIREMENTS: Final = (
    "torch==2.13.0", "transformers==5.23.0", "onnxruntime-genai==0.18.0", "onnx", "onnx-ir", "gguf", "sentencepiece",
)  # fmt: skip
_GGUF: Final[dict[str, str]] = {"fp32": "F32", "int4": "Q4_0"}
_HERE: Final = Path(__file__).parent


def package_name(precision: str) -> str:
    """Our package of the model."""
    return f"llama135-{precision}"


def gguf_name(precision: str) -> str:
    """llama.cpp's file of the model."""
    return f"{_GGUF[precision]}.gguf"


def can_work(at: Path, name: str, precision: str) -> bool:
    """Whether a worker and its model are there."""
    model = _model(at, name, precision)
    return (
        (at / "venv/bin/python").exists()
        and model.is_dir()
        and (name != "transformers" or precision == "fp32")
    )


def worker_command(at: Path, name: str, precision: str) -> list[str]:
    """How a worker is started."""
    script = "generate.py" if name == "transformers" else "genai.py"
    model = str(_model(at, name, precision))
    return [str(at / "venv/bin/python"), str(_HERE / script), model]


def _model(at: Path, name: str, precision: str) -> Path:
    return at / "hf" if name == "transformers" else at / f"genai-{precision}"


def prepare(at: Path) -> None:
    """Make what is missing. Needs a C++ compiler, CMake and Ninja for llama.cpp."""
    at.mkdir(parents=True, exist_ok=True)
    if not (at / "hf").is_dir():
        write_model(at / "hf")
    for precision in PRECISIONS:
        if not (at / STORE / package_name(precision)).is_dir():
            export_decoder(at / "hf", str(at / STORE), Options(package_name(precision), precision=precision))
    _prepare_workers(at)
    _prepare_llama(at)


def _prepare_workers(at: Path) -> None:
    python = environment(at / "venv", _REQUIREMENTS)
    for precision in PRECISIONS:
        folder = at / f"genai-{precision}"
        if not folder.is_dir():
            build = [
                str(python),
                "-m",
                "onnxruntime_genai.models.builder",
                "-i",
                str(at / "hf"),
                "-o",
                str(folder),
            ]
            options = ["--extra_options", "int4_accuracy_level=4"] if precision == "int4" else []
            _run([*build, "-p", precision, "-e", "cpu", "-c", str(at / "cache"), *options])


def _prepare_llama(at: Path) -> None:
    source = at / "llama.cpp/vendor/llama.cpp"
    if not source.is_dir():
        _unpack(at)
    build = at / "build"
    if not (at / LLAMA_BENCH).is_file():
        switches = [
            "-DCMAKE_BUILD_TYPE=Release",
            "-DGGML_NATIVE=ON",
            "-DLLAMA_CURL=OFF",
            "-DLLAMA_BUILD_TESTS=OFF",
        ]
        _run(["cmake", "-S", str(source), "-B", str(build), "-G", "Ninja", *switches])
        targets = ["--target", "llama-batched-bench", "llama-quantize"]
        _run(["cmake", "--build", str(build), "-j", "2", *targets])
    plain = at / gguf_name("fp32")
    if not plain.is_file():
        _run(
            [
                str(at / "venv/bin/python"),
                str(_HERE / "gguf_file.py"),
                str(source),
                str(at / "hf"),
                str(plain),
            ]
        )
    for precision, kind in _GGUF.items():
        file = at / gguf_name(precision)
        if not file.is_file():
            _run([str(build / "bin/llama-quantize"), str(plain), str(file), kind])


def _unpack(at: Path) -> None:
    pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", str(at)]
    _run([*pip, "--no-binary", "llama-cpp-python", _LLAMA])
    [archive] = at.glob("llama_cpp_python-*.tar.gz")
    with tarfile.open(archive) as content:
        content.extractall(at, filter="data")
    (at / archive.name.removesuffix(".tar.gz")).rename(at / "llama.cpp")


def _run(command: Sequence[str]) -> None:
    subprocess.run(command, check=True)
