"""fashion-realism: the discriminator of a GAN for Fashion-MNIST as a package of its own; it scores how unreal an image looks.

The score `fake` is minus its verdict: the higher, the less real. Convolutions from end to end, so a score's bytes do not
depend on the batch it is in. Knows no serving. `train()` takes about 4 minutes on one core; test images are told from samples of
fashion-vae with an AUROC of 0.99 (1 - SSIM of fashion-ae: 0.29), from those of fashion-gan with no better than 0.52.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import torch
from safetensors.torch import save_model
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils import parametrize

from model_store.export.draft import Draft, GraphDraft, Progress, tensor
from model_store.export.stored import round_weights
from model_store.manifest import Measure
from model_store.session import open_graph
from model_store.store import Store, shipped
from model_store.zoo import fashion, fashion_gan
from model_store.zoo.fashion_metrics import auroc
from model_store.zoo.fashion_scoring import HELD_IMAGES, calibrate, false_alarms

NAME: Final = "fashion-realism"
SCORE: Final = "fake"
NOISE: Final = 0.1
MADE: Final = 5_000


@dataclass(frozen=True)
class Recipe(fashion_gan.Recipe):
    """How the pair is trained whose discriminator is kept, and how long that goes on learning alone."""

    steps: int = 1_500
    alone: int = 800
    alone_rate: float = 1e-3


class Realism(nn.Module):
    """A trained projection discriminator that is not told the class: it hears every class's claim at once.

    Its verdict on an image of class c is one linear reading of the features; their log-sum-exp is the verdict on the image
    being of any class. The spectral normalisation is part of the weights here.
    """

    def __init__(self) -> None:
        super().__init__()
        self.body = _plain(fashion_gan.Discriminator()).body
        self.verdicts = nn.Conv2d(4 * fashion_gan.Config.width, fashion_gan.Config.classes, 1)

    def forward(self, images: Tensor) -> Tensor:
        """Score images [batch, 1, 28, 28]; [batch], the higher, the less real."""
        features = self.body(images).sum(dim=(2, 3), keepdim=True)
        verdict: Tensor = self.verdicts(features).logsumexp(dim=(1, 2, 3))
        return -verdict


def _plain(critic: fashion_gan.Discriminator) -> fashion_gan.Discriminator:
    """The same net, its weights now what the normalisation made of them."""
    for module in critic.eval().modules():
        if parametrize.is_parametrized(module, "weight"):
            parametrize.remove_parametrizations(module, "weight")
    return critic


def unconditional(critic: fashion_gan.Discriminator) -> Realism:
    """The score of a trained discriminator, which stays what it is."""
    plain, model = fashion_gan.Discriminator(), Realism()
    plain.load_state_dict(critic.state_dict())
    weights = _plain(plain).state_dict()
    model.body.load_state_dict(plain.body.state_dict())
    verdicts = (weights["real.weight"] + weights["embed.weight"])[:, :, None, None]
    model.verdicts.load_state_dict({"weight": verdicts, "bias": weights["real.bias"].expand(len(verdicts))})
    return model.eval()


def train(data: Path, progress: Progress, recipe: Recipe = Recipe()) -> Realism:
    """Train on all classes below `data`, but for the images that the score is calibrated on."""
    shown, _ = fashion.read_split(data, "train").cut(HELD_IMAGES)
    pair = fashion_gan.fit(shown, progress, recipe)
    made = fashion_gan.sample(pair.generator, shown.labels[:MADE], recipe.seed)
    return finish(unconditional(pair.critic), shown.images, made, progress, recipe)


def finish(
    model: Realism, real: Tensor, made: Tensor, progress: Progress, recipe: Recipe = Recipe()
) -> Realism:
    """Teach a discriminator what its generator kept it from: as they learn together, it is left knowing next to nothing.

    Half of what it is to call unreal are samples of the generator, `made`, the other half damaged images.
    """
    torch.manual_seed(recipe.seed)
    optimizer = torch.optim.AdamW(model.train().parameters(), lr=recipe.alone_rate, weight_decay=0.01)
    schedule = fashion.warmup_cosine(optimizer, recipe.alone)
    half = recipe.batch // 2
    samples = fashion.batches(len(made), half, recipe.alone, recipe.seed)
    for step, chosen in enumerate(
        fashion.batches(len(real), recipe.batch + half, recipe.alone, recipe.seed), start=1
    ):
        shown, spoilt = real[chosen].split([recipe.batch, half])
        with fashion.reduced_precision():
            found = model(torch.cat([shown, made[next(samples)], damaged(spoilt)]))
        on_real, on_unreal = found.float().split([recipe.batch, 2 * half])
        loss = functional.softplus(on_real).mean() + functional.softplus(-on_unreal).mean()
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        optimizer.step()
        schedule.step()
        progress(step, recipe.alone, {"alone": loss.item()})
    return model.eval()


def damaged(images: Tensor) -> Tensor:
    """Images [count, 1, 28, 28]: a third is blurred, a third noisy, a third mixed with one another, each more or less."""
    strength = torch.empty(len(images), 1, 1, 1).uniform_(0.2, 1.0)
    blurred, noisy, mixed = images.tensor_split(3)
    much, more, most = strength.tensor_split(3)
    return torch.cat(
        [
            torch.lerp(blurred, functional.avg_pool2d(blurred, 5, stride=1, padding=2), much),
            (noisy + 0.3 * more * torch.randn_like(noisy)).clamp(0.0, 1.0),
            torch.lerp(mixed, mixed.roll(1, 0), 0.5 * most),
        ]
    )


def scores(model: Realism, images: Tensor) -> Tensor:
    """Scores [count] of images [count, 1, 28, 28]."""
    return fashion.in_pieces(model, images)


def unreal(test: fashion.Fashion) -> dict[str, tuple[str, str, Tensor]]:
    """Images [count, 1, 28, 28] that are not real, as many as test images: what they are, a note, and they themselves."""
    generator = np.random.default_rng(0)
    draws = generator.standard_normal((len(test), 64), np.float32)
    grain = torch.from_numpy(generator.standard_normal(test.images.shape, np.float32))
    return {
        "vae": (
            "samples of fashion-vae",
            "a model that the discriminator never met",
            _shipped("fashion-vae", "decode", "output", latent=draws[:, :16]),
        ),
        "gan": (
            "samples of fashion-gan",
            "a generator that had longer to learn than the discriminator's own",
            _shipped("fashion-gan", "generate", "output", noise=draws, class_id=test.labels.numpy()),
        ),
        "noise": (
            f"the same with Gaussian noise of {NOISE} added",
            "the discriminator learned to call noise unreal",
            (test.images + NOISE * grain).clamp(0.0, 1.0),
        ),
        "inverted": (
            "the same, black and white exchanged",
            "the discriminator never met such",
            1.0 - test.images,
        ),
    }


def _shipped(name: str, graph: str, output: str, **feeds: np.ndarray) -> Tensor:
    """What a graph of a shipped package makes of whole arrays."""
    session = open_graph(Store(str(shipped())).open(name), graph)
    count = len(next(iter(feeds.values())))
    pieces = [
        session.run({key: value[first : first + 500] for key, value in feeds.items()}, [output])[0]
        for first in range(0, count, 500)
    ]
    return torch.from_numpy(np.concatenate(pieces))


def measure(model: Realism, test: fashion.Fashion, progress: Progress) -> dict[str, Measure]:
    """Figures of the manifest: how the score tells test images from those that are not real, an autoencoder's beside it."""

    def redrawing(images: Tensor) -> Tensor:
        return _shipped("fashion-ae", "reconstruct", "score.ssim", input=images.numpy())

    normal, others, found = scores(model, test.images), redrawing(test.images), {}
    kinds = unreal(test)
    for done, (name, (words, note, images)) in enumerate(kinds.items(), start=1):
        figure = auroc(normal, scores(model, images))
        found[f"auroc.{name}"] = Measure(
            value=round(figure, 4),
            higher_is_better=True,
            data=f"{fashion.TEST_DATA} against {words}",
            baseline=round(auroc(others, redrawing(images)), 4),
            baseline_name="1 - SSIM of fashion-ae",
            note=note,
        )
        progress(done, len(kinds), {name: figure})
    return found


def graphs(weights: Path) -> Mapping[str, GraphDraft]:
    """One graph: `score`."""
    score = GraphDraft(
        factory="model_store.zoo.fashion_realism:Realism",
        weights=weights,
        inputs=(tensor("input", "float32", "batch", 1, fashion.SIDE, fashion.SIDE),),
        outputs=(tensor(f"score.{SCORE}", "float32", "batch"),),
        ranges={"input": (0.0, 1.0)},
        stored="float16",
    )
    return {"score": score}


def draft(trained: Realism, data: Path, work: Path, progress: Progress, recipe: Recipe = Recipe()) -> Draft:
    """Measure and calibrate a trained discriminator on images it has not seen; its weights go into the folder `work`."""
    round_weights(trained)
    weights = work / f"{NAME}.safetensors"
    save_model(trained, str(weights))
    _, held = fashion.read_split(data, "train").cut(HELD_IMAGES)
    test = fashion.read_split(data, "t10k")
    scoring, files = calibrate({SCORE: scores(trained, held.images)}, default=SCORE)
    quality = measure(trained, test, progress) | false_alarms(scoring, {SCORE: scores(trained, test.images)})
    return Draft(
        name=NAME,
        task="anomaly-detection",
        family="gan",
        capabilities=("score",),
        description=(
            "The discriminator of a GAN that draws clothes: scores how unreal a grey 28x28 image looks. "
            "`fake` is minus its verdict, the higher, the less real."
        ),
        licence="Apache-2.0",
        provenance=fashion.SOURCE.provenance(
            trained, "fashion_realism", seed=recipe.seed, steps=recipe.steps
        ),
        graphs=graphs(weights),
        files=files,
        image=fashion.image_part(),
        scoring=scoring,
        quality=quality,
    )
