"""Serve applications: all wiring, and the import paths that Kubernetes uses (`service.app:gateway`, `service.app:host`).

A host answers under `/<host>/...` itself and by handle; the gateway at `/` forwards to the host of the model named in the
body, from a process of its own, so that a dying replica becomes an error and not a cut stream.
"""

from typing import Any, Final

from prometheus_client import CollectorRegistry
from ray import serve
from ray.serve import Application
from ray.serve.config import BackpressureConfig
from starlette.types import ASGIApp, Receive, Scope, Send

from deployments.config import HostConfig
from deployments.host import Host, RemoteModels
from deployments.metrics import Metrics
from service.api import create_app
from service.settings import load

_OPTIONS: Final[dict[str, Any]] = {
    "health_check_period_s": 2,
    "health_check_timeout_s": 10,
    # A new replica is up before the old one goes: a failed update costs no request.
    "max_surge_percent": 100,
    "backpressure_config": BackpressureConfig(status_code=429, retry_after_s=1),
}


class _Opaque:
    """Hides the routes from Serve, which would match every request against all of them for a label of its own metrics."""

    routes = ()

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass everything through."""
        await self._app(scope, receive, send)


def _replica() -> str:
    """What `/metrics` calls this process."""
    name: str = serve.get_replica_context().replica_id.unique_id
    return name


class HostDoor(Host):
    """A host with a door of its own: the same routes as the gateway's, over the engines of this process."""

    def __serve_build_asgi_app__(self) -> ASGIApp:
        """Ray Serve's hook."""
        return _Opaque(create_app(self.studio, load(), self.metrics, replica=_replica()))


class Gateway:
    """The door to every host."""

    def __init__(self, hosts: list[str]) -> None:
        self._models = RemoteModels(hosts)

    def __serve_build_asgi_app__(self) -> ASGIApp:
        """Ray Serve's hook."""
        return _Opaque(create_app(self._models, load(), Metrics(CollectorRegistry()), replica=_replica()))


def host(args: dict[str, Any]) -> Application:
    """Application of one host; `args` are the fields of `HostConfig`."""
    config = HostConfig.model_validate(args)
    deployment = serve.deployment(
        name="Host",
        num_replicas=config.replicas,
        max_ongoing_requests=config.max_ongoing_requests,
        ray_actor_options={"num_cpus": config.num_cpus, "num_gpus": config.num_gpus},
        **_OPTIONS,
    )(serve.ingress()(HostDoor))
    application: Application = deployment.bind(config.model_dump(mode="json"))
    return application


def gateway(args: dict[str, Any]) -> Application:
    """Application of the gateway; `args` are `hosts`, the names of the host applications, and `replicas`."""
    unknown = args.keys() - {"hosts", "replicas"}
    if unknown:
        raise ValueError(f"unknown gateway arguments: {', '.join(sorted(unknown))}")
    deployment = serve.deployment(
        name="Gateway",
        num_replicas=args.get("replicas", 1),
        max_ongoing_requests=4096,
        ray_actor_options={"num_cpus": 0.1},
        **_OPTIONS,
    )(serve.ingress()(Gateway))
    application: Application = deployment.bind(list(args["hosts"]))
    return application
