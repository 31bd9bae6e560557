"""POST /v1/tokenize and /v1/detokenize."""

from typing import Any

from deployments.errors import BadRequest, ModelFault
from deployments.messages import Card, Chat, Detokenize, ModelClient, Output, Reply, Tokenize
from service.answers import Answer, beside, json_answer
from service.call import Call
from service.catalogue import Catalogue
from service.openai.conversation import chat_of, form_of
from service.openai.generation import in_place
from service.openai.logprobs import token_text
from service.openai.schemas.tokens import DetokenizeRequest, TokenizeRequest


class Tokenizers:
    """Between text and token ids."""

    def __init__(self, models: ModelClient, catalogue: Catalogue) -> None:
        self._models = models
        self._catalogue = catalogue

    async def tokenize(self, call: Call, body: TokenizeRequest) -> Answer:
        """Find the token ids of a text or a conversation."""
        card = await self._catalogue.tokenizer(call, body.model)
        request = Tokenize(
            model=body.model,
            prompt=_prompt(body, card),
            request_id=call.id,
            special=body.add_special_tokens,
            timeout_seconds=call.timeout_seconds,
        )
        names = {"prompt": "prompt" if body.messages is None else "messages"}
        output = await self._ask(call, request, names | {"prompt[0]": names["prompt"]})
        size = 8 * len(output.token_ids or ())
        return await beside(size, _tokens, output, card.limits["context"], body.return_token_strs)

    async def detokenize(self, call: Call, body: DetokenizeRequest) -> Answer:
        """Find the text of token ids."""
        await self._catalogue.tokenizer(call, body.model)
        request = Detokenize(
            model=body.model,
            tokens=tuple(body.tokens),
            request_id=call.id,
            timeout_seconds=call.timeout_seconds,
        )
        output = await self._ask(call, request, {})
        return json_answer({"prompt": output.text or ""})

    async def _ask(self, call: Call, request: Tokenize | Detokenize, names: dict[str, str]) -> Output:
        try:
            reply: Reply = await self._models.call(request)
        except BadRequest as error:
            raise in_place(error, names) from None
        call.version, call.timings = reply.version, reply.timings
        if len(reply.outputs) != 1:
            raise ModelFault("The model gave no answer.")
        return reply.outputs[0]


def _tokens(output: Output, context: int, with_texts: bool) -> Answer:  # noqa: FBT001 - called by place
    ids = output.token_ids or ()
    fields: dict[str, Any] = {"count": len(ids), "max_model_len": context, "tokens": ids}
    if with_texts:
        fields["token_strs"] = [token_text(token) for token in output.token_bytes or ()]
    return json_answer(fields)


def _prompt(body: TokenizeRequest, card: Card) -> str | Chat:
    if body.messages is None:
        if body.prompt is None:
            raise BadRequest(
                "Give either 'prompt' or 'messages'.", code="missing_required_parameter", param="prompt"
            )
        for name in ("tools", "chat_template_kwargs"):
            if getattr(body, name):
                raise BadRequest(f"'{name}' goes with 'messages'.", param=name)
        return body.prompt
    if body.prompt is not None:
        raise BadRequest("Give either 'prompt' or 'messages', not both.", param="messages")
    if "chat" not in card.capabilities:
        raise BadRequest("This model has no chat template.", code="task_not_supported", param="messages")
    if body.tools:
        form_of(card)
    return chat_of(body.messages, body.tools, body.chat_template_kwargs)
