"""Writes docs/reference.md from the code: settings, the hosts file, metrics, the command's help, the error table.

`python -m tests.reference` writes it; a test compares it with what the code says now.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from prometheus_client import CollectorRegistry
from pydantic import BaseModel
from typer.testing import CliRunner

from deployments.config import HostConfig
from deployments.metrics import Metrics
from model_store.manifest import Measure
from model_store.store import Store, shipped
from service.cli import COMMANDS, main
from service.errors import KINDS, ROUTING
from service.settings import PREFIX, Settings

PAGE = Path(__file__).parent.parent / "docs" / "reference.md"
_HEADLINES = {
    "fashion-ae": {
        "one_class_auroc.fused": "one-class AUROC",
        "reconstruction_ssim": "reconstruction SSIM",
        "defects.pixel_auroc": "pixel AUROC of defects",
    },
    "textures-ae": {"defects.pixel_auroc": "pixel AUROC of defects", "defects.aupro": "AUPRO"},
    "fashion-pca": {"one_class_auroc": "one-class AUROC"},
    "fashion-knn": {"one_class_auroc": "one-class AUROC"},
    "fashion-vae": {"elbo": "ELBO in nats", "feature_distance": "feature distance of its samples"},
    "fashion-gan": {
        "class_accuracy": "class recognised",
        "feature_distance": "feature distance",
        "coverage": "coverage",
    },
    "fashion-flow": {
        "class_accuracy": "class recognised",
        "feature_distance": "feature distance after 8 steps",
        "feature_distance.4_steps": "after 4",
        "coverage": "coverage",
    },
    "fashion-realism": {
        "auroc.vae": "AUROC against samples of fashion-vae",
        "auroc.gan": "of fashion-gan",
        "auroc.noise": "against noise",
    },
    "tiles-flow": {
        "caption_top5_of_50": "right caption among the first 5 of 50",
        "caption_top1_of_50": "the first",
        "copies": "copies of training tiles",
    },
    "tiles-edit": {
        "inpaint_psnr": "PSNR in dB of holes filled",
        "colorize_psnr": "of grey coloured",
        "upscale_psnr": "of 16x16 enlarged",
        "denoise_psnr": "of noise removed",
    },
    "table-ae": {
        "auroc.density": "AUROC",
        "adbench_auroc.density": "mean of its recipe over 20 sets",
        "imputation_error.30": "error with 30 % missing",
    },
    "series-ae": {
        "nab.standard": "NAB score",
        "nab.reward_low_FP_rate": "few false alarms",
        "nab.reward_low_FN_rate": "few misses",
    },
    "shakespeare-lstm": {"nats_per_char": "nats per character"},
    "shakespeare-gpt": {"nats_per_char": "nats per character"},
    "tldr-gpt": {"exact_match": "exactly the right command", "chrf": "chrF"},
    "eng-fra": {"bleu": "BLEU", "chrf": "chrF"},
}
_HOSTS_EXAMPLE = """`atelier serve --hosts FILE`, and the `args` of the host applications on Kubernetes. Every field has a default.

```yaml
hosts:
  - name: pictures
    models: [fashion-ae, fashion-gan, fashion-vae]
  - name: writers
    models: ["shakespeare-gpt:1", shakespeare-lstm]
    replicas: 2
    num_cpus: 2
```"""
_ERRORS_INTRO = """Every error is `{"error": {"message", "type", "param", "code"}}`; a stream that fails midway sends it as its last event and no
`[DONE]`. `param` names the field at fault. 429 and 503 carry `Retry-After`, in seconds. Every answer carries `x-request-id`."""
ERRORS: dict[int, dict[str, str]] = {
    400: {
        "invalid_json": "The body is no JSON, too deep, or has too many parts.",
        "duplicate_key": "An object gives a key twice.",
        "invalid_type": "A field has a value of another type.",
        "invalid_value": "A field is out of range, or contradicts another.",
        "unknown_parameter": "There is no such field, or what it asks for does not exist here.",
        "missing_required_parameter": "A field is missing.",
        "context_length_exceeded": "The text, with what may follow it, is longer than the model's context.",
        "task_not_supported": "The model cannot do this.",
        "too_many_rows": "More prompts, choices or items than the model's batch and waiting line ever hold, or than are compressed at once.",
        "invalid_latents": "These are no latents that this version of the model has compressed, or they are damaged.",
        "not_finite": "The model has no finite answer to this input.",
        "invalid_image": "What was sent is no picture, or a damaged one.",
        "image_too_large": "The picture has too many pixels.",
        "invalid_size": "The model does not make pictures of this size.",
        "invalid_mask": "The mask has not the picture's size.",
        "invalid_background": "The model, or the format, has no transparency.",
        "invalid_steps": "The model does not take so many steps.",
        "invalid_guidance": "The model cannot be guided so far.",
        "invalid_solver": "The model is not solved that way.",
        "unknown_task": "The model does not edit pictures that way.",
        "prompt_too_long": "The words are more tokens than the model reads.",
        "unsupported_url": "URLs are not fetched.",
        "unknown_class": "The model has no class of this name.",
        "unknown_score": "The model has no score of this name.",
        "invalid_session": "The session is damaged, or of another model or version.",
        "unknown_spread": "The model does not say how far its latents spread.",
        "unknown_calibration": "The model has no such calibration.",
        "too_few_items": "A calibration needs more normal items, or anomalies for F1.",
        "contradictory_labels": "The same item is labelled normal and an anomaly.",
        "calibration_in_use": "A calibration that is a default is not deleted.",
        "calibrations_read_only": "No calibration can be kept: the folder is read-only, or there is none.",
        "invalid_multipart": "The form is broken, or a part of it is.",
        "invalid_content_length": "The content-length is no number.",
        "body_too_slow": "The body did not arrive in time, or in too many pieces.",
    },
    404: {
        "model_not_found": "There is no such model or version.",
        "calibration_not_found": "The model has no such calibration.",
        "not_found": "There is nothing at this address.",
    },
    405: {"method_not_allowed": "The address does not take this method; `Allow` says which it takes."},
    413: {"body_too_large": "The body is larger than `ATELIER_MAX_BODY_BYTES`."},
    415: {
        "unsupported_media_type": "The body is neither JSON nor, where one is taken, a form by its content type, or is encoded."
    },
    429: {
        "queue_full": "The waiting line has no room, or none for this API key.",
        "queue_too_long": "The time limit would pass while the request waits.",
    },
    500: {"internal": "A bug of ours, or a model made what cannot be sent."},
    503: {
        "unavailable": "No replica can answer now, or the answer was not read in time.",
        "replica_lost": "The replica died while it worked on the request.",
        "step_failed": "A step of the model failed; later ones may work.",
    },
    504: {"deadline_exceeded": "The time limit passed: the request's `timeout`, or the service's."},
}
_SUBCOMMANDS = {
    "models": ("list", "show", "verify", "pull", "push"),
    "export": ("torch", "hf", "diffusers", "onnx"),
    "fit": ("pca", "knn", "mahalanobis"),
}


def page() -> str:
    """The whole page."""
    parts = [
        "# Reference\n\nWritten by `python -m tests.reference` from the code; a test compares them.",
        f"## Settings\n\nRead from the environment, on every node.\n\n{settings()}",
        f"## Hosts file\n\n{_HOSTS_EXAMPLE}\n\n{hosts()}",
        f"## Metrics\n\nOn `/metrics` of the gateway for all replicas, each sample with a `replica` label.\n\n{metrics()}",
        f"## Errors\n\n{_ERRORS_INTRO}\n\n{errors()}",
        f"## Command\n\n{commands()}",
    ]
    return "\n\n".join(parts) + "\n"


def _table(head: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> str:
    lines = [head, tuple("---" for _ in head), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)


def settings() -> str:
    rows = [
        (f"`{PREFIX}{name.upper()}`", _shown(field.get_default()), field.description or "")
        for name, field in Settings.model_fields.items()
    ]
    return _table(("variable", "default", "meaning"), rows)


def hosts() -> str:
    rows = [
        (f"`{name}`", _shown(field.get_default(call_default_factory=True)), field.description or "")
        for name, field in _fields(HostConfig)
    ]
    return _table(("field", "default", "meaning"), rows)


def _fields(model: type[BaseModel]) -> list[tuple[str, Any]]:
    return list(model.model_fields.items())


def _shown(value: object) -> str:
    if value in (None, (), {}):
        return ""
    return f"`{', '.join(value) if isinstance(value, tuple) else value}`"


def metrics() -> str:
    registry = CollectorRegistry()
    Metrics(registry)
    rows = []
    for family in registry.collect():
        name = f"{family.name}_total" if family.type == "counter" else family.name
        rows.append(
            (f"`{name}`", family.type, ", ".join(_labels(registry, family.name)), family.documentation)
        )
    return _table(("name", "type", "labels", "meaning"), rows)


def _labels(registry: CollectorRegistry, name: str) -> tuple[str, ...]:
    labels: tuple[str, ...] = registry._names_to_collectors[name]._labelnames  # type: ignore[attr-defined]
    return labels


def errors() -> str:
    types = {kind.status: kind.type for kind in KINDS.values()}
    types |= {status: ROUTING[status][0] for status in ROUTING}
    rows = [
        (str(status), types[status], f"`{code}`", meaning)
        for status, codes in ERRORS.items()
        for code, meaning in codes.items()
    ]
    return _table(("status", "type", "code", "when"), rows)


def shipped_packages() -> str:
    """The README's table of shipped packages: each model's headline figures with their baselines."""
    store = Store(shipped())
    rows = []
    for name, figures in _HEADLINES.items():
        manifest = store.manifest(name)
        measured = "; ".join(f"{words} {_figure(manifest.quality[key])}" for key, words in figures.items())
        weights = f"{(manifest.provenance.parameters or 0) / 1e6:.2f} M"
        rows.append((f"`{name}`", manifest.family, weights, measured))
    return _table(("package", "family", "weights", "measured (baseline)"), rows)


def _figure(measure: Measure) -> str:
    baseline = "" if measure.baseline is None else f" ({measure.baseline:.4g}, {measure.baseline_name})"
    return f"**{measure.value:.4g}**{baseline}"


def commands() -> str:
    calls = [
        [name, *sub] for name in COMMANDS for sub in [[], *([each] for each in _SUBCOMMANDS.get(name, ()))]
    ]
    return "\n\n".join(
        f"### atelier {' '.join(call)}\n\n```text\n{_help(call)}\n```" for call in [[], *calls]
    )


def _help(call: list[str]) -> str:
    runner = CliRunner(env={"COLUMNS": "100", "TERM": "dumb", "NO_COLOR": "1"})
    shown = runner.invoke(main, [*call, "--help"], prog_name="atelier")
    assert shown.exit_code == 0, shown.output
    return "\n".join(line.rstrip() for line in shown.output.strip().splitlines())


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
