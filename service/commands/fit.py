"""`atelier fit`: arrays in, a calibrated and measured package of a classical detector out."""

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Final

import typer

from model_store.export import graph_process
from model_store.export.draft import check_name
from model_store.export.options import NOT_STATED, Origin
from model_store.fitted.recipe import MOST_BYTES, Recipe
from model_store.manifest import Manifest
from service.commands.export import run
from service.commands.export_options import (
    Attribution,
    Data,
    DataLicence,
    Description,
    Home,
    Licence,
    Name,
    StoreOption,
)
from service.commands.publishing import Steps, publish

DETECTOR: Final = "The detector"
SHARE: Final = 0.2

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)


@app.callback()
def _group() -> None:
    """Fit an anomaly detector to normal items and publish it."""


Arrays = Annotated[
    Path,
    typer.Argument(
        metavar="DATA",
        help="An .npz file of items X: rows, vectors or pictures; labels y, if known: 0 normal, 1 anomaly; names of rows' features. "
        "Or a .csv file with named columns. Nothing is learned from anomalies.",
    ),
]
Features = Annotated[
    list[str] | None,
    typer.Option(
        "--feature",
        metavar="NAME",
        rich_help_panel=DETECTOR,
        help="Name of each column of X in turn, or column of the .csv file to take (else all): rows are then sent by name, and may lack values.",
    ),
]
Label = Annotated[
    str | None,
    typer.Option(
        rich_help_panel=DETECTOR,
        metavar="COLUMN",
        help="CSV column with 0 for normal and 1 for anomalies (else label or anomaly, if there).",
    ),
]
Share = Annotated[
    float,
    typer.Option(
        "--calibration",
        min=0.01,
        max=0.99,
        rich_help_panel=DETECTOR,
        help="Share of the normal items that is held out, for the threshold and the figures.",
    ),
]
Quantile = Annotated[
    float,
    typer.Option(
        min=0.5, max=0.9999, rich_help_panel=DETECTOR, help="Of their scores, where the threshold is."
    ),
]
Standardize = Annotated[
    bool | None,
    typer.Option(
        rich_help_panel=DETECTOR,
        help="Measure each feature in units of its spread. Without: rows and vectors, not pictures.",
    ),
]
Seed = Annotated[int, typer.Option(min=0, rich_help_panel=DETECTOR, help="Of what is chosen at random.")]


@app.command()
def pca(  # noqa: PLR0917 - each argument is one option of the command
    arrays: Arrays,
    name: Name,
    components: Annotated[
        int | None,
        typer.Option(min=1, rich_help_panel=DETECTOR, help="Without: as many as keep 95 % of the variance."),
    ] = None,
    feature: Features = None,
    label: Label = None,
    calibration: Share = SHARE,
    quantile: Quantile = 0.99,
    standardize: Standardize = None,
    seed: Seed = 0,
    store: StoreOption = None,
    description: Description = "",
    licence: Licence = NOT_STATED,
    data: Data = NOT_STATED,
    data_licence: DataLicence = NOT_STATED,
    attribution: Attribution = NOT_STATED,
    home: Home = NOT_STATED,
) -> None:
    """Principal components: an item scores by what they do not redraw of it."""
    origin = _origin(description, licence, data, data_licence, attribution, home)
    made = Recipe("pca", components, standardize, seed=seed)
    _fit(arrays, name, made, (feature or (), label), (calibration, quantile), origin, store)


@app.command()
def knn(  # noqa: PLR0917 - each argument is one option of the command
    arrays: Arrays,
    name: Name,
    neighbours: Annotated[
        int, typer.Option("-k", "--neighbours", min=1, rich_help_panel=DETECTOR, help="How many.")
    ] = 5,
    examples: Annotated[
        int | None,
        typer.Option(
            min=1,
            rich_help_panel=DETECTOR,
            help=f"Keep at most so many normal items, chosen at random: {MOST_BYTES >> 20} MiB are the most, and every request reads all.",
        ),
    ] = None,
    feature: Features = None,
    label: Label = None,
    calibration: Share = SHARE,
    quantile: Quantile = 0.99,
    standardize: Standardize = None,
    seed: Seed = 0,
    store: StoreOption = None,
    description: Description = "",
    licence: Licence = NOT_STATED,
    data: Data = NOT_STATED,
    data_licence: DataLicence = NOT_STATED,
    attribution: Attribution = NOT_STATED,
    home: Home = NOT_STATED,
) -> None:
    """Nearest neighbours: an item scores by its mean distance to the nearest normal items."""
    origin = _origin(description, licence, data, data_licence, attribution, home)
    made = Recipe("knn", neighbours, standardize, examples, seed)
    _fit(arrays, name, made, (feature or (), label), (calibration, quantile), origin, store)


@app.command()
def mahalanobis(  # noqa: PLR0917 - each argument is one option of the command
    arrays: Arrays,
    name: Name,
    feature: Features = None,
    label: Label = None,
    calibration: Share = SHARE,
    quantile: Quantile = 0.99,
    standardize: Standardize = None,
    seed: Seed = 0,
    store: StoreOption = None,
    description: Description = "",
    licence: Licence = NOT_STATED,
    data: Data = NOT_STATED,
    data_licence: DataLicence = NOT_STATED,
    attribution: Attribution = NOT_STATED,
    home: Home = NOT_STATED,
) -> None:
    """Mahalanobis distance: an item scores by its distance from the mean, in units of the normal items' covariance."""
    origin = _origin(description, licence, data, data_licence, attribution, home)
    made = Recipe("mahalanobis", standardize=standardize, seed=seed)
    _fit(arrays, name, made, (feature or (), label), (calibration, quantile), origin, store)


def _origin(*said: str) -> Origin:
    description, licence, data, data_licence, attribution, home = said
    return Origin(
        description=description, licence=licence, data=data, data_licence=data_licence, attribution=attribution,
        home=home,
    )  # fmt: skip


def _fit(
    arrays: Path,
    name: str,
    recipe: Recipe,
    named: tuple[Sequence[str], str | None],
    held: tuple[float, float],
    origin: Origin,
    store: str | None,
) -> None:
    def work(address: str, steps: Steps) -> Manifest:
        check_name(name)
        graph_process.check_tools()
        # Here: help and refusals need no torch.
        from model_store.export.calibration import read_items
        from model_store.fitted.fit import draft, fit, split
        from model_store.fitted.named import fit_named, read_named

        steps.step(f"read {arrays.name}")
        share, quantile = held
        if rows := read_named(arrays, *named):
            steps.step(f"fit {recipe.kind} to normal rows of {len(rows.features)} features")
            fitted, rest = fit_named(rows, recipe, share, arrays.name)
        else:
            normal, rest = split(read_items(arrays), share, recipe.seed)
            steps.step(f"fit {recipe.kind} to {len(normal)} normal items")
            fitted = fit(normal, recipe)
        with tempfile.TemporaryDirectory(prefix="atelier-fit-") as folder:
            steps.step(f"calibrate and measure on {len(rest.items)} held-out items")
            return publish(draft(fitted, rest, name, Path(folder), origin, quantile), address, steps)

    run(store, name, work, "ONNX Runtime beside torch", "relative error")
