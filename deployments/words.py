"""What a model's tokenizer makes of a text, and of token ids. Runs no model."""

from deployments.errors import BadRequest
from deployments.messages import Chat, Detokenize, Output, Tokenize
from deployments.model import EncoderModel, TextModel
from deployments.text.vocabulary import Vocabulary


def tokenize(model: TextModel | EncoderModel, request: Tokenize) -> Output:
    """Token ids of a text, however long, or of a conversation as the model is shown it. Raises BadRequest."""
    vocabulary = vocabulary_of(model)
    tokens = _tokens(model, vocabulary, request)
    return Output(token_ids=tokens, token_bytes=tuple(vocabulary.token_bytes(token) for token in tokens))


def detokenize(model: TextModel | EncoderModel, request: Detokenize) -> Output:
    """Text of token ids, special tokens as they are written. Raises BadRequest for ids the model does not have."""
    vocabulary = vocabulary_of(model)
    vocabulary.check(request.tokens, "tokens")
    return Output(text=vocabulary.decode(request.tokens, special=True))


def vocabulary_of(model: TextModel | EncoderModel) -> Vocabulary:
    """The model's tokenizer."""
    return model.prompts.vocabulary if isinstance(model, TextModel) else model.encoding.vocabulary


def _tokens(model: TextModel | EncoderModel, vocabulary: Vocabulary, request: Tokenize) -> tuple[int, ...]:
    prompt = request.prompt
    if isinstance(prompt, Chat):
        if isinstance(model, TextModel):
            return model.prompts.tokens(prompt)
        raise BadRequest("This model has no chat template.", code="task_not_supported", param="model")
    inner = vocabulary.encode(prompt)
    if not request.special:
        return inner
    text = model.manifest.text
    if text is not None:
        return (*text.prefix, *inner, *(text.source.suffix if text.source else ()))
    return model.encoding.around(inner) if isinstance(model, EncoderModel) else inner
