"""`/healthz`: this process answers. `/readyz`: a model would answer. Both tell the truth or fail."""

import asyncio

from deployments.errors import Unavailable
from deployments.messages import ModelClient
from service.answers import Document, json_answer
from service.call import Call
from service.settings import Settings


class Health:
    """What orchestrators ask."""

    def __init__(self, models: ModelClient, settings: Settings) -> None:
        self._models = models
        self._settings = settings

    async def live(self, call: Call) -> Document:  # noqa: ARG002 - every route takes its call
        """Say that the process and its event loop run. Asks no model: a lost replica is no reason to restart the door."""
        return json_answer({"status": "ok"})

    async def ready(self, call: Call) -> Document:  # noqa: ARG002
        """Say whether a request sent now would be answered."""
        try:
            async with asyncio.timeout(self._settings.ready_timeout_seconds):
                ready = await self._models.ready()
        except TimeoutError:
            ready = False
        if not ready:
            raise Unavailable("No model is ready.", retry_after_seconds=1)
        return json_answer({"status": "ready"})
