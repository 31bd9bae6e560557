"""Forms: what is read, what is refused, and OpenAI's own client sending pictures to a small operation."""

import io
import time
from typing import Annotated, Any

import httpx
import httpx2
import openai
import orjson
import pytest
from fastapi import FastAPI
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry
from pydantic import Field

from deployments.errors import BadRequest
from deployments.metrics import Metrics
from service.answers import Answer, json_answer
from service.api import Api
from service.call import Call
from service.errors import UnsupportedMedia
from service.multipart import MAX_PARTS, MAX_TEXT, is_form, parse_form
from service.openai.items import read_picture
from service.openai.schemas.errors import ErrorBody
from service.openai.schemas.fields import File, ModelName, Neutral, Nullable, Picture, Seed
from service.operation import Frame, Operation
from service.settings import Settings
from service.watch import Watch
from tests.service.wire import Exchange

BOUNDARY = b"xYzZy"
TYPE = b"multipart/form-data; boundary=" + BOUNDARY
PNG = b"\x89PNG\r\n\x1a\n\0\xff\r\n--xYzZ"  # the parser's business is not what is in it


def part(name: str, content: bytes | str, *, file: str | None = None, headers: bytes = b"") -> bytes:
    named = f'; filename="{file}"' if file is not None else ""
    head = f'Content-Disposition: form-data; name="{name}"{named}\r\n'.encode()
    return head + headers + b"\r\n" + (content.encode() if isinstance(content, str) else content)


def form(*parts: bytes, end: bytes = b"--\r\n") -> bytes:
    return b"".join(b"--" + BOUNDARY + b"\r\n" + each + b"\r\n" for each in parts) + b"--" + BOUNDARY + end


def refused(body: bytes, content_type: bytes = TYPE) -> BadRequest:
    with pytest.raises(BadRequest) as caught:
        parse_form(body, content_type)
    return caught.value


# -- reading -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content_type", "form"),
    [
        (TYPE, True),
        (b"Multipart/Form-Data ; boundary=a", True),
        (b"multipart/form-data", True),
        (b"multipart/mixed; boundary=a", False),
        (b"application/json", False),
        (b"", False),
    ],
)
def test_what_is_a_form(content_type: bytes, *, form: bool) -> None:
    assert is_form(content_type) is form


def test_texts_and_files_are_told_apart() -> None:
    body = form(
        part("prompt", "a \N{SNOWMAN}"), part("image", PNG, file="a.png"), part("n", "2"), part("empty", "")
    )
    assert parse_form(body, TYPE) == {"prompt": "a \N{SNOWMAN}", "image": File(PNG), "n": "2", "empty": ""}


def test_names_with_brackets_are_lists() -> None:
    body = form(part("image[]", b"1", file="a"), part("image[]", b"2", file="b"), part("tag[]", "x"))
    assert parse_form(body, TYPE) == {"image": [File(b"1"), File(b"2")], "tag": ["x"]}


@pytest.mark.parametrize(
    "name", ["", "../../etc/passwd", "C:\\\\a.png", 'a\\"b', "a;b", "a" * 1000, "\N{SNOWMAN}"]
)
def test_a_files_name_does_not_matter(name: str) -> None:
    assert parse_form(form(part("image", PNG, file=name)), TYPE) == {"image": File(PNG)}


@pytest.mark.parametrize(
    "headers",
    [
        b"Content-Type: text/plain\r\n",
        b"Content-Type: text/plain; charset=UTF-8\r\n",
        b"Content-Type: text/plain; charset=us-ascii\r\n",
        b"Content-Transfer-Encoding: 8bit\r\n",
        b"X-Other: 1\r\n",
    ],
)
def test_headers_that_change_nothing(headers: bytes) -> None:
    assert parse_form(form(part("prompt", "a", headers=headers)), TYPE) == {"prompt": "a"}


def test_a_quoted_boundary_and_what_stands_behind_the_end() -> None:
    assert parse_form(form(part("n", "1")) + b"epilogue", b'multipart/form-data; boundary="xYzZy"') == {
        "n": "1"
    }


contents = st.binary(max_size=40) | st.sampled_from(
    [b"\r\n--xYzZ", b"\r\n", b"--xYzZy", b"\r\n--", b"\r\r\n"]
)


@examples(deadline=None, max_examples=60)
@given(st.dictionaries(st.sampled_from("abcd"), contents, min_size=1))
def test_files_come_through_as_they_are(files: dict[str, bytes]) -> None:
    body = form(*(part(name, content, file="f") for name, content in files.items()))
    assert parse_form(body, TYPE) == {name: File(content) for name, content in files.items()}


@examples(deadline=None, max_examples=200)
@given(st.data())
def test_damaged_forms_are_read_or_refused(data: st.DataObject) -> None:
    body = bytearray(
        form(part("prompt", "a"), part("image", PNG, file="a.png", headers=b"Content-Type: image/png\r\n"))
    )
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(body) - 1))
        body[at : at + data.draw(st.integers(0, 9))] = data.draw(st.binary(max_size=6))
        body = body or bytearray(b"-")
    try:
        assert isinstance(parse_form(bytes(body), TYPE), dict)
    except (BadRequest, UnsupportedMedia) as error:
        assert len(error.message) < 300  # noqa: PT017 - either is right


# -- refusing ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "content_type",
    [
        b"multipart/form-data",
        b"multipart/form-data; boundary=",
        b'multipart/form-data; boundary=""',
        b"multipart/form-data; boundary=other",
        b"multipart/form-data; boundary=" + b"a" * 300,
        b"multipart/form-data; boundary=\xff\xff",
    ],
)
def test_a_boundary_that_is_missing_or_another(content_type: bytes) -> None:
    assert refused(form(part("n", "1")), content_type).code == "invalid_multipart"


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{}",
        b"text\r\n" + form(part("n", "1")),
        form(part("n", "1"), end=b""),
        form(part("n", "1"), end=b"\r\n"),
        form(part("n", "1"))[:-20],
        form(b"\r\nno headers"),
        form(b"Content-Disposition: form-data\r\n\r\n1"),
        form(b'Content-Disposition: form-data; name=""\r\n\r\n1'),
        form(b'Content-Disposition: attachment; name="n"\r\n\r\n1'),
        form(b'Content-Disposition: form-data; name="\xff"\r\n\r\n1'),
        form(b"Content-Disposition form-data\r\n\r\n1"),
        form(part("n", "1", headers=b'content-disposition: form-data; name="m"\r\n')),
        form(part("n", "1", headers=b"X: " + b"a" * 5000 + b"\r\n")),
        form(part("n", "1", headers=b"".join(b"X-%d: a\r\n" % i for i in range(9)))),
        form(part("prompt", b"\xff")),
        form(part("image", PNG)),
        form(*(part(f"f{i}", "") for i in range(MAX_PARTS + 1))),
    ],
)
def test_what_is_no_form(body: bytes) -> None:
    assert refused(body).code == "invalid_multipart"


@pytest.mark.parametrize(
    "parts",
    [
        [part("n", "1"), part("n", "2")],
        [part("image", PNG, file="a"), part("image", PNG, file="b")],
        [part("n[]", "1"), part("n", "2")],
        [part("n", "1"), part("n[]", "2")],
    ],
)
def test_a_field_given_twice(parts: list[bytes]) -> None:
    error = refused(form(*parts))
    assert error.code == "duplicate_key"
    assert error.param in ("n", "image")


@pytest.mark.parametrize(
    "each",
    [
        part("image", "aGk=", file="a", headers=b"Content-Transfer-Encoding: base64\r\n"),
        part("image", "a", file="a", headers=b"Content-Type: multipart/mixed; boundary=b\r\n"),
        part("image", "a" * (MAX_TEXT + 1)),
    ],
)
def test_a_part_that_is_not_read(each: bytes) -> None:
    assert refused(form(each)).param == "image"


@pytest.mark.parametrize("charset", [b"utf-16", b"latin-1", b"rot13"])
def test_text_in_another_charset(charset: bytes) -> None:
    with pytest.raises(UnsupportedMedia):
        parse_form(
            form(part("n", "1", headers=b"Content-Type: text/plain; charset=" + charset + b"\r\n")), TYPE
        )


@pytest.mark.parametrize("content", [b"\r" * (8 << 20), b"\r\n--xYzZ" * (1 << 20), b"-" * (8 << 20)])
def test_no_content_takes_long(content: bytes) -> None:
    began = time.process_time()
    assert parse_form(form(part("image", content, file="a")), TYPE) == {"image": File(content)}
    assert time.process_time() - began < 0.5


# -- an operation that takes forms -------------------------------------------------------------------------------------


class Edit(Nullable):  # no Body: tests look at each of those
    """A small request with a field of each kind."""

    model: ModelName
    timeout: Annotated[float | None, Field(gt=0)] = None
    user: str | None = None
    metadata: dict[str, str] | None = None
    image: Picture
    mask: Picture | None = None
    prompt: Annotated[str, Field(max_length=32_000)] = ""
    n: Annotated[int, Field(ge=1, le=10)] = 1
    strength: Annotated[float, Field(ge=0, le=1)] = 0.5
    seed: Seed | None = None
    hd: bool = False
    stream: Annotated[Any, Neutral((False,))] = None
    quality: Annotated[Any, Neutral(("auto",))] = None


async def edit(call: Call, body: Edit) -> Answer:
    """Say what came."""
    told = body.model_dump(exclude={"image", "mask"}, exclude_none=True)
    told["image"] = read_picture(body.image, "image").hex()
    told["mask"] = None if body.mask is None else read_picture(body.mask, "mask").hex()
    return json_answer({"created": 1, "data": [{"b64_json": orjson.dumps(told).decode()}]})


@pytest.fixture
def app(settings: Settings) -> FastAPI:
    frame = Frame(settings, Watch())
    app = Api(Metrics(CollectorRegistry()), title="Forms", version="1")
    for path, forms in (("/v1/images/edits", True), ("/v1/json", False)):
        app.router.routes.append(Operation(frame, path, edit, "POST", forms=forms, response_model=None))
    return app


async def send(app: FastAPI, *parts: bytes, path: str = "/v1/images/edits") -> Exchange:
    return await Exchange(path, [form(*parts)], headers=[(b"content-type", TYPE)]).run(app)


MODEL = part("model", "tiles")
IMAGE = part("image", PNG, file="a.png")


async def test_a_form_is_read_as_json_would_be(app: FastAPI) -> None:
    fields = {
        "prompt": "5",
        "n": "3",
        "strength": "0.25",
        "seed": "9007199254740993",
        "hd": "true",
        "timeout": "5",
    }
    texts = [part(name, value) for name, value in fields.items()]
    answer = await send(
        app,
        MODEL,
        IMAGE,
        part("mask", b"m", file="m"),
        part("stream", "false"),
        part("quality", "auto"),
        *texts,
    )
    assert answer.status == 200, answer.body
    assert orjson.loads(answer.json["data"][0]["b64_json"]) == {
        "model": "tiles", "prompt": "5", "n": 3, "strength": 0.25, "seed": 9007199254740993, "hd": True, "timeout": 5.0,
        "stream": "false", "quality": "auto", "image": PNG.hex(), "mask": b"m".hex(),
    }  # fmt: skip


async def test_json_still_wants_types(app: FastAPI) -> None:
    async def status(**fields: Any) -> int:
        body = orjson.dumps({"model": "tiles", "image": "aGk=", **fields})
        return (await Exchange("/v1/images/edits", [body]).run(app)).status

    assert await status(n=2, stream=False) == 200
    assert await status(n="2") == 400
    assert await status(stream="false") == 400
    assert await status(image={"data": "aGk="}) == 400


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("n", "1.5abc"), ("n", ""), ("n", "1.5"), ("n", "0"), ("n", "99"), ("n", "null"), ("n", "9" * 5000), ("n", "0x1"),
        ("strength", "nan"), ("strength", "inf"), ("strength", "2"), ("strength", ""), ("seed", "-1"), ("hd", "maybe"),
        ("hd", ""), ("timeout", "0"), ("stream", "true"), ("quality", "high"), ("other", "1"), ("metadata", "{}"),
        ("metadata[a]", "1"), ("_charset_", "utf-8"), ("image", "no base64"), ("image", "https://a/b.png"), ("image", ""),
    ],
)  # fmt: skip
async def test_a_value_that_does_not_go_is_named(app: FastAPI, name: str, value: str) -> None:
    image = [] if name == "image" else [IMAGE]
    answer = await send(app, MODEL, *image, part(name, value))
    assert answer.status == 400, answer.body
    assert ErrorBody.model_validate_json(answer.body).error.param == name


@pytest.mark.parametrize(
    ("parts", "param"),
    [
        ([MODEL], "image"),
        ([IMAGE], "model"),
        ([MODEL, part("image", b"", file="")], "image"),
        ([MODEL, IMAGE, part("prompt", "a", file="a.txt")], "prompt"),
        ([MODEL, IMAGE, part("n", "1", file="a.txt")], "n"),
        ([MODEL, IMAGE, part("n[]", "1")], "n"),
        ([MODEL, part("image[]", PNG, file="a"), part("image[]", PNG, file="b")], "image"),
    ],
)
async def test_parts_of_the_wrong_kind_are_named(app: FastAPI, parts: list[bytes], param: str) -> None:
    answer = await send(app, *parts)
    assert answer.status == 400, answer.body
    assert ErrorBody.model_validate_json(answer.body).error.param == param


async def test_other_routes_take_no_forms(app: FastAPI) -> None:
    assert (await send(app, MODEL, IMAGE, path="/v1/json")).status == 415


async def test_forms_are_limited_as_json_is(app: FastAPI) -> None:
    whole = form(MODEL, part("image", bytes(3 << 20), file="a"))
    headers = [(b"content-type", TYPE)]
    sized = Exchange("/v1/images/edits", [whole], headers=[*headers, (b"content-length", b"%d" % len(whole))])
    assert (await sized.run(app)).status == 413
    assert sized.received == 0
    assert (await Exchange("/v1/images/edits", [whole], headers=headers).run(app)).status == 413
    slow = await Exchange("/v1/images/edits", [whole[:100]], headers=headers, more=True).run(app)
    assert (slow.status, slow.json["error"]["code"]) == (400, "body_too_slow")
    packed = Exchange("/v1/images/edits", [whole], headers=[*headers, (b"content-encoding", b"gzip")])
    assert (await packed.run(app)).status == 415


async def test_a_form_in_pieces(app: FastAPI) -> None:
    whole = form(MODEL, IMAGE)
    pieces = [whole[i : i + 7] for i in range(0, len(whole), 7)]
    assert (
        await Exchange("/v1/images/edits", pieces, headers=[(b"content-type", TYPE)]).run(app)
    ).status == 200


async def test_both_kinds_of_body_are_documented(app: FastAPI) -> None:
    schema = app.openapi()
    content = schema["paths"]["/v1/images/edits"]["post"]["requestBody"]["content"]
    assert content["multipart/form-data"]["schema"] == content["application/json"]["schema"]
    assert schema["components"]["schemas"]["Edit"]["properties"]["image"]["type"] == "string"
    assert list(schema["paths"]["/v1/json"]["post"]["requestBody"]["content"]) == ["application/json"]


async def test_openais_own_client(app: FastAPI) -> None:
    async with openai.DefaultAsyncHttpxClient(transport=httpx2.ASGITransport(app)) as speaker:
        client = openai.AsyncOpenAI(
            base_url="http://atelier/v1", api_key="none", http_client=speaker, max_retries=0
        )
        named = io.BytesIO(PNG)
        named.name = "a.png"
        for image in (PNG, named, ("b.png", PNG, "image/png"), [PNG]):
            answer = await client.images.edit(
                model="tiles", image=image, mask=b"m", prompt="h\N{LATIN SMALL LETTER E WITH ACUTE}", n=2, stream=False,
                quality="auto", user="me", extra_body={"seed": 7, "strength": 0.75, "hd": True},
            )  # fmt: skip
            assert answer.data is not None
            told = orjson.loads(answer.data[0].b64_json or "")
            assert told == {
                "model": "tiles", "prompt": "h\N{LATIN SMALL LETTER E WITH ACUTE}", "n": 2, "strength": 0.75, "seed": 7, "hd": True,
                "stream": "false", "quality": "auto", "user": "me", "image": PNG.hex(), "mask": b"m".hex(),
            }  # fmt: skip
        with pytest.raises(openai.BadRequestError) as caught:
            await client.images.edit(model="tiles", image=PNG, prompt="", n=99)
        assert caught.value.param == "n"


async def test_httpx_sends_one_as_well(app: FastAPI) -> None:
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://atelier") as client:
        answer = await client.post("/v1/images/edits", data={"model": "tiles", "n": 2}, files={"image": PNG})
    assert answer.status_code == 200
