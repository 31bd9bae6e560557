"""textures-ae: the autoencoder of `fashion_ae`, in colour, for floors, walls and waters; its error map shows what is wrong on one.

Of every five variants of a texture three are learned from, one calibrates and one is measured on. Knows no serving. `train()`
takes about a minute on one core: pixel AUROC 0.983 and AUPRO 0.938 on synthetic defects (32 principal components: 0.982, 0.933).
"""

from pathlib import Path
from typing import Final

from safetensors.torch import save_model
from torch import Tensor

from model_store.export.draft import Draft, Progress
from model_store.imaging import Image
from model_store.zoo import fashion, fashion_ae, tiles
from model_store.zoo.fashion_ae import Recipe
from model_store.zoo.fashion_scoring import calibrate

NAME: Final = "textures-ae"
CONFIG: Final = fashion_ae.Config(latent=32, channels=3, side=tiles.SIDE)
RECIPE: Final = Recipe()
TEST_DATA: Final = "unseen variants of the floors, walls and waters among the tiles"
HELD_DATA: Final = "floors, walls and waters that the model was not trained on"
WORDS: Final = frozenset({"floor", "wall", "water"})
OTHERS: Final = frozenset({"door", "icon"})
FIVE: Final = 5

DARKEST: Final = 0.1
"""Mean light below which a texture is not measured on: defects could hardly be seen there."""


def autoencoder() -> fashion_ae.Autoencoder:
    """Untrained."""
    return fashion_ae.Autoencoder(CONFIG)


def read_split(data: Path) -> tuple[Tensor, Tensor, Tensor]:
    """Textures [count, 3, 32, 32] to learn from, to calibrate by and to measure on. Raises DataError."""
    every = tiles.read_tiles(data)
    opaque = (every.pixels[:, 3] == 1).flatten(1).all(1).tolist()
    textures = every.where(
        place
        for place, each in enumerate(every.captions)
        if opaque[place] and each.words & WORDS and not each.words & OTHERS
    )
    parts: tuple[list[int], list[int], list[int]] = ([], [], [])
    for family in tiles.families(textures):
        for number, place in enumerate(family):
            parts[max(0, number % FIVE - 2)].append(place)
    learned, held, test = (textures.pixels[sorted(part), :3] for part in parts)
    return learned, held, test[test.flatten(1).mean(1) > DARKEST]


def train(data: Path, progress: Progress, recipe: Recipe = RECIPE) -> fashion_ae.Autoencoder:
    """Train on the textures below `data`."""
    learned, _, _ = read_split(data)
    return fashion_ae.fit(learned, progress, recipe, CONFIG)


def draft(
    trained: fashion_ae.Autoencoder, data: Path, work: Path, progress: Progress, recipe: Recipe = RECIPE
) -> Draft:
    """Measure and calibrate a trained model on textures it has not seen; its weights go into the folder `work`."""
    weights = work / f"{NAME}.safetensors"
    save_model(trained, str(weights))
    learned, held, test = read_split(data)
    scoring, files = calibrate(
        fashion_ae.scores(trained, held),
        default="peak",
        data=HELD_DATA,
        latents=fashion.in_pieces(trained.encode, held),
    )
    quality = fashion_ae.measure(trained, learned, test, TEST_DATA)
    progress(1, 1, {name: each.value for name, each in quality.items()})
    return Draft(
        name=NAME,
        task="reconstruction",
        family="autoencoder",
        capabilities=("reconstruct", "score", "encode", "embed", "decode", "interpolate"),
        description="A small autoencoder of floors, walls and waters, 32x32 in colour: shows and scores what is wrong on them.",
        licence="Apache-2.0",
        provenance=tiles.SOURCE.provenance(trained, "textures_ae", seed=recipe.seed, steps=recipe.steps),
        graphs=fashion_ae.graphs(weights, f"{__name__}:autoencoder", CONFIG),
        files=files,
        image=Image(channels=3, height=tiles.SIDE, width=tiles.SIDE),
        scoring=scoring,
        quality=quality,
    )
