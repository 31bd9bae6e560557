import httpx

from tests.service.models import Models


async def test_the_process_is_alive_whatever_the_models_do(http: httpx.AsyncClient, models: Models) -> None:
    models.is_ready = False
    answer = await http.get("/healthz")
    assert (answer.status_code, answer.json()) == (200, {"status": "ok"})


async def test_ready_when_a_model_is(http: httpx.AsyncClient) -> None:
    answer = await http.get("/readyz")
    assert (answer.status_code, answer.json()) == (200, {"status": "ready"})


async def test_not_ready_when_none_is(http: httpx.AsyncClient, models: Models) -> None:
    models.is_ready = False
    answer = await http.get("/readyz")
    assert answer.status_code == 503
    assert answer.json()["error"]["code"] == "unavailable"
    assert answer.headers["retry-after"] == "1"


async def test_models_that_do_not_answer_are_not_ready(http: httpx.AsyncClient, models: Models) -> None:
    models.delay_seconds = 5
    assert (await http.get("/readyz")).status_code == 503
