"""How a manifest looks in a terminal. Reads no store and writes nothing."""

import re
from typing import Final

from rich import box
from rich.console import Group, RenderableType
from rich.filesize import decimal
from rich.markup import escape
from rich.padding import Padding
from rich.table import Table

from model_store.manifest import Manifest, Measure, Quantization, Scoring, Tensor
from model_store.tabling import Category, Channel, Feature, Number, Series

_LAYER: Final = re.compile(r"\.(\d+)\.")  # in the role of a layer's state


def card(manifest: Manifest) -> RenderableType:
    """Everything worth reading in a manifest."""
    origin = manifest.provenance
    about = {
        "task": f"{manifest.task} ({manifest.family})",
        "can": ", ".join(manifest.capabilities),
        "licence": manifest.licence,
        "made": f"{manifest.created:%Y-%m-%d %H:%M} UTC with {_pairs(manifest.exporter)}",
        "trained on": f"{origin.data} ({origin.data_licence}) {origin.home}",
        "recipe": f"{origin.recipe} {_effort(manifest)}".strip(),
        "digest": manifest.digest,
    }
    if manifest.quantization:
        about["rounded"] = _rounded(manifest.quantization)
    if manifest.text and manifest.text.adapters:
        about["adapters"] = ", ".join(f"{manifest.name}:{each}" for each in manifest.text.adapters)
    if manifest.table:
        about["features"] = ", ".join(map(_feature, manifest.table.features))
    if manifest.series:
        about["series"] = _series(manifest.series)
    facts = Table.grid(padding=(0, 2, 0, 0))
    facts.add_column(no_wrap=True)
    facts.add_column(overflow="fold")
    for key, value in about.items():
        facts.add_row(f"[dim]{key}[/]", plain(value))
    title = f"[bold]{manifest.name}:{manifest.version}[/] {plain(manifest.description)}"
    parts: list[RenderableType] = [title, Padding(facts, (1, 1)), *_graphs(manifest)]
    if manifest.scoring:
        parts.append(_scores(manifest.scoring))
    if manifest.quality:
        parts += [_quality(manifest), *_notes(manifest)]
    return Group(*parts, _files(manifest))


def table(*columns: str, title: str | None = None) -> Table:
    """A light table. The first column is never cut; one whose heading starts with `>` is aligned to the right."""
    made = Table(box=box.SIMPLE_HEAD, title=title, title_justify="left", title_style="bold", padding=(0, 1))
    for place, column in enumerate(columns):
        right = column.startswith(">")
        made.add_column(
            column.lstrip(">"),
            justify="right" if right else "left",
            no_wrap=right or not place,
            overflow="fold",
        )
    return made


def _graphs(manifest: Manifest) -> list[Table]:
    tables = []
    for name, graph in manifest.graphs.items():
        made = table("tensor", "", "type", "shape", "means", title=f"Graph {plain(name)}")
        for way, tensors in (("in", graph.inputs), ("out", graph.outputs)):
            for tensor in tensors:
                layer = _LAYER.search(tensor.role)
                if layer is None:
                    made.add_row(plain(tensor.name), way, *_tensor(tensor))
                elif layer[1] == "0":
                    made.add_row(plain(tensor.name), way, *_tensor(tensor)[:2], "in each layer")
        tables.append(made)
    return tables


def _tensor(tensor: Tensor) -> tuple[str, str, str]:
    shape = ", ".join(str(size) for size in tensor.shape)
    return tensor.dtype, plain(f"[{shape}]"), plain("" if tensor.role == tensor.name else tensor.role)


def _scores(scoring: Scoring) -> Table:
    made = table("score", ">threshold", "quantile of", title="Scores")
    for name, each in scoring.calibrations.items():
        draws = f", each the mean of {scoring.samples[name]} draws" if name in scoring.samples else ""
        default = " (default)" if name == scoring.default else ""
        made.add_row(
            plain(name) + default, f"{each.threshold:.4g}", plain(f"{each.quantile:g}: {each.data}{draws}")
        )
    return made


def _quality(manifest: Manifest) -> Table:
    made = table("figure", ">value", "baseline", "measured on", title="Quality")
    for name, each in manifest.quality.items():
        made.add_row(plain(name), _value(each), _baseline(each), plain(each.data))
    return made


def _notes(manifest: Manifest) -> list[RenderableType]:
    """What is said of figures, once for all of which it is said."""
    named: dict[str, list[str]] = {}
    for name, each in manifest.quality.items():
        if each.note:
            named.setdefault(each.note, []).append(name)
    return [
        Padding(f"[dim]{plain(', '.join(names))}:[/] {plain(note)}", (0, 1, 1, 1))
        for note, names in named.items()
    ]


def _files(manifest: Manifest) -> Table:
    made = table("file", ">size", "sha256", title="Files")
    for path, file in manifest.files.items():
        made.add_row(path, decimal(file.bytes), file.sha256.removeprefix("sha256:")[:16])
    made.add_section()
    made.add_row(count(len(manifest.files), "file"), size(manifest), "")
    return made


def plain(text: str) -> str:
    """Text of a manifest as a terminal may show it: no markup, and no control characters it could obey."""
    return escape("".join(letter if letter.isprintable() else "·" for letter in text))


def figure(name: str, each: Measure) -> str:
    """One measured figure with its direction."""
    return f"{plain(name)} {_value(each)}"


def _value(each: Measure) -> str:
    return f"{each.value:.4g} {'↑' if each.higher_is_better else '↓'}"


def _baseline(each: Measure) -> str:
    return "" if each.baseline is None else plain(f"{each.baseline_name or 'baseline'} {each.baseline:.4g}")


def _effort(manifest: Manifest) -> str:
    origin = manifest.provenance
    said = (
        origin.parameters is not None and f"{origin.parameters:,} parameters",
        origin.steps is not None and f"{origin.steps:,} steps",
        origin.seconds is not None and f"{origin.seconds:,.0f} s",
        origin.seed is not None and f"seed {origin.seed}",
    )
    return f"({', '.join(part for part in said if part)})" if any(said) else ""


def _pairs(versions: dict[str, str]) -> str:
    return ", ".join(f"{name} {version}" for name, version in versions.items())


def _feature(each: Feature) -> str:
    if isinstance(each, Category):
        return f"{each.name} ({', '.join(each.categories)}{', or another' * each.unknown})"
    ends = [f"{end:g}" for end in (each.minimum, each.maximum) if end is not None]
    held = (
        f" ({'at least ' * (each.maximum is None)}{'at most ' * (each.minimum is None)}{' to '.join(ends)})"
    )
    return f"{_named(each)}{held if ends else ''}"


def _named(each: Number | Channel) -> str:
    return f"{each.name} in {each.unit}" if each.unit else each.name


def _series(series: Series) -> str:
    channels = ", ".join(map(_named, series.channels))
    hop = "each step" if series.hop == 1 else f"every {series.hop:,} steps"
    return f"{channels}; a window of {count(series.window, 'step')} for {hop}"


def _rounded(found: Quantization) -> str:
    blocks = f" in blocks of {found.block}" if found.block else ""
    cost = f"1 - cosine {found.cosine_distance:.2g}" if found.kl is None else f"KL {found.kl:.2g}"
    return f"weights of {found.bits} bits{blocks}: {cost} from float32, at most {found.limit:g}"


def size(manifest: Manifest) -> str:
    """Size of all files together."""
    return decimal(sum(file.bytes for file in manifest.files.values()))


def count(number: int, noun: str) -> str:
    """A number with its noun."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"
