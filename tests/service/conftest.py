"""An app over the arithmetic models, and a client that speaks to it in process."""

from collections.abc import AsyncIterator

import httpx
import httpx2
import openai
import pytest
from fastapi import FastAPI
from prometheus_client import CollectorRegistry

from deployments.metrics import Metrics
from service.api import create_app
from service.settings import Settings
from tests.service.models import Models


@pytest.fixture
def models() -> Models:
    return Models()


@pytest.fixture
def settings() -> Settings:
    return Settings(max_body_bytes=2 * 1024 * 1024, body_timeout_seconds=0.2, ready_timeout_seconds=0.1)


@pytest.fixture
def metrics() -> Metrics:
    return Metrics(CollectorRegistry())


@pytest.fixture
def app(models: Models, settings: Settings, metrics: Metrics) -> FastAPI:
    return create_app(models, settings, metrics)


@pytest.fixture
async def http(app: FastAPI) -> AsyncIterator[httpx.AsyncClient]:
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://atelier") as client:
        yield client


@pytest.fixture
async def client(app: FastAPI) -> AsyncIterator[openai.AsyncOpenAI]:
    """OpenAI's own client; it speaks through httpx2."""
    async with openai.DefaultAsyncHttpxClient(transport=httpx2.ASGITransport(app)) as speaker:
        yield openai.AsyncOpenAI(
            base_url="http://atelier/v1", api_key="none", http_client=speaker, max_retries=0
        )
