"""Every setting of the service, read once from `ATELIER_*` variables. The only module that touches `os.environ`."""

import os
from collections.abc import Mapping
from typing import Annotated, Any, Final, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

PREFIX: Final = "ATELIER_"


class SettingsError(Exception):
    """A variable holds a value that its setting cannot take; the message is one sentence for its author."""


def _split(value: object) -> object:
    return [part.strip() for part in value.split(",") if part.strip()] if isinstance(value, str) else value


Names = Annotated[tuple[str, ...], BeforeValidator(_split)]
Seconds = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Count = Annotated[int, Field(gt=0)]


class Settings(BaseModel):
    """What may be set from outside, with its default. Field `x` is read from `ATELIER_X`; lists are comma-separated."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    # Not `host` and `port`: Kubernetes injects ATELIER_PORT=tcp://... next to a service that is called atelier.
    http_host: str = Field(default="127.0.0.1", description="Address the service listens on.")
    http_port: Annotated[int, Field(ge=1, le=65535)] = Field(
        default=8000, description="Port the service listens on."
    )
    proxy: Literal["haproxy", "python"] = Field(
        default="haproxy", description="Ray Serve's proxy in front of the replicas."
    )
    store: str | None = Field(
        default=None, description="Package store, any fsspec URL. Unset: the shipped packages."
    )
    cache: str | None = Field(default=None, description="Where packages of a remote store are kept.")
    calibrations: str | None = Field(
        default=None,
        description="Folder where calibrations that clients make are kept. Unset: beside the store.",
    )
    models: Names = Field(
        default=(), description="Packages to serve, `name` or `name:version`. Empty: every package."
    )
    device: Annotated[str, Field(pattern=r"^(auto|cpu|cuda(:[0-9]{1,2})?)$")] = Field(
        default="auto", description="Where models run: auto, cpu, cuda or cuda:N."
    )
    hosts_file: str | None = Field(
        default=None, description="YAML file that says which host serves which packages."
    )
    ray_auth_mode: Literal["token", "disabled"] = Field(
        default="token", description="Ray's own authentication; `atelier serve` makes a token for each run."
    )
    request_timeout_seconds: Seconds = Field(default=600.0, description="Longest time any request may take.")
    body_timeout_seconds: Seconds = Field(
        default=10.0, description="Longest time a request's body may take to arrive."
    )
    ready_timeout_seconds: Seconds = Field(
        default=2.0, description="Longest time /readyz waits for the models' word."
    )
    max_body_bytes: Count = Field(default=8 * 1024 * 1024, description="Largest request body.")
    max_body_messages: Count = Field(default=65_536, description="Most pieces a request body may arrive in.")

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> Self:
        """Settings from variables; those that are absent or empty keep their default. Raises SettingsError."""
        given = {name: environment.get(PREFIX + name.upper(), "") for name in cls.model_fields}
        try:
            return cls.model_validate({name: value for name, value in given.items() if value})
        except ValidationError as error:
            first = error.errors()[0]
            raise SettingsError(f"{PREFIX}{str(first['loc'][0]).upper()}: {first['msg']}.") from error

    def override(self, given: Mapping[str, object]) -> Self:
        """These settings with those that are given (not None) instead. Raises SettingsError."""
        fields = {**self.model_dump(), **{name: value for name, value in given.items() if value is not None}}
        try:
            return type(self).model_validate(fields)
        except ValidationError as error:
            first = error.errors()[0]
            raise SettingsError(f"--{str(first['loc'][0]).removeprefix('http_')}: {first['msg']}.") from error

    def to_environment(self) -> dict[str, str]:
        """The variables that give these settings to a child process: what differs from the defaults."""
        return {
            PREFIX + name.upper(): _text(value)
            for name, value in self
            if value != type(self).model_fields[name].get_default()
        }


def load() -> Settings:
    """Settings of this process. Raises SettingsError."""
    return Settings.from_environment(os.environ)


def runtime_environment(settings: Settings) -> dict[str, str]:
    """What Ray and ONNX Runtime must find in their environment before anything starts, on every node.

    Ray reads its switches when it is imported or started, not from an application's runtime environment.
    """
    haproxy = settings.proxy == "haproxy"
    return {
        "ORT_DISABLE_TELEMETRY": "1",
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_AUTH_MODE": settings.ray_auth_mode,
        "RAY_SERVE_ENABLE_HA_PROXY": "1" if haproxy else "0",
        "RAY_SERVE_THROUGHPUT_OPTIMIZED": "1" if haproxy else "0",
        "RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH": "service.listening:edge_first",
        # Ray runs workers at nice 15, as batch jobs; these answer people.
        "RAY_worker_niceness": "0",
    }


def set_environment(variables: Mapping[str, str]) -> None:
    """Set variables for this process and the children it starts from now on."""
    os.environ.update(variables)


def _text(value: Any) -> str:
    return ",".join(value) if isinstance(value, tuple) else str(value)
