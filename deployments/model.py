"""One package, loaded: its engine, and the operations its capabilities allow."""

import io
import time
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Final

import numpy as np

from deployments.config import HostConfig
from deployments.engine import Engine
from deployments.errors import Unavailable
from deployments.image.developing import DECODE, ENCODE, Developing
from deployments.image.draw import Drawing
from deployments.image.edit import Editing
from deployments.image.files import Files
from deployments.image.flow import Flow
from deployments.image.painting import CONDITION, DENOISE, Painted, Painting
from deployments.image.requests import Requests
from deployments.image.wording import Wording
from deployments.latent_space import latent_size, space_of
from deployments.messages import Card, TextDelta
from deployments.metrics import Metrics
from deployments.oneshot import Done, OneShot, Task
from deployments.reconstruction.calibrated import Calibrated, latents_of
from deployments.reconstruction.calibrations import Calibrations
from deployments.reconstruction.drift import Drift
from deployments.reconstruction.features import described
from deployments.reconstruction.items import Program, programs
from deployments.reconstruction.scores import Scores
from deployments.reconstruction.tasks import Autoencoding
from deployments.text.encoder import GRAPH, EncoderProgram, Encoding, Read, Reading
from deployments.text.grammar import Grammars
from deployments.text.program import TextProgram
from deployments.text.prompts import Prompts
from deployments.text.sequence import Sequence
from deployments.text.slots import Slots
from deployments.text.template import Template
from deployments.text.vocabulary import Vocabulary
from model_store.calibrations import CalibrationFolder, Latents
from model_store.errors import BrokenFiles
from model_store.imaging import Style
from model_store.manifest import Manifest
from model_store.session import Array, Device, Session, open_graph
from model_store.store import Package, calibrations_beside, shipped


class TextModel:
    """A model that continues text."""

    def __init__(self, package: Package, config: HostConfig, device: Device, metrics: Metrics) -> None:
        self.manifest = manifest = package.manifest
        if manifest.text is None:
            raise ValueError(f"{manifest.name} has no text section")
        text = manifest.text
        context = min(text.context, config.context or text.context)

        def opened(graph: str) -> Session:
            return open_graph(
                package,
                graph,
                device=device,
                threads=threads_of(config, _bytes(manifest, graph)),
                capture=graph == "step",
            )

        step = opened("step")
        home = step.home(text.state[0].past) if text.state else device
        slots = Slots(text, live=config.slots, kept=config.prefix_slots, context=context, device=home)
        self.program = TextProgram(
            manifest,
            step,
            slots,
            metrics,
            capacity=config.slots,
            context=context,
            prefill_chunk=config.prefill_chunk,
            encode=opened("encode") if text.source else None,
        )
        vocabulary = Vocabulary(package.read(text.tokenizer), text.vocabulary)
        template = _template(package, vocabulary)
        grammars = Grammars(vocabulary, text.eos_token_ids)
        self.prompts = Prompts(
            text,
            vocabulary,
            context,
            template=template,
            constrain=lambda grammar: grammars.compile(grammar).matcher,
            share_prefixes=config.share_prefixes,
        )
        self.engine: Engine[Sequence, TextDelta] = Engine(
            manifest.name,
            self.program,
            metrics,
            max_waiting=config.max_waiting,
            max_waiting_tokens=config.max_waiting_tokens,
            weights=config.weights,
        )
        self.limits: dict[str, object] = {"context": context, "vocabulary": text.vocabulary}
        if text.source:
            self.limits["source"] = text.source.context
        if text.chat:
            self.limits |= {"chat": True, "tools": text.chat.tools}


class EncoderModel:
    """A model that reads texts whole: vectors, or probabilities of classes."""

    def __init__(self, package: Package, config: HostConfig, device: Device, metrics: Metrics) -> None:
        self.manifest = manifest = package.manifest
        if manifest.encoder is None:
            raise ValueError(f"{manifest.name} has no encoder section")
        encoder = manifest.encoder
        session = open_graph(
            package, GRAPH, device=device, threads=threads_of(config, _bytes(manifest, GRAPH))
        )
        program = EncoderProgram(manifest, session, metrics, max_batch=config.max_batch)
        vocabulary = Vocabulary(package.read(encoder.tokenizer), encoder.vocabulary)
        self.encoding = Encoding(manifest, encoder, vocabulary)
        self.engine: Engine[Reading, Read] = Engine(
            manifest.name,
            program,
            metrics,
            max_waiting=config.max_waiting,
            max_waiting_tokens=config.max_waiting_tokens,
            weights=config.weights,
        )
        self.limits: dict[str, object] = {"context": encoder.context, "vocabulary": encoder.vocabulary}
        self.limits |= (
            {"classes": list(encoder.classes)} if encoder.classes else {"dimensions": self.encoding.width}
        )


class OneShotModel:
    """A model that answers in one step: autoencoder, VAE, GAN, discriminator."""

    def __init__(self, package: Package, config: HostConfig, device: Device, metrics: Metrics) -> None:
        self.manifest = manifest = package.manifest
        graphs = {
            key: (
                graph,
                open_graph(package, key, device=device, threads=threads_of(config, _bytes(manifest, key))),
            )
            for key, graph in manifest.graphs.items()
        }
        program = OneShot(manifest.name, graphs, metrics, max_batch=config.max_batch)
        self.engine: Engine[Task, Done] = Engine(
            manifest.name, program, metrics, max_waiting=config.max_waiting
        )
        self.autoencoding = (
            Autoencoding(manifest, config.max_image_pixels) if Autoencoding.serves(manifest) else None
        )
        normal = _normal_latents(package)
        self.scores = (
            Scores(manifest, self.autoencoding, _calibrations(package, config, normal))
            if self.autoencoding and manifest.scoring
            else None
        )
        self.drift = Drift(manifest.name, metrics)
        image = manifest.image
        most_rows = config.max_waiting + config.max_batch
        self._program = programs(manifest, self.autoencoding, most_rows) if self.autoencoding else None
        self.drawing = _drawing(package, config)
        self.editing = Editing(manifest, Files(manifest, config)) if image and image.edit else None
        self.space = space_of(manifest, latent_size(manifest), config.max_image_pixels, normal)
        self.item_numbers = self.autoencoding.items.numbers if self.autoencoding else 0
        self.limits = _limits(manifest)
        if self.editing:
            self.limits |= self.editing.limits
        if self.scores:
            self.limits["scores"] = self.scores.calibrations.thresholds
        if self.autoencoding and self.autoencoding.reads:
            self.limits["input_shape"] = list(self.autoencoding.items.shape)
            if image:
                self.limits["resize"] = image.resize.mode
            if image and image.resize.mode == "keep":
                self.limits["largest_side"] = image.resize.largest

    def program(self) -> Program | None:
        """What works on one request of items or latents."""
        return self._program() if self._program else None


class FlowModel:
    """A model that makes pictures in steps."""

    def __init__(self, package: Package, config: HostConfig, device: Device, metrics: Metrics) -> None:
        self.manifest = manifest = package.manifest

        def opened(graph: str) -> Session:
            return open_graph(
                package,
                graph,
                device=device,
                # A denoiser has few weights for what it computes: it gains from every thread, however small its file.
                threads=share_of(config) if graph == DENOISE else threads_of(config, _bytes(manifest, graph)),
                capture=graph == DENOISE,
            )

        self.program = Flow(
            manifest,
            opened(DENOISE),
            metrics,
            capacity=config.slots,
            condition=opened(CONDITION) if CONDITION in manifest.graphs else None,
        )
        decode, encode = (opened(key) if key in manifest.graphs else None for key in (DECODE, ENCODE))
        prompt = manifest.image.prompt if manifest.image else ()
        tokenizers = {part.tokenizer: package.read(part.tokenizer) for part in prompt}
        self.requests = Requests(
            manifest,
            Wording(manifest, tokenizers),
            Developing(manifest, decode, encode),
            config,
        )
        self.space = space_of(manifest, self.requests.latent_size, config.max_image_pixels)
        self.engine: Engine[Painting, Painted] = Engine(
            manifest.name,
            self.program,
            metrics,
            max_waiting=config.max_waiting,
            max_waiting_tokens=config.max_waiting_pixel_steps,
            weights=config.weights,
        )
        self.limits = _limits(manifest) | self.requests.limits


# Bytes. Below this a second thread's waiting (it spins) takes more from the event loop than it gives to the model.
_SMALL_GRAPH: Final = 8 << 20

Model = TextModel | EncoderModel | OneShotModel | FlowModel


def open_model(package: Package, config: HostConfig, device: Device, metrics: Metrics) -> Model:
    """Load a verified package: sessions opened, golden pairs replayed, engine ready to start. Raises PackageError."""
    began = time.perf_counter()
    manifest = package.manifest
    model = _kind(manifest)(package, config, device, metrics)
    name = manifest.name
    metrics.model_info.labels(name, manifest.version, manifest.task, manifest.family, str(device)).set(1)
    metrics.load_seconds.labels(name).set(time.perf_counter() - began)
    return model


def _kind(manifest: Manifest) -> type[Model]:
    if manifest.text is not None:
        return TextModel
    if manifest.image is not None and manifest.image.denoise is not None:
        return FlowModel
    return OneShotModel if manifest.encoder is None else EncoderModel


def _template(package: Package, vocabulary: Vocabulary) -> Template | None:
    chat = package.manifest.text.chat if package.manifest.text else None
    if chat is None:
        return None
    return Template(
        package.read(chat.template), vocabulary, bos_token=chat.bos_token, eos_token=chat.eos_token
    )


def threads_of(config: HostConfig, graph_bytes: int) -> int:
    """Threads of one session: as set, or one for a small graph and the replica's share of CPUs for a large one."""
    return config.threads or (1 if graph_bytes < _SMALL_GRAPH else share_of(config))


def share_of(config: HostConfig) -> int:
    """Threads of one session: as set, or the replica's share of CPUs."""
    return config.threads or max(1, int(config.num_cpus))


def _bytes(manifest: Manifest, graph: str) -> int:
    return manifest.files[manifest.graphs[graph].file].bytes


def cards_of(model: Model, host: str) -> list[Card]:
    """The model's card and one for each of its adapters, of which nothing is measured."""
    card, text = card_of(model, host), model.manifest.text
    adapters = [f"{card.name}:{adapter}" for adapter in (text.adapters if text else ())]
    return [card, *(replace(card, name=name, parent=card.name, quality={}) for name in adapters)]


def card_of(model: Model, host: str) -> Card:
    """What `/v1/models` shows of it."""
    manifest = model.manifest
    return Card(
        name=manifest.name,
        version=manifest.version,
        created=int(manifest.created.timestamp()),
        task=manifest.task,
        family=manifest.family,
        capabilities=manifest.capabilities,
        description=manifest.description,
        licence=manifest.licence,
        limits=model.limits,
        quality={name: measure.model_dump(exclude_none=True) for name, measure in manifest.quality.items()},
        host=host,
    )


def updated(card: Card, model: Model) -> Card:
    """The card with its scores' thresholds and drift as they are now; the same one where nothing has changed."""
    if not isinstance(model, OneShotModel) or model.scores is None:
        return card
    limits, drift = {**card.limits, "scores": model.scores.calibrations.thresholds}, dict(model.drift.card)
    if (limits, drift) == (card.limits, card.drift):
        return card
    return replace(card, limits=limits, drift=drift)


def _calibrations(package: Package, config: HostConfig, latents: Latents | None) -> Calibrations:
    manifest = package.manifest
    own, scoring = {}, manifest.scoring
    for name, each in (scoring.calibrations if scoring else {}).items():
        scores = np.load(io.BytesIO(package.read(each.scores)), allow_pickle=False)
        identity = f"{manifest.name}:{manifest.version}"
        own[name] = Calibrated(scores, each.threshold, id_=identity, latents=latents)
    root = config.calibrations or calibrations_beside(config.store or shipped())
    folder = CalibrationFolder(Path(root), manifest.name, manifest.version)
    calibrations = Calibrations(manifest, own, folder)
    with suppress(Unavailable):  # requests look again, and are told
        calibrations.refresh()
    return calibrations


def _normal_latents(package: Package) -> Latents | None:
    """None where the package has none. Raises BrokenFiles where they are no latents."""
    path = package.manifest.scoring.latents if package.manifest.scoring else None
    if path is None:
        return None
    values: Array = np.load(io.BytesIO(package.read(path)), allow_pickle=False)
    if values.dtype != np.float32 or values.ndim != 2 or not len(values) or not np.isfinite(values).all():
        raise BrokenFiles(f"{path} holds no latents: {values.dtype}{list(values.shape)}")
    return latents_of(values)


def _drawing(package: Package, config: HostConfig) -> Drawing | None:
    manifest, image = package.manifest, package.manifest.image
    if image is None or image.generator is None or image.noise is None:
        return None
    mean = _mean_style(package, image.style) if image.style else None
    return Drawing(manifest, Files(manifest, config), mean)


def _mean_style(package: Package, style: Style) -> Array:
    """Raises BrokenFiles where it is no mean of such styles."""
    mean: Array = np.load(io.BytesIO(package.read(style.mean)), allow_pickle=False)
    made = next(each.shape for each in package.manifest.graphs[style.mapping].outputs if each.role == "style")
    if mean.dtype != np.float32 or mean.shape != made[1:][len(made) - 1 - mean.ndim :]:
        raise BrokenFiles(f"the mean style, {mean.dtype}{list(mean.shape)}, is of no style {list(made[1:])}")
    return mean


def _limits(manifest: Manifest) -> dict[str, object]:
    limits: dict[str, object] = {}
    if manifest.image:
        limits["size"] = f"{manifest.image.width}x{manifest.image.height}"
        limits["classes"] = list(manifest.image.classes)
        if manifest.image.style:
            limits["truncation"] = manifest.image.style.truncation
    if manifest.table:
        limits["features"] = described(manifest.table)
    if manifest.series:
        limits["series"] = manifest.series.model_dump(mode="json")
    return limits
