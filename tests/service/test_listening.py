import pytest
from ray.serve._private import http_util
from starlette.types import Receive, Scope, Send

from service.edge import Edge
from service.listening import edge_first
from service.settings import Settings, runtime_environment


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    """Never called."""


def test_ray_finds_the_hook_by_its_name() -> None:
    path = runtime_environment(Settings())["RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH"]
    assert path == f"{edge_first.__module__}:{edge_first.__name__}"


def test_the_edge_is_what_ray_wraps_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        http_util, "RequestIdMiddleware", http_util.RequestIdMiddleware
    )  # put back afterwards
    assert http_util.validate_http_proxy_callback_return(edge_first()) == []
    assert isinstance(http_util._apply_middlewares(app, []), Edge)
