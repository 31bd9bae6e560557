"""Hosts: which packages, how many replicas, on what device, with which limits. One YAML file; the default needs none."""

from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Final

import yaml
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints, ValidationError

Positive = Annotated[int, Field(gt=0)]
# A host answers under its name, beside the gateway's own paths.
_TAKEN: Final = frozenset({"gateway", "v1", "v2", "healthz", "readyz", "metrics", "docs"})


def _free(name: str) -> str:
    if name in _TAKEN:
        raise ValueError(f"{name!r} is the gateway's")
    return name


def _one_version_each(models: tuple[str, ...]) -> tuple[str, ...]:
    names = [entry.partition(":")[0] for entry in models]
    if len(set(names)) < len(names):
        raise ValueError("a package is named twice")
    return models


HostName = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9-]{0,30}$"), AfterValidator(_free)]
Models = Annotated[tuple[str, ...], Field(min_length=1), AfterValidator(_one_version_each)]


class ConfigError(Exception):
    """The hosts file is missing or wrong; the message is one sentence for its author."""


class HostConfig(BaseModel):
    """One host application: replicas that each hold the same packages."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: HostName = Field(default="studio", description="Its application, and its path: `/<name>/v1/...`.")
    models: Models = Field(
        default=("*",), description="`name`, `name:version`, or `*` for every package of the store."
    )
    store: str | None = Field(
        default=None, description="Package store, any fsspec URL. Empty: the packages shipped with Atelier."
    )
    cache: str | None = Field(default=None, description="Where packages of a remote store are kept.")
    calibrations: str | None = Field(
        default=None,
        description="Folder where calibrations that clients make are kept, the same for all replicas. Empty: "
        "`.calibrations` in the store's folder, or `~/.local/share/atelier/calibrations` where the store is none that is "
        "written to.",
    )
    replicas: Positive = Field(default=1, description="Processes that each hold all of these models.")
    device: Annotated[str, StringConstraints(pattern=r"^(auto|cpu|cuda(:[0-9]{1,2})?)$")] = Field(
        default="auto", description="`auto`, `cpu`, `cuda` or `cuda:N`."
    )
    num_cpus: Annotated[float, Field(gt=0)] = Field(default=1.0, description="CPU cores a replica reserves.")
    num_gpus: Annotated[float, Field(ge=0)] = Field(
        default=0.0, description="GPUs a replica reserves; a fraction shares one."
    )
    threads: Annotated[int, Field(ge=0)] = Field(
        default=0, description="Threads of one model; 0: as many as it gains from."
    )
    slots: Positive = Field(
        default=16, description="Text rows, or pictures made in steps, that are worked on at once, per model."
    )
    max_batch: Positive = Field(default=64, description="Items or pictures in one run, per model.")
    context: Positive | None = Field(
        default=None,
        description="Tokens of one text row, prompt and continuation, at most: bounds the memory of a slot. "
        "Empty: as many as the model was made for.",
    )
    prefill_chunk: Positive = Field(
        default=256, description="Prompt tokens processed between two decode steps."
    )
    prefix_slots: Annotated[int, Field(ge=0)] = Field(
        default=8, description="Slots that keep what was computed of earlier prompts; 0: none is kept."
    )
    share_prefixes: bool = Field(
        default=False,
        description="Whether prompts of one API key may continue what was computed for another's. "
        "Times of answers then tell what others have asked.",
    )
    max_waiting: Positive = Field(
        default=2048, description="Rows in the waiting line, per model; beyond it 429."
    )
    max_waiting_tokens: Positive = Field(
        default=1_048_576,
        description="Tokens that the rows in the waiting line may take (prompt and `max_tokens`), per model; "
        "beyond it 429.",
    )
    provenance: bool = Field(
        default=True,
        description="Whether pictures say of themselves that they are generated, by which model, and from which seed.",
    )
    max_waiting_pixel_steps: Positive = Field(
        default=1 << 34,
        description="Pixels times steps that the pictures in the waiting line may take, twice where they are guided, per "
        "model; beyond it 429.",
    )
    max_image_pixels: Positive = Field(
        default=1 << 24,
        description="Pixels of a picture that is sent, at most; it is refused by its header. Decoded, each takes up to 16 "
        "bytes.",
    )
    weights: dict[str, Annotated[float, Field(gt=0, allow_inf_nan=False)]] = Field(
        default_factory=dict,
        description="Shares of API keys in the waiting line, by tokens, as `<first 16 hexadecimal digits of the "
        "key's SHA-256>: <weight>`; 1 where one is not named.",
    )
    max_ongoing_requests: Positive = Field(default=1024, description="Requests a replica takes at once.")

    def selected(self, available: Iterable[str]) -> dict[str, str | None]:
        """Names of the packages this host serves, each with its version (None: the latest)."""
        wanted: dict[str, str | None] = dict.fromkeys(available) if "*" in self.models else {}
        for entry in self.models:
            name, _, version = entry.partition(":")
            if entry != "*":
                wanted[name] = version or None
        return wanted


class Config(BaseModel):
    """All hosts of one service."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    hosts: Annotated[tuple[HostConfig, ...], Field(min_length=1)] = (HostConfig(),)


def load(path: Path) -> Config:
    """Read the hosts file. Raises ConfigError."""
    try:
        fields = yaml.safe_load(path.read_bytes())
        config = Config.model_validate({} if fields is None else fields)
    except OSError as error:
        raise ConfigError(f"Cannot read the hosts file {path}: {error.strerror}.") from error
    except yaml.YAMLError as error:
        raise ConfigError(
            f"The hosts file {path} is not valid YAML: {' '.join(str(error).split())}."
        ) from error
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "its top level"
        raise ConfigError(f"The hosts file {path} is wrong at {where}: {first['msg']}.") from error
    names = [host.name for host in config.hosts]
    for name in names:
        if names.count(name) > 1:
            raise ConfigError(f"The hosts file {path} names the host {name!r} twice.")
    return config
