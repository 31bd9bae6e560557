from collections.abc import Iterator
from pathlib import Path

import pytest

from deployments.errors import BadRequest, ModelNotFound
from deployments.messages import Chat, Detokenize, Tokenize, Usage
from tests.deployments.conftest import Opened, OpenStudio
from tests.encoders import encoder


@pytest.fixture
def framed(tmp_path: Path) -> Iterator[Opened]:
    encoder(tmp_path, name="framed", prefix=(1, 2), suffix=(3,))
    opened = Opened(tmp_path, {})
    yield opened
    opened.studio.close()


async def test_a_text_models_prompt_is_cut_into_tokens(open_tiny: OpenStudio) -> None:
    studio = open_tiny("tiny-text").studio
    reply = await studio.call(Tokenize("tiny-text", "hé"))
    (output,) = reply.outputs
    assert output.token_ids == tuple("hé".encode())
    assert output.token_bytes == (b"h", b"\xc3", b"\xa9")
    assert (reply.version, reply.usage) == ("1", Usage(prompt_tokens=3))


async def test_tokens_become_text_again(open_tiny: OpenStudio) -> None:
    studio = open_tiny("tiny-text").studio
    reply = await studio.call(Detokenize("tiny-text", tuple("héllo".encode())))
    assert (reply.outputs[0].text, reply.usage) == ("héllo", Usage(prompt_tokens=6))
    broken = await studio.call(Detokenize("tiny-text", (0xC3,)))
    assert broken.outputs[0].text == "\N{REPLACEMENT CHARACTER}"


@pytest.mark.parametrize("text", ["", "x" * 10_000])
async def test_texts_of_any_length_have_tokens(open_tiny: OpenStudio, text: str) -> None:
    reply = await open_tiny("tiny-text").studio.call(Tokenize("tiny-text", text))
    assert reply.outputs[0].token_ids == tuple(text.encode())


async def test_what_a_model_puts_around_a_text_is_left_out_on_request(framed: Opened) -> None:
    for special, expected in ((True, (1, 2, 97, 3)), (False, (97,))):
        reply = await framed.studio.call(Tokenize("framed", "a", special=special))
        assert reply.outputs[0].token_ids == expected


async def test_what_has_no_tokens_is_refused(open_tiny: OpenStudio, framed: Opened) -> None:
    conversation = Chat(({"role": "user", "content": "hi"},))
    refused: list[tuple[Opened, Tokenize | Detokenize, str, str]] = [
        (framed, Tokenize("framed", "half \ud800"), "surrogate", "prompt"),
        (framed, Tokenize("framed", conversation), "no chat template", "model"),
        (framed, Detokenize("framed", (1, 256)), "below 256", "tokens"),
        (framed, Detokenize("framed", (-1,)), "below 256", "tokens"),
        (open_tiny("tiny-ae"), Tokenize("tiny-ae", "a"), "no tokenizer", "model"),
        (open_tiny("tiny-text"), Tokenize("tiny-text", conversation), "no chat template", "model"),
    ]
    for opened, request, message, param in refused:
        with pytest.raises(BadRequest, match=message) as error:
            await opened.studio.call(request)
        assert error.value.param == param
    with pytest.raises(ModelNotFound):
        await framed.studio.call(Tokenize("framed", "a", version="2"))
