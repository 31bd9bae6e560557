"""`/v1/tokenize` and `/v1/detokenize` on the wire, in vLLM's form."""

from typing import Annotated

from pydantic import AfterValidator, BeforeValidator, Field

from service.openai.schemas.fields import Body, Wire, example
from service.openai.schemas.limits import few, fits
from service.openai.schemas.messages import Messages, Tools, Variables
from service.openai.schemas.sampling import TokenId


class TokenizeRequest(Body):
    """Find the token ids of a text or a conversation."""

    model_config = example(model="shakespeare-gpt", prompt="ROMEO:", return_token_strs=True)

    prompt: Annotated[str | None, AfterValidator(fits)] = None
    messages: Annotated[Messages | None, Field(description="Instead of `prompt`, for models that chat.")] = (
        None
    )
    add_special_tokens: Annotated[
        bool, Field(description="With the tokens that a prompt of this model begins with.")
    ] = True
    return_token_strs: Annotated[bool, Field(description="With the text of each token.")] = False
    tools: Tools
    chat_template_kwargs: Variables


class DetokenizeRequest(Body):
    """Find the text of token ids."""

    model_config = example(model="shakespeare-gpt", tokens=[1, 2, 3])

    tokens: Annotated[list[TokenId], Field(fail_fast=True), BeforeValidator(few)]


class Tokens(Wire):
    """Token ids, and how many of them the model takes."""

    count: int
    max_model_len: int
    tokens: list[int]
    token_strs: list[str] | None = None


class Detokenized(Wire):
    """A text."""

    prompt: str
