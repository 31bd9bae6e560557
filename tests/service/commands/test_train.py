"""`atelier train`: a recipe of a few steps is run, shown and published; a failing one is a sentence."""

import io
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import pytest
import torch
import typer
from rich.console import Console
from safetensors.torch import save_model
from torch import nn

from model_store import zoo
from model_store.export import graph_process
from model_store.export.draft import Draft, GraphDraft, Progress, tensor
from model_store.export.errors import ExportError
from model_store.manifest import Measure, Provenance
from model_store.session import Device, open_graph
from model_store.store import Store
from service.commands import train as command
from service.commands.train import Bar, find, learn, train

HERE = "tests.model_store.export.modules"


@dataclass(frozen=True)
class TinyRecipe:
    seed: int = 7
    steps: int = 3


class Tiny:
    """A reference model: learns one number, exports attention."""

    Recipe = TinyRecipe

    def train(self, data: Path, progress: Progress, recipe: TinyRecipe) -> nn.Module:
        if not (data / "numbers.txt").exists():
            raise FileNotFoundError(f"no numbers.txt in {data.name}")
        torch.manual_seed(recipe.seed)
        model = nn.Linear(1, 1)
        for step in range(1, recipe.steps + 1):
            progress(step, recipe.steps, {"loss": 1.0 / step})
        return model

    def draft(
        self, trained: nn.Module, data: Path, work: Path, progress: Progress, recipe: TinyRecipe
    ) -> Draft:
        save_model(trained, str(work / "w.safetensors"))
        progress(1, 1, {"figure": 2.0})
        return Draft(
            name="tiny-reference",
            task="text-generation",
            family="transformer",
            capabilities=("complete",),
            description=data.name,
            licence="MIT",
            provenance=Provenance(
                data="d", data_licence="l", attribution="a", home="h", recipe="r", seed=recipe.seed
            ),
            graphs={"step": attention()},
            quality={"figure": Measure(value=2.0, higher_is_better=True, data="numbers")},
        )


def attention() -> GraphDraft:
    cache = [tensor(f"past_{name}", "float32", "batch", 2, 16, 8) for name in ("key", "value")]
    present = [tensor(f"present_{name}", "float32", "batch", 2, 16, 8) for name in ("key", "value")]
    return GraphDraft(
        factory=f"{HERE}:Attention",
        inputs=(
            tensor("x", "float32", "batch", "time", 32),
            *cache,
            tensor("last", "int32", "batch"),
            tensor("total", "int32"),
        ),
        outputs=(tensor("y", "float32", "batch", "time", 32), *present),
        cases=f"{HERE}:attention_cases",
    )


@pytest.fixture
def data(tmp_path: Path) -> Path:
    folder = tmp_path / "data"
    folder.mkdir()
    (folder / "numbers.txt").write_text("1 2 3")
    return folder


def quiet() -> Console:
    return Console(file=io.StringIO(), width=120)


def test_a_recipe_is_run_proven_and_published(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(command, "find", lambda _: Tiny())

    train("tiny-reference", data, store=str(tmp_path / "store"), seed=11)

    shown = capsys.readouterr().out
    assert "✓ Published tiny-reference version 1" in shown
    assert "Quality on held-out data" in shown
    package = Store(tmp_path / "store").open("tiny-reference")
    assert package.manifest.provenance.seed == 11
    assert package.manifest.provenance.seconds is not None
    # Attention became one node that the session replays against plain attention's golden outputs.
    assert b"GroupQueryAttention" in package.path("step.onnx").read_bytes()
    open_graph(package, "step", device=Device("cpu"))


def test_the_seed_of_the_recipe_stands_unless_another_is_given(data: Path, tmp_path: Path) -> None:
    assert learn(Tiny(), data, tmp_path, None, quiet()).provenance.seed == 7
    assert learn(Tiny(), data, tmp_path, 0, quiet()).provenance.seed == 0


def test_the_weights_are_where_the_draft_says(data: Path, tmp_path: Path) -> None:
    learn(Tiny(), data, tmp_path, None, quiet())

    assert (tmp_path / "w.safetensors").exists()


def test_missing_data_is_a_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(command, "find", lambda _: Tiny())

    with pytest.raises(typer.Exit) as caught:
        train("tiny-reference", tmp_path, store=str(tmp_path / "store"))

    assert caught.value.exit_code == 1
    assert capsys.readouterr().err == f"✗ the data cannot be read: no numbers.txt in {tmp_path.name}\n"


class DataError(ValueError):
    """What a recipe says of data that is wrong."""


@pytest.mark.parametrize(
    ("error", "traced"), [(DataError("wrong magic"), False), (ValueError("a bug"), True)]
)
def test_wrong_data_is_a_sentence_and_a_bug_keeps_its_trace(error: ValueError, traced: bool) -> None:
    with pytest.raises(ExportError, match=f"the recipe stopped: {error}") as caught, command.plain_failures():
        raise error

    assert ("test_wrong_data" in caught.value.detail) is traced


def test_an_unknown_reference_is_told_with_the_known_ones() -> None:
    with pytest.raises(ExportError, match="no reference model 'gpt-9'; there are fashion-ae, fashion-vae"):
        find("gpt-9")


def test_without_torch_training_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(graph_process, "TOOLS", ("no_such_torch",))

    with pytest.raises(ExportError, match="exporting needs no_such_torch"):
        find("fashion-ae")


@pytest.mark.parametrize("name", zoo.NAMES)
def test_every_reference_model_can_be_trained(name: str) -> None:
    reference = find(name)

    assert isinstance(reference, ModuleType)
    assert isinstance(reference.Recipe().seed, int)
    assert callable(reference.train)
    assert callable(reference.draft)


def test_the_bar_keeps_the_last_value_of_every_figure() -> None:
    console = Console(file=io.StringIO(), width=120, force_terminal=True)
    with Bar(console, "train") as bar:
        bar.update(1, 4, {"loss": 3.14159, "held out": 2.5})
        bar.update(2, 4, {"loss": 1.5})

    assert "loss 1.5  held out 2.5" in console.file.getvalue()  # type: ignore[attr-defined]
