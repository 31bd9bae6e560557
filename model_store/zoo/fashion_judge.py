"""The independent classifier that judges generated Fashion-MNIST images, and the figures it makes possible.

Knows no generative model: it is trained on real images alone, in about 3 minutes on one core, to 93 % on the test images.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_model, save_model
from torch import Tensor, nn
from torch.nn import functional

from model_store.export.draft import Progress
from model_store.manifest import Measure
from model_store.zoo.fashion import (
    CLASS_NAMES,
    TEST_DATA,
    Fashion,
    batches,
    in_pieces,
    read_split,
    reduced_precision,
    warmup_cosine,
)
from model_store.zoo.fashion_metrics import frechet_distance, manifold

MANIFOLD_IMAGES = 5_000


@dataclass(frozen=True)
class Recipe:
    """How the classifier is trained."""

    steps: int = 4_000
    batch: int = 128
    learning_rate: float = 2e-3
    dropout: float = 0.3
    seed: int = 0


class Classifier(nn.Module):
    """Three convolutions to 128 features to 10 classes; its features are the space that images are compared in."""

    def __init__(self, dropout: float = 0.0) -> None:
        super().__init__()
        self.body = nn.Sequential(
            *_convolution(1, 32),
            *_convolution(32, 64),
            nn.Dropout2d(dropout),
            nn.Conv2d(64, 128, 7),
            nn.ReLU(),
            nn.Flatten(),
        )
        self.head = nn.Sequential(nn.Dropout(dropout), nn.Linear(128, len(CLASS_NAMES)))

    def features(self, images: Tensor) -> Tensor:
        """Penultimate activations [batch, 128] of images [batch, 1, 28, 28]."""
        features: Tensor = self.body(images)
        return features

    def forward(self, images: Tensor) -> Tensor:
        """Class logits [batch, 10] of images [batch, 1, 28, 28]."""
        logits: Tensor = self.head(self.features(images))
        return logits


def _convolution(inputs: int, outputs: int) -> Sequence[nn.Module]:
    convolution = nn.Conv2d(inputs, outputs, 3, padding=1, bias=False)
    return convolution, nn.BatchNorm2d(outputs), nn.ReLU(), nn.MaxPool2d(2)


def train(data: Path, progress: Progress, recipe: Recipe = Recipe()) -> Classifier:
    """Train on the training split below `data`: it sees neither a test image nor a generated one."""
    torch.manual_seed(recipe.seed)
    real = read_split(data, "train")
    model = Classifier(recipe.dropout).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=recipe.learning_rate, weight_decay=0.02)
    schedule = warmup_cosine(optimizer, recipe.steps)
    for step, chosen in enumerate(batches(len(real), recipe.batch, recipe.steps, recipe.seed), start=1):
        with reduced_precision():
            logits = model(real.images[chosen])
        loss = functional.cross_entropy(logits.float(), real.labels[chosen], label_smoothing=0.05)
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        optimizer.step()
        schedule.step()
        progress(step, recipe.steps, {"classifier loss": loss.item()})
    return model.eval()


def appoint(data: Path, work: Path, progress: Progress, recipe: Recipe = Recipe()) -> Classifier:
    """Load the classifier kept in the folder `work`, or train it and keep it there for the next model to be judged."""
    kept = work / "fashion-judge.safetensors"
    if kept.exists():
        model = Classifier().eval()
        load_model(model, kept)
        return model
    model = train(data, progress, recipe)
    save_model(model, str(kept))
    return model


def accuracy(judge: Classifier, shown: Fashion) -> float:
    """Share of the images that the classifier takes for the class they are labelled with."""
    return (in_pieces(judge, shown.images).argmax(1) == shown.labels).float().mean().item()


def feature_distance(judge: Classifier, real: Tensor, made: Tensor) -> float:
    """Frechet distance between two sets of images, both [count, 1, 28, 28], in the classifier's features."""
    return frechet_distance(in_pieces(judge.features, real), in_pieces(judge.features, made))


def compare(judge: Classifier, test: Fashion, train: Fashion, made: Tensor) -> dict[str, Measure]:
    """Measure how near made images come to the test images; as many training images set the mark beside each figure."""
    generator = torch.Generator().manual_seed(0)
    other = train.where(torch.randperm(len(train), generator=generator)[: len(test)]).images
    features = {"real": test.images, "made": made, "other": other}
    real, found, mark = (in_pieces(judge.features, images) for images in features.values())
    figures = {"feature_distance": (frechet_distance(real, found), frechet_distance(real, mark), False)}
    overlap, best = (manifold(_some(real), _some(each)) for each in (found, mark))
    for name in ("precision", "recall", "density", "coverage"):
        figures[name] = getattr(overlap, name), getattr(best, name), True
    return {
        name: Measure(
            value=round(value, 4),
            higher_is_better=higher,
            data=TEST_DATA,
            baseline=round(baseline, 4),
            baseline_name="real training images",
            note="in the 128 features of an independent classifier",
        )
        for name, (value, baseline, higher) in figures.items()
    }


def _some(features: Tensor) -> Tensor:
    """Choose the rows that nearest neighbours are sought among: every pair of them is compared."""
    order = torch.randperm(len(features), generator=torch.Generator().manual_seed(1))
    return features[order[:MANIFOLD_IMAGES]]
