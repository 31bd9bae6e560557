"""One evaluation from beginning to end: which parts fit a package, and what they found, as a record and samples."""

import asyncio
import os
import platform
import time
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

from prometheus_client import CollectorRegistry

from deployments.config import HostConfig
from deployments.errors import ServingError
from deployments.evaluation.data import read_items
from deployments.evaluation.drawings import compare, evaluate_drawings
from deployments.evaluation.edits import evaluate_edits
from deployments.evaluation.encoders import evaluate_encoder, read_marked
from deployments.evaluation.errors import EvaluationError
from deployments.evaluation.items import evaluate_items, item_shape
from deployments.evaluation.record import Data, Evaluation, Model
from deployments.evaluation.series import evaluate_series
from deployments.evaluation.series_data import read_series
from deployments.evaluation.shown import Found, Progress
from deployments.evaluation.table_data import read_rows
from deployments.evaluation.tables import evaluate_rows
from deployments.evaluation.text_data import read_texts
from deployments.evaluation.texts import Asked, evaluate_texts
from deployments.metrics import Metrics
from deployments.model import open_model
from deployments.studio import Studio
from model_store.manifest import Manifest
from model_store.package import Package
from model_store.session import choose_device
from model_store.tabling import Series, Table


@dataclass(frozen=True)
class Plan:
    """What to evaluate a package with."""

    data: Path
    features: Package | None = None  # the net whose latents drawings are compared in
    limit: int | None = None  # most items of the data
    samples: int = 1000  # pictures to draw, or documents to continue
    max_tokens: int = 128
    seed: int = 0
    device: str = "auto"
    label: str | None = None  # column that says which rows or steps are anomalies


def evaluate(package: Package, plan: Plan, progress: Progress) -> tuple[Evaluation, Found]:
    """Measure a package. Raises EvaluationError, PackageError."""
    began = time.perf_counter()
    manifest = package.manifest
    if not plan.data.exists():
        raise EvaluationError(f"there is no {plan.data}")
    try:
        data, found = _measure(package, plan, progress)
    except ServingError as error:
        raise EvaluationError(f"the model refuses the data: {error}") from error
    settings = {"seed": str(plan.seed), "device": str(choose_device(plan.device))}
    settings |= {"limit": str(plan.limit)} if plan.limit else {}
    if plan.features:
        settings["features"] = f"{plan.features.manifest.name}:{plan.features.manifest.version}"
    record = Evaluation(
        created=datetime.now(UTC).replace(microsecond=0),
        seconds=round(time.perf_counter() - began, 1),
        model=Model(**{name: getattr(manifest, name) for name in Model.model_fields}),
        data=data,
        settings=settings | found.settings,
        environment=_environment(),
        figures=found.figures,
        plots=tuple(found.plots),
    )
    return record, found


def _measure(package: Package, plan: Plan, progress: Progress) -> tuple[Data, Found]:
    manifest = package.manifest
    if manifest.text:
        return _texts(package, plan, progress)
    if plan.label and (not (manifest.table or manifest.series) or plan.data.suffix == ".npz"):
        raise EvaluationError("--label names a column of .csv files; other data has its own labels")
    if manifest.table:
        return _rows(package, manifest.table, plan, progress)
    if manifest.encoder:
        return _encoder(package, plan, progress)
    if manifest.series:
        return _series(package, manifest.series, plan, progress)
    found, data = Found(), None
    shape = item_shape(manifest)
    device = choose_device(plan.device)
    progress("Reading the data", 0, 0)
    if shape:
        items, data = read_items(plan.data, shape, manifest.image, plan.limit)
        found.add(evaluate_items(package, items, data.digest, device, progress))
    if "generate_image" in manifest.capabilities:
        data = _drawings(package, plan, found, progress) or data
    if manifest.image and manifest.image.edit:
        data = _edits(package, plan, found, progress)
    if data is None:
        raise EvaluationError(_nothing(manifest))
    return data, found


def _rows(package: Package, table: Table, plan: Plan, progress: Progress) -> tuple[Data, Found]:
    progress("Reading the data", 0, 0)
    rows, data = read_rows(plan.data, table, plan.label, plan.limit)
    with closing(_studio(package, plan)) as studio:
        work = evaluate_rows(studio, package.manifest, rows, plan.seed, data.digest, progress)
        found = asyncio.run(work)
    found.settings |= {"columns left out": ", ".join(rows.ignored)} if rows.ignored else {}
    return data, found


def _series(package: Package, series: Series, plan: Plan, progress: Progress) -> tuple[Data, Found]:
    progress("Reading the data", 0, 0)
    recorded, data = read_series(plan.data, series, plan.label, plan.limit)
    with closing(_studio(package, plan)) as studio:
        return data, asyncio.run(evaluate_series(studio, package.manifest, recorded, data.digest, progress))


def _encoder(package: Package, plan: Plan, progress: Progress) -> tuple[Data, Found]:
    progress("Reading the data", 0, 0)
    marked, data = read_marked(plan.data, plan.limit)
    with closing(_studio(package, plan)) as studio:
        return data, asyncio.run(evaluate_encoder(studio, package.manifest, marked, data.digest, progress))


def _texts(package: Package, plan: Plan, progress: Progress) -> tuple[Data, Found]:
    texts, data = read_texts(plan.data, plan.limit)
    asked = Asked(plan.max_tokens, min(plan.samples, 64), plan.seed)

    async def run(studio: Studio) -> Found:
        return await evaluate_texts(studio, package.manifest, texts, asked, data.digest, progress)

    with closing(_studio(package, plan)) as studio:
        return data, asyncio.run(run(studio))


def _drawings(package: Package, plan: Plan, found: Found, progress: Progress) -> Data | None:
    """Add what can be said of what is drawn. The data is that which the feature net reads."""
    if plan.features is None:
        return None
    net = plan.features
    shape = item_shape(net.manifest)
    if shape is None:
        raise EvaluationError(f"{net.manifest.name} reads no pictures: no feature net")
    real, data = read_items(plan.data, shape, net.manifest.image, plan.limit)

    with closing(_studio(package, plan)) as studio:
        drawing = evaluate_drawings(studio, package.manifest, real, plan.samples, plan.seed, progress)
        drawn, about = asyncio.run(drawing)
    found.figures |= compare(drawn, real, net, data.digest, choose_device(plan.device), progress)
    found.add(about)
    found.settings |= {"samples": str(plan.samples)} | ({"prompts": drawn.whose} if drawn.whose else {})
    return data


def _edits(package: Package, plan: Plan, found: Found, progress: Progress) -> Data:
    """Add what can be said of pictures that are damaged and put right again."""
    image = package.manifest.image
    if image is None:
        raise EvaluationError(_nothing(package.manifest))
    limit = min(plan.samples, plan.limit or plan.samples)
    items, data = read_items(plan.data, (image.channels, image.height, image.width), image, limit)
    with closing(_studio(package, plan)) as studio:
        edits = evaluate_edits(studio, package.manifest, items, plan.seed, data.digest, progress)
        found.add(asyncio.run(edits))
    return data


def _studio(package: Package, plan: Plan) -> Studio:
    metrics = Metrics(CollectorRegistry())
    device = choose_device(plan.device)
    return Studio([open_model(package, HostConfig(), device, metrics)], metrics)


def _nothing(manifest: Manifest) -> str:
    if "generate_image" in manifest.capabilities:
        return "what is drawn is compared in the features of another package: name one with --features"
    return f"there is no evaluation yet for {manifest.task} by {manifest.family}"


def _environment() -> dict[str, str]:
    """What decides how fast it was, and with which versions."""
    runtime = (
        "onnxruntime-gpu"
        if platform.machine() == "x86_64" and platform.system() == "Linux"
        else "onnxruntime"
    )
    return {
        "atelier": version("atelier"),
        "onnxruntime": version(runtime),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "processor": _processor(),
        "cores": str(os.cpu_count()),
    }


def _processor() -> str:
    """The processor's own name where the system tells it."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    return next(
        (line.partition(":")[2].strip() for line in lines if line.startswith("model name")),
        platform.machine(),
    )
