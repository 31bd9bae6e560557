"""series-ae: scores the steps of any time series by the steps before them, one channel at a time.

It learns on the first 15 % of the NAB series, which the benchmark does not judge, to foretell a step of what came before it; a step
is strange when its level, its distance from what was expected, or the shape it ends is improbable beside the window's earlier ones.
`train()` takes ten seconds on one core and `measure()` a minute: NAB scores of 68.1 (standard), 56.7 (few false alarms) and 75.1 (few
misses) on 48 series, where the windowed Gaussian has 35.0, 22.7 and 41.0.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import save_model
from torch import Tensor

from model_store import nab
from model_store.export.calibration import calibrate
from model_store.export.draft import Draft, GraphDraft, Progress, tensor
from model_store.manifest import Measure, Provenance
from model_store.tabling import Alarms, Channel, Series
from model_store.zoo.series_net import Autoencoder, Config

NAME: Final = "series-ae"
DATA_FOLDER: Final = "nab"
DATA_HOME: Final = "https://github.com/numenta/NAB"
SCORES: Final = ("strangeness", "level", "surprise", "shape")
SHIPPED: Final = Config()
COOLDOWN: Final = 100
"""Steps after an alarm's end in which no other begins."""

HELD: Final = 5
"""Every so many series nothing is learned from: its first part is what scores are calibrated on."""

FIRST: Final = 0.15
"""Share of a series that is learned from, as the benchmark gives it."""

ROWS: Final = 4
"""Windows in one run. 1,000 take 1.9 s of one core and 45 MB; 64 at once 2.8 s and 360 MB."""

_BLOCK: Final = 256
_THRESHOLDS: Final = 97


@dataclass(frozen=True)
class Recipe:
    """How the model is trained: on pieces of `length` steps, as many of each series; a share of `missing` is hidden."""

    steps: int = 1_500
    batch: int = 16
    length: int = 160
    pieces: int = 60
    learning_rate: float = 3e-3
    missing: float = 0.05
    seed: int = 0


def train(data: Path, progress: Progress, recipe: Recipe = Recipe()) -> Autoencoder:
    """Train on the beginnings of the series below `data`, but for those that scores are calibrated on."""
    series = nab.read(data / DATA_FOLDER)
    return fit([each.values for place, each in enumerate(series) if place % HELD], progress, recipe)


def fit(
    series: list[nab.Doubles], progress: Progress, recipe: Recipe, config: Config = SHIPPED
) -> Autoencoder:
    """Train on the first part of each series, by the likelihood of Student's t with three degrees of freedom."""
    torch.manual_seed(recipe.seed)
    model = Autoencoder(config).train()
    pieces = torch.cat([_pieces(each, recipe) for each in series])
    optimizer = torch.optim.AdamW(model.parameters(), lr=recipe.learning_rate, weight_decay=1e-2)
    for step in range(recipe.steps):
        for group in optimizer.param_groups:
            group["lr"] = recipe.learning_rate * (1 - step / recipe.steps)
        chosen = pieces[torch.randint(len(pieces), (recipe.batch,))]
        known = (torch.rand(chosen.shape) >= recipe.missing).float()
        expected, spread, scale, _ = model.expect(chosen * known, known)
        far = (chosen - expected) / spread
        # The first step has no past.
        loss = ((spread / scale).log() + 2 * (far.square() / 3).log1p())[:, 1:].mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        progress(step + 1, recipe.steps, {"loss": loss.item()})
    return model.eval()


def _pieces(values: nab.Doubles, recipe: Recipe) -> Tensor:
    """Pieces [pieces, length] of the first part of a series, in its deviations."""
    first = values[: max(int(FIRST * len(values)), recipe.length)]
    scaled = (first - first.mean()) / (first.std() or 1.0)
    every = np.lib.stride_tricks.sliding_window_view(scaled.astype(np.float32), recipe.length)
    return torch.from_numpy(every[np.random.default_rng(recipe.seed).choice(len(every), recipe.pieces)])


# -- figures -----------------------------------------------------------------------------------------------------------


def stretches(values: nab.Doubles, window: int, block: int = _BLOCK) -> Iterator[tuple[Tensor, Tensor]]:
    """Values and what is known of them, [window + steps - 1] of so many steps at a time, unknown before the beginning.

    They are normalised by the window that ends at the first of the steps: by nothing that comes later.
    """
    end = 0
    while end < len(values):
        start = end
        # What has only begun may soon be quite another.
        end = min(start + max(1, min(block, start // 4)), len(values))
        own = values[max(start + 1 - window, 0) : end]
        past = values[max(start + 1 - window, 0) : start + 1]
        deviation = past.std()
        constant = deviation <= 1e-9 * abs(past.mean())
        scaled = (own - past.mean()) / (1.0 if constant else deviation)
        padding = window + end - start - 1 - len(own)
        known = np.concatenate([np.zeros(padding), np.ones(len(own))])
        padded = np.concatenate([np.zeros(padding), scaled])
        yield torch.from_numpy(padded.astype(np.float32)), torch.from_numpy(known.astype(np.float32))


@torch.inference_mode()
def scores(model: Autoencoder, values: nab.Doubles, block: int = _BLOCK) -> dict[str, NDArray[np.float32]]:
    """Every score [steps] of a series. Steps of a block share how they are normalised; with 1 it is what is served."""
    found = [
        torch.stack(model.judge(stretch[None], known[None]))
        for stretch, known in stretches(values, model.config.window, block)
    ]
    return dict(zip(SCORES, torch.cat(found, 1).numpy(), strict=True))


def alarmed(strange: nab.Doubles, threshold: float, cooldown: int = COOLDOWN) -> nab.Doubles:
    """1 at steps where an alarm begins, as the server's policy has it, else 0."""
    begins, quiet_until, open_ = np.zeros(len(strange)), 0, False
    for step, above in enumerate((strange > threshold).tolist()):
        if open_ and not above:
            open_, quiet_until = False, step + cooldown
        elif above and not open_ and step >= quiet_until:
            open_, begins[step] = True, 1.0
    return begins


def benchmark(
    series: list[nab.Series], strange: list[nab.Doubles], thresholds: NDArray[np.floating]
) -> dict[str, nab.Score]:
    """The NAB score by profile of where alarms begin, at the one best of these thresholds for all series."""
    best: dict[str, nab.Score] = {}
    for threshold in thresholds.tolist():
        alarms = [alarmed(each, threshold) for each in strange]
        for profile, found in nab.nab_scores(series, alarms).items():
            if profile not in best or found.value > best[profile].value:
                best[profile] = nab.Score(found.value, threshold)
    return best


def measure(model: Autoencoder, data: Path, threshold: float, progress: Progress) -> dict[str, Measure]:
    """The NAB score of each profile, beside that of the benchmark's windowed Gaussian.

    Thresholds are those with the best score, as in the benchmark; `nab.standard.calibrated` has this one, which saw no label.
    """
    series = nab.read(data / DATA_FOLDER)
    strange = []
    for place, each in enumerate(series):
        strange.append(scores(model, each.values)[SCORES[0]].astype(np.float64))
        progress(place + 1, len(series), {})
    ours = benchmark(series, strange, np.linspace(8, 20, _THRESHOLDS))
    gaussian = [nab.windowed_gaussian(each.values) for each in series]
    plain = nab.nab_scores(series, gaussian)
    quiet = benchmark(series, gaussian, 1 - np.logspace(-1, -11, _THRESHOLDS))
    many = f"{len(series)} series of the Numenta anomaly benchmark"
    calibrated = benchmark(series, strange, np.array([threshold]))["standard"].value
    return {
        "nab.standard.calibrated": Measure(
            value=round(calibrated, 1), higher_is_better=True, data=f"{many}, alarms at the shipped threshold"
        )
    } | {
        f"nab.{profile}": Measure(
            value=round(found.value, 1),
            higher_is_better=True,
            data=f"{many}, alarms at the best threshold, one for all",
            baseline=round(plain[profile].value, 1),
            baseline_name="windowed Gaussian",
            note=f"threshold {found.threshold:.1f}; the Gaussian with the same policy of alarms has {quiet[profile].value:.1f}",
        )
        for profile, found in ours.items()
    }


# -- the package -------------------------------------------------------------------------------------------------------


def graphs(weights: Path, config: Config = SHIPPED) -> dict[str, GraphDraft]:
    """One graph for everything that reads windows."""
    window = ("batch", config.window, 1)
    return {
        "reconstruct": GraphDraft(
            factory=f"{Autoencoder.__module__}:{Autoencoder.__name__}",
            weights=weights,
            method="reconstruct",
            cases=f"{__name__}:{cases.__name__}",
            inputs=(tensor("input", "float32", *window), tensor("known", "float32", *window)),
            outputs=(
                tensor("reconstruction", "float32", *window),
                tensor("latent", "float32", "batch", config.latent),
                *(tensor(f"score.{name}", "float32", "batch") for name in SCORES),
            ),
            rows=ROWS,
        )
    }


def cases(config: Config = SHIPPED) -> list[dict[str, NDArray[np.float32]]]:
    """Windows to compare the graph on, drawn at random: one whole, one that has begun a while ago, one with gaps."""
    chance = np.random.default_rng(0)
    size = config.window
    steps = np.sin(np.arange(size) / 20) + 0.3 * chance.standard_normal((3, size))
    known = np.ones((3, size))
    known[1, : size // 3] = 0
    known[2] = chance.random(size) > 0.05
    known[2, -1] = 1
    both = {
        "input": (steps * known)[..., None].astype(np.float32),
        "known": known[..., None].astype(np.float32),
    }
    return [{name: each[:1] for name, each in both.items()}, both]


def draft(model: Autoencoder, data: Path, work: Path, progress: Progress, recipe: Recipe = Recipe()) -> Draft:
    """Calibrate a trained model and compute its NAB scores; its weights go into the folder `work`."""
    weights = work / f"{NAME}.safetensors"
    save_model(model, str(weights))
    series = nab.read(data / DATA_FOLDER)
    held = [_begun(model, each.values) for each in series[::HELD]]
    normal = {name: np.concatenate([each[name] for each in held]) for name in SCORES}
    words = f"steps of the first {FIRST:.0%} of series that the model was not trained on"
    scoring, files = calibrate(normal, SCORES[0], words)
    return Draft(
        name=NAME,
        task="reconstruction",
        family="autoencoder",
        capabilities=("reconstruct", "score", "encode", "embed"),
        description="Scores the steps of any series of one value, by the up to 3,071 steps before each, and raises few alarms.",
        licence="Apache-2.0",
        provenance=Provenance(
            data="Numenta Anomaly Benchmark, the first 15 % of the series",
            data_licence="MIT",
            attribution="Copyright (c) 2014-2024 Numenta; Lavin and Ahmad 2015, arXiv:1510.03336",
            home=DATA_HOME,
            recipe="series_ae",
            seed=recipe.seed,
            steps=recipe.steps,
            parameters=sum(each.numel() for each in model.parameters()),
        ),
        graphs=graphs(weights, model.config),
        files=files,
        series=Series(
            channels=(Channel(name="value"),),
            window=model.config.window,
            padding="zero",
            normalisation="window",
            alarms=Alarms(cooldown=COOLDOWN),
        ),
        scoring=scoring,
        quality=measure(model, data, scoring.calibrations[SCORES[0]].threshold, progress),
    )


def _begun(model: Autoencoder, values: nab.Doubles) -> dict[str, NDArray[np.float32]]:
    """Scores of the first part of a series, from where there is enough to go by."""
    found = scores(model, values[: int(FIRST * len(values))])
    return {name: each[model.config.past :] for name, each in found.items()}
