"""`create_app`: all routes over one model client, as plain ASGI. Knows no Ray; the client may be local or remote."""

from importlib.metadata import version
from typing import Any, Final

from fastapi import APIRouter, FastAPI
from fastapi.telemetry import TelemetryConfig
from starlette._utils import get_route_path
from starlette.types import ASGIApp, Receive, Scope, Send

from deployments.messages import ModelClient
from deployments.metrics import Metrics
from service.docs import Docs
from service.door import Door
from service.exposition import Scrape
from service.health import Health
from service.openai.routes import operations
from service.operation import Frame, Operation, share_methods
from service.settings import Settings
from service.watch import Watch

DESCRIPTION: Final = (
    "Generative models that you trained yourself: text, images, reconstruction and anomaly scores. "
    "OpenAI's SDKs work unchanged; what OpenAI's API has no word for extends it in its own style."
)


class Api(FastAPI):
    """FastAPI with one layer around its router instead of five: the door answers for all of them."""

    def __init__(self, metrics: Metrics, **documented: Any) -> None:
        self._metrics = metrics
        # FastAPI's own telemetry looks at the environment at each request (5 us) and would count everything twice.
        telemetry: TelemetryConfig = {"tracing": False, "metrics": False, "logs": False}
        super().__init__(openapi_url=None, redirect_slashes=False, telemetry=telemetry, **documented)

    def build_middleware_stack(self) -> ASGIApp:
        """Everything between the server and the router."""
        return Door(Direct(self.router), self._metrics)


class Direct:
    """The way to an operation whose path has no parameters: one look-up instead of a regular expression for each route."""

    def __init__(self, router: APIRouter) -> None:
        self._router = router
        self._operations = {
            (method, route.path): route
            for route in router.routes
            if isinstance(route, Operation) and "{" not in route.path
            for method in route.methods or ()
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Everything else is the router's."""
        if scope["type"] == "http":
            found = self._operations.get((scope["method"], get_route_path(scope)))
            if found is not None:
                scope["route"] = found
                await found.app(scope, receive, send)
                return
        await self._router(scope, receive, send)


def create_app(
    models: ModelClient, settings: Settings, metrics: Metrics, *, replica: str = "gateway"
) -> FastAPI:
    """The service over these models. `replica` labels this process's own samples in `/metrics`."""
    frame = Frame(settings, Watch())
    app = Api(metrics, title="Atelier", version=version("atelier"), description=DESCRIPTION)
    health, scrape, docs = (
        Health(models, settings),
        Scrape(models, metrics.registry, replica),
        Docs(app.openapi),
    )

    def get(path: str, handler: Any, **documented: Any) -> Operation:
        return Operation(frame, path, handler, "GET", tags=["operations"], response_model=None, **documented)

    dialect = operations(models, frame)
    share_methods(dialect)
    app.router.routes.extend(dialect)
    app.router.routes.extend(
        [
            get("/healthz", health.live),
            get("/readyz", health.ready),
            get("/metrics", scrape.metrics),
            get("/docs", docs.page, include_in_schema=False),
            get("/openapi.json", docs.schema, include_in_schema=False),
        ]
    )
    return app
