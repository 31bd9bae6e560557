"""Evaluates what reads items: scores against labels, maps against masks, reconstructions against originals."""

from collections.abc import Sequence
from typing import Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from deployments.evaluation.data import GOOD, Items
from deployments.evaluation.detection import has_both, histogram, judged
from deployments.evaluation.errors import EvaluationError
from deployments.evaluation.estimates import Sampling, estimate, mean
from deployments.evaluation.likeness import psnr, squared_error, ssim
from deployments.evaluation.regions import defective, localisation
from deployments.evaluation.shown import Found, Grid, Progress, tile
from deployments.evaluation.speed import speed
from deployments.pictures import heat
from deployments.randomness import stream
from model_store.device import Device
from model_store.feeds import feeds
from model_store.manifest import Graph, Manifest
from model_store.package import Package
from model_store.session import Session, open_graph

Outputs: TypeAlias = dict[str, NDArray[np.float32]]  # by role

READERS: Final = ("score", "encode", "reconstruct")
_PREFIX: Final = "score."
_BATCH: Final = 32
_SHOWN: Final = 12


def item_shape(manifest: Manifest) -> tuple[int, ...] | None:
    """Shape of one item, where the model reads any."""
    for name in READERS:
        if name in manifest.graphs:
            for each in manifest.graphs[name].inputs:
                if each.role == "input" and all(isinstance(size, int) for size in each.shape[1:]):
                    return tuple(map(int, each.shape[1:]))
    return None


def run_items(
    package: Package, values: NDArray[np.float32], wanted: Sequence[str], device: Device, progress: Progress
) -> Outputs:
    """The wanted roles [items, ...] that any graph computes; beside the items graphs take what is usual."""
    found: Outputs = {}
    for name in READERS:
        graph = package.manifest.graphs.get(name)
        roles = [each.role for each in graph.outputs if each.role in wanted] if graph else []
        if graph and set(roles) - found.keys() and _is_needed(package.manifest, name, wanted):
            found |= _run(package, name, graph, roles, values, device, progress)
    return found


def _is_needed(manifest: Manifest, name: str, wanted: Sequence[str]) -> bool:
    """Whether no later graph computes all of it as well."""
    mine = {each.role for each in manifest.graphs[name].outputs} & set(wanted)
    later = [manifest.graphs[each] for each in READERS[READERS.index(name) + 1 :] if each in manifest.graphs]
    others = [{each.role for each in graph.outputs} & set(wanted) for graph in later]
    return not any(mine < each for each in others)


def _run(
    package: Package,
    name: str,
    graph: Graph,
    roles: Sequence[str],
    values: NDArray[np.float32],
    device: Device,
    progress: Progress,
) -> Outputs:
    session = open_graph(package, name, device=device)
    names = {each.role: each.name for each in graph.outputs}
    parts: dict[str, list[NDArray[np.float32]]] = {role: [] for role in roles}
    for start in range(0, len(values), _BATCH):
        batch = feeds(graph.inputs, values[start : start + _BATCH])
        for role, array in zip(roles, session.run(batch, [names[role] for role in roles]), strict=True):
            parts[role].append(array)
        progress(f"Running {name}", min(start + _BATCH, len(values)), len(values))
    outputs = {role: np.concatenate(each) for role, each in parts.items()}
    scoring = package.manifest.scoring
    for score, count in scoring.samples.items() if scoring else ():
        role = _PREFIX + score
        if role in outputs:
            outputs[role] = _over_draws(session, graph, names[role], count, values)
    for role, array in outputs.items():
        if not np.isfinite(array).all():
            raise EvaluationError(f"the model has no finite {role} for some of the items")
    return outputs


def _over_draws(
    session: Session, graph: Graph, score: str, count: int, values: NDArray[np.float32]
) -> NDArray[np.float32]:
    """The mean of a score [items] over draws of `noise`: those of one request of all items that has no seed."""
    noise = next(each for each in graph.inputs if each.role == "noise")
    size = (count, int(noise.shape[-1]))
    parts = []
    for start in range(0, len(values), _BATCH):
        batch = feeds(graph.inputs, values[start : start + _BATCH])
        places = range(start, min(start + _BATCH, len(values)))
        drawn = [stream(0, place).standard_normal(size, dtype=np.float32) for place in places]
        each = [session.run(batch | {noise.name: some}, [score])[0] for some in np.stack(drawn, axis=1)]
        parts.append(np.mean(each, axis=0))
    return np.concatenate(parts)


def evaluate_items(package: Package, items: Items, key: str, device: Device, progress: Progress) -> Found:
    """Everything that can be said of a model that reads items."""
    manifest, found = package.manifest, Found()
    scores = [
        each.role
        for graph in manifest.graphs.values()
        for each in graph.outputs
        if each.role.startswith(_PREFIX)
    ]
    outputs = run_items(package, items.values, [*scores, "reconstruction", "error_map"], device, progress)
    redrawn = outputs.get("reconstruction")
    named = {role.removeprefix(_PREFIX): outputs[role] for role in dict.fromkeys(scores)}
    default = manifest.scoring.default if manifest.scoring else None
    named = {name: named[name] for name in sorted(named, key=lambda each: each != default)}
    if named:
        progress("Judging scores", 0, 0)
        found.add(judged(named, items.labels, manifest.scoring, key))
    if items.masks is not None and "error_map" in outputs and has_both(defective(items.masks)):
        progress("Judging maps", 0, 0)
        figures, plots = localisation(outputs["error_map"].mean(1), items.masks, key)
        found.add(Found(figures, plots))
    if redrawn is not None:
        progress("Judging reconstructions", 0, 0)
        found.add(_redrawn(manifest, items, redrawn, key))
    if manifest.image and (named or redrawn is not None):
        found.grids += _grids(items, next(iter(named.values()), None), outputs)
    found.add(_speed(package, items.values, device, progress))
    return found


def _redrawn(manifest: Manifest, items: Items, redrawn: NDArray[np.float32], key: str) -> Found:
    """Of normal items only, where labels tell them: a good model redraws no anomaly."""
    normal = ~items.labels if has_both(items.labels) else np.ones(len(redrawn), bool)
    original, made = items.values[normal], redrawn[normal]
    sampling = Sampling.of(f"{key}:redrawn", len(original))
    of = "of normal items" if not normal.all() else "of all items"
    measured = {"mse": (squared_error(original, made), False, "mean squared error", "")}
    if manifest.image:
        measured["psnr"] = (psnr(original, made), True, "mean peak signal-to-noise ratio", "dB")
        measured["ssim"] = (ssim(original, made), True, "mean structural similarity", "")
    figures = {
        f"reconstruction_{name}": estimate(
            mean(values), sampling, better=better, about=f"{about} of the reconstruction, {of}", unit=unit
        )
        for name, (values, better, about, unit) in measured.items()
    }
    name = "psnr" if manifest.image else "mse"
    plot = histogram(
        f"Reconstruction {name.upper()}",
        f"{name.upper()} {measured[name][3]}".strip(),
        {of: measured[name][0]},
        {},
    )
    return Found(figures, [plot])


def _grids(items: Items, scores: NDArray[np.float32] | None, outputs: Outputs) -> list[Grid]:
    def shown(place: int) -> list[NDArray[np.floating]]:
        parts = [items.values[place]]
        if "reconstruction" in outputs:
            parts.append(outputs["reconstruction"][place])
        if "error_map" in outputs:
            parts.append(heat(outputs["error_map"][place].mean(0)))
        return parts

    def grid(title: str, about: str, places: Sequence[int]) -> Grid:
        tiles = []
        for place in places[:_SHOWN]:
            words = [items.groups[place]] if items.groups[place] not in ("", GOOD, "anomaly") else []
            if scores is not None:
                words.append(f"{scores[place]:.3g}")
            tiles.append(tile(" · ".join(words), *shown(int(place))))
        return Grid(title, about, tuple(tiles))

    each = ["the item", *(["its reconstruction"] if "reconstruction" in outputs else [])]
    each += ["where the error is"] if "error_map" in outputs else []
    key = "Each picture: " + ", ".join(each) + "."
    labels = items.labels
    if scores is None:
        return [grid("Samples", key, list(range(min(_SHOWN, len(items.values)))))]
    order = np.argsort(scores, kind="stable")
    if not has_both(labels):
        return [
            grid("Highest scores", f"What looks least normal to the model. {key}", order[::-1].tolist()),
            grid("Lowest scores", "What looks most normal.", order.tolist()),
        ]
    normal, odd = order[~labels[order]], order[labels[order]]
    return [
        grid("Anomalies found", f"The anomalies that score highest. {key}", odd[::-1].tolist()),
        grid("Anomalies missed", "The anomalies that score lowest.", odd.tolist()),
        grid("False alarms", "The normal items that score highest.", normal[::-1].tolist()),
    ]


def _speed(package: Package, values: NDArray[np.float32], device: Device, progress: Progress) -> Found:
    """Of the graph that answers most requests: the one that computes least."""
    name = next(each for each in READERS if each in package.manifest.graphs)
    graph = package.manifest.graphs[name]
    session = open_graph(package, name, device=device, replay=False)
    batches = {
        batch: feeds(graph.inputs, np.resize(values, (batch, *values.shape[1:]))) for batch in (1, _BATCH)
    }

    def run(batch: int) -> None:
        session.run(batches[batch])

    return Found(speed(run, tuple(batches), "items", f"of the graph {name}, without a server", progress))
