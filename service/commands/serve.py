"""`atelier serve`: verify, start, show, wait, drain. What it shows is for a person; the service itself logs as JSON."""

import base64
import http.client
import io
import math
import signal
import threading
import time
from pathlib import Path
from typing import Annotated, Any, Final
from urllib.parse import urlsplit

import orjson
import typer
from PIL import Image
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from deployments.config import Config, ConfigError, HostConfig
from deployments.config import load as load_config
from model_store.errors import PackageError, PackageNotFound
from model_store.manifest import READERS, Manifest
from model_store.store import Package, Store, shipped
from model_store.tabling import Category, Feature, Series
from service.local import Local, StartError, check_port, cores
from service.settings import Settings, SettingsError, load

_READY_SECONDS: Final = 120.0


def serve(
    host: Annotated[str | None, typer.Option(help="Address to listen on.  [default: 127.0.0.1]")] = None,
    port: Annotated[
        int | None, typer.Option(help="Port to listen on.  [default: 8000]", min=1, max=65535)
    ] = None,
    store: Annotated[
        str | None, typer.Option(help="Package store: a folder or any fsspec URL.  [default: shipped]")
    ] = None,
    models: Annotated[
        str | None, typer.Option(help="Packages to serve, separated by commas.  [default: all]")
    ] = None,
    proxy: Annotated[str | None, typer.Option(help="haproxy (fast) or python.  [default: haproxy]")] = None,
    device: Annotated[str | None, typer.Option(help="auto, cpu, cuda or cuda:N.  [default: auto]")] = None,
    hosts: Annotated[
        Path | None, typer.Option(help="YAML file that says which host serves which packages.")
    ] = None,
) -> None:
    """Serve packages over HTTP on this machine until Ctrl-C."""
    console = Console(highlight=False)
    try:
        given = {
            "http_host": host, "http_port": port, "store": store, "proxy": proxy, "device": device,
            "models": models, "hosts_file": str(hosts) if hosts else None,
        }  # fmt: skip
        settings = load().override(given)
        config = _config(settings)
        check_port(settings.http_host, settings.http_port)
        manifests = _verified(config, console)
        with Local(config, settings) as local:
            _start(local, console)
            _show(local, manifests, console)
            _wait(console)
        console.print("[green]✓[/] Stopped; nothing is left running.")
    except (StartError, SettingsError, ConfigError, PackageError) as error:
        Console(stderr=True, highlight=False).print(f"[red]✗[/] {escape(str(error))}", soft_wrap=True)
        raise typer.Exit(1) from None


def _config(settings: Settings) -> Config:
    """The hosts: from the file, or one studio with every package, on all cores."""
    if settings.hosts_file:
        return load_config(Path(settings.hosts_file))
    studio = HostConfig(
        models=settings.models or ("*",),
        store=settings.store,
        cache=settings.cache,
        calibrations=settings.calibrations,
        device=settings.device,
        num_cpus=cores(),
    )
    return Config(hosts=(studio,))


def _verified(config: Config, console: Console) -> dict[str, Manifest]:
    """Every package of every host, verified here so that a broken one is a sentence and not a failed deployment."""
    found: dict[str, Manifest] = {}
    with console.status("Verifying packages"):
        for host in config.hosts:
            store = Store(host.store or str(shipped()), Path(host.cache) if host.cache else None)
            for name, version in host.selected(store.names()).items():
                found[name] = _open(store, name, version).manifest
    if not found:
        raise StartError(
            "The store holds no packages: train one with `atelier train`, or name another with --store."
        )
    size = sum(file.bytes for manifest in found.values() for file in manifest.files.values())
    console.print(f"[green]✓[/] {len(found)} packages verified ({size / 1e6:.1f} MB)")
    return found


def _open(store: Store, name: str, version: str | None) -> Package:
    try:
        return store.open(name, version)
    except PackageNotFound:
        raise
    except PackageError as error:
        raise StartError(f"Package {name} cannot be served: {error}.") from error


def _start(local: Local, console: Console) -> None:
    """Ray and Serve report whatever goes wrong in exceptions of any kind; a person needs the last line of it."""
    try:
        _start_steps(local, console)
    except StartError:
        raise
    except Exception as error:
        cause = str(error).strip().splitlines() or [type(error).__name__]
        raise StartError(f"The service could not start: {cause[-1].strip()}") from error


def _start_steps(local: Local, console: Console) -> None:
    began = time.monotonic()
    with console.status("Starting Ray"):
        local.start_ray()
    console.print(f"[green]✓[/] Ray started ({time.monotonic() - began:.1f} s)")
    began = time.monotonic()
    with console.status("Loading models"):
        local.start_serve()
    with console.status("Waiting for the first answer"):
        _until_ready(local.url)
    console.print(f"[green]✓[/] Models loaded, service ready ({time.monotonic() - began:.1f} s)")


def _until_ready(url: str) -> None:
    deadline = time.monotonic() + _READY_SECONDS
    while time.monotonic() < deadline:
        try:
            if _get(url, "/readyz")[0] == http.HTTPStatus.OK:
                return
        except OSError:
            pass  # nobody listens yet
        time.sleep(0.1)
    raise StartError(f"The service did not become ready within {_READY_SECONDS:.0f} s.")


def _get(url: str, path: str) -> tuple[int, Any]:
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=5)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        body = answer.read()
    finally:
        connection.close()
    return answer.status, orjson.loads(body) if answer.status == http.HTTPStatus.OK else None


def _show(local: Local, manifests: dict[str, Manifest], console: Console) -> None:
    table = Table(box=None, pad_edge=False, padding=(0, 3, 0, 0), header_style="dim")
    for column in ("model", "family", "task", "url"):
        table.add_column(column, no_wrap=True)
    for name, manifest in manifests.items():
        table.add_row(f"[bold]{name}[/]", manifest.family, manifest.task, local.url + route_of(manifest))
    console.print()
    # A URL cut short is of no use: rather wider than the terminal.
    Console(width=max(console.width, 120), highlight=False).print(table)
    console.print("\nTry it:\n", style="dim")
    for line in examples(local.url, manifests):
        console.print(f"{line}\n", style="cyan", soft_wrap=True, markup=False)
    hosts = ", ".join(f"{local.url}/{host.name}/v1" for host in local.config.hosts)
    console.print(f"Direct, without the gateway: {hosts}", style="dim", soft_wrap=True)
    console.print(
        f"API documentation: {local.url}/docs   Metrics: {local.url}/metrics", style="dim", soft_wrap=True
    )
    console.print("\nPress Ctrl-C to stop.", style="dim")


_ROUTES: Final = {  # what shows best what a model does comes first
    "chat": "/v1/chat/completions",
    "complete": "/v1/completions",
    "classify": "/v1/classifications",
    "score": "/v1/anomalies",
    "embed": "/v1/embeddings",
    "generate_image": "/v1/images/generations",
    "edit_image": "/v1/images/edits",
}
_LINE_TOKENS: Final = 120
_STEPS: Final = 24
_TEXTS: Final[dict[str, dict[str, object]]] = {
    "/v1/chat/completions": {"messages": [{"role": "user", "content": "list all files"}], "seed": 7},
    "/v1/completions": {"prompt": "To be, or not", "max_tokens": _LINE_TOKENS, "temperature": 0.8, "seed": 7},
    "/v1/embeddings": {"input": ["a text", "another"]},
    "/v1/classifications": {"input": ["a text", "another"]},
}


def route_of(manifest: Manifest) -> str:
    """The route that shows best what a model does."""
    able = manifest.capabilities
    return next((route for capability, route in _ROUTES.items() if capability in able), "/v1/models")


def examples(url: str, manifests: dict[str, Manifest]) -> list[str]:
    """A `curl` line for each model, ready to paste."""
    return [_curl(url, manifest) for manifest in manifests.values()]


def _curl(url: str, manifest: Manifest) -> str:
    route, tail = route_of(manifest), ""
    body: dict[str, object]
    if route == "/v1/anomalies" or (route == "/v1/embeddings" and manifest.encoder is None):
        body = {"input": [_item(manifest)]}
    elif route in _TEXTS:
        body = dict(_TEXTS[route])
        if "max_tokens" in body and manifest.text:
            body["max_tokens"] = min(_LINE_TOKENS, manifest.text.context // 2)
    elif route.startswith("/v1/images/"):
        body = _picture(manifest)
        tail = f' |\n  sed \'s/.*"b64_json":"\\([^"]*\\)".*/\\1/\' | base64 -d > {manifest.name}.png'
    else:
        return f"curl -s {url}{route}"
    body = {"model": manifest.name, **body}
    return (
        f"curl -s {url}{route} -H 'content-type: application/json' -d '{orjson.dumps(body).decode()}'{tail}"
    )


def _picture(manifest: Manifest) -> dict[str, object]:
    image = manifest.image
    if image and image.edit and "generate_image" not in manifest.capabilities:
        # To fill a hole it would take a mask as well.
        task = next((each for each in image.edit.tasks if each != "inpaint"), image.edit.tasks[0])
        return {**_item(manifest), "task": task}
    if image and image.prompt:
        return {"prompt": "a red potion", "seed": 7}
    return {"prompt": image.classes[-1], "seed": 7} if image and takes_class(manifest) else {"seed": 7}


def takes_class(manifest: Manifest) -> bool:
    """Whether pictures are drawn of a class."""
    image = manifest.image
    names = (image.generator, image.style and image.style.mapping, "denoise") if image else ()
    graphs = [manifest.graphs[name] for name in names if name in manifest.graphs]
    return any(tensor.role in ("class_id", "label") for graph in graphs for tensor in graph.inputs)


def _item(manifest: Manifest) -> dict[str, object]:
    """Something no model was trained on: a slope from black to white, means, a saw that ends high, zeros."""
    image = manifest.image
    if manifest.table:
        row = {each.name: _usual(each) for each in manifest.table.features}
        return {"features": row}
    if manifest.series:
        return {"series": _saw(manifest.series)}
    if image is None:
        graph = next(manifest.graphs[name] for name in READERS if name in manifest.graphs)
        shape = [size for size in graph.inputs[0].shape[1:] if isinstance(size, int)]
        return {"tensor": {"shape": shape, "dtype": "float32", "data": [0.0] * math.prod(shape)}}
    slope = Image.linear_gradient("L").resize((image.width, image.height))
    file = io.BytesIO()
    slope.save(file, "png")
    return {"image": base64.b64encode(file.getvalue()).decode()}


def _usual(feature: Feature) -> float | str:
    if isinstance(feature, Category):
        return feature.categories[0]
    least = -math.inf if feature.minimum is None else feature.minimum
    most = math.inf if feature.maximum is None else feature.maximum
    return min(max(_short(feature.mean, feature.deviation), least), most)


def _saw(series: Series) -> list[object]:
    """Steps between the mean and a deviation above it, the last one nine; as many as there is room for in a line."""
    count = series.window if series.padding == "none" else min(series.window, _STEPS)
    ups = [float(step % 2) for step in range(count - 1)] + [9.0]
    steps = [
        [_short(each.mean + up * each.deviation, each.deviation) for each in series.channels] for up in ups
    ]
    return [step[0] for step in steps] if len(series.channels) == 1 else [*steps]


def _short(value: float, deviation: float) -> float:
    """No more digits than a thousandth of the deviation has."""
    return round(value, 3 - math.floor(math.log10(deviation)))


def _wait(console: Console) -> None:
    """Until Ctrl-C or a TERM signal; a second one does not cut the first one's draining short."""
    stop = threading.Event()
    for each in (signal.SIGINT, signal.SIGTERM):
        signal.signal(each, lambda *_: stop.set())
    stop.wait()
    console.print("\nStopping: running answers are finished first.", style="dim")
