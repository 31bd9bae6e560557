"""What a Hugging Face directory says of its text: tokenizer, special tokens, chat template. Opens no model."""

from dataclasses import dataclass
from typing import Any, Final, Literal

from tokenizers import Tokenizer

from model_store.export.errors import DraftError
from model_store.export.hf.directory import Directory, read_json
from model_store.manifest import Chat

TOKENIZER: Final = "tokenizer.json"
TEMPLATE: Final = "chat_template.jinja"

_TOOLS: Final = (
    ("[TOOL_CALLS]", "mistral"),
    ("<tool_call>", "hermes"),
    ("<|python_tag|>", "llama3"),
    ("ipython", "llama3"),
)


@dataclass(frozen=True)
class Words:
    """A directory's text side. `files` go into the package; `prefix` and `suffix` are what the tokenizer puts around a text."""

    files: dict[str, bytes]
    vocabulary: int
    prefix: tuple[int, ...]
    suffix: tuple[int, ...]
    bos_token_id: int | None
    eos_token_ids: tuple[int, ...]
    chat: Chat | None


def read_words(directory: Directory, content: bytes | None = None) -> Words:
    """Read them; `content` stands for a tokenizer.json. Raises DraftError where there is none, or one that cannot be read."""
    path = directory.path / TOKENIZER
    if content is None and not path.is_file():
        raise DraftError(
            "there is no tokenizer.json: load the tokenizer with transformers' AutoTokenizer once and save_pretrained it here"
        )
    content = path.read_bytes() if content is None else content
    try:
        tokenizer = Tokenizer.from_str(content.decode())
    except Exception as error:
        raise DraftError(f"tokenizer.json cannot be read: {error!s:.200}") from error
    tokenizer.no_truncation()
    tokenizer.no_padding()  # or it would count as what stands behind a text
    prefix, suffix = _around(tokenizer)
    chat, template = _chat(directory)
    return Words(
        files={TOKENIZER: content} | ({TEMPLATE: template.encode()} if template else {}),
        vocabulary=tokenizer.get_vocab_size(with_added_tokens=True),
        prefix=prefix,
        suffix=suffix,
        bos_token_id=_first(_ids(directory, "bos_token_id")),
        eos_token_ids=_eos(directory, tokenizer),
        chat=chat,
    )


def _around(tokenizer: Tokenizer) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Ids the tokenizer's post-processor puts before and after a text."""
    encoding = tokenizer.encode("a")
    special = encoding.special_tokens_mask
    inner = [place for place, flag in enumerate(special) if not flag]
    if not inner:
        return tuple(encoding.ids), ()
    return tuple(encoding.ids[: inner[0]]), tuple(encoding.ids[inner[-1] + 1 :])


def _ids(directory: Directory, name: str) -> tuple[int, ...]:
    """Token ids under a name: the generation settings' word counts first."""
    for fields in (directory.generation, directory.config):
        found = fields.get(name)
        if isinstance(found, int):
            return (found,)
        if isinstance(found, list):
            return tuple(each for each in found if isinstance(each, int))
    return ()


def _eos(directory: Directory, tokenizer: Tokenizer) -> tuple[int, ...]:
    """Where an answer ends: as configured, and the tokenizer's own end token (chat models often end turns with it)."""
    own = tokenizer.token_to_id(_token(directory, "eos_token"))
    known = _ids(directory, "eos_token_id")
    return tuple(dict.fromkeys((*known, *(() if own is None else (own,)))))


def _first(ids: tuple[int, ...]) -> int | None:
    return ids[0] if ids else None


def _token(directory: Directory, name: str) -> str:
    found = directory.tokenizer_config.get(name) or ""
    return str(found.get("content", "")) if isinstance(found, dict) else str(found)


def _chat(directory: Directory) -> tuple[Chat | None, str]:
    template = _template(directory)
    if not template:
        return None, ""
    chat = Chat(
        template=TEMPLATE,
        bos_token=_token(directory, "bos_token"),
        eos_token=_token(directory, "eos_token"),
        tools=_tools(template),
    )
    return chat, template


def _template(directory: Directory) -> str:
    """The directory's chat template, wherever the version that saved it has put it."""
    path = directory.path / TEMPLATE
    if path.is_file():
        try:
            return path.read_text("utf-8")
        except UnicodeDecodeError as error:
            raise DraftError(f"{TEMPLATE} is not UTF-8") from error
    path = directory.path / "chat_template.json"
    if path.is_file():
        return _default(read_json(path).get("chat_template"))
    return _default(directory.tokenizer_config.get("chat_template"))


def _default(found: Any) -> str:
    """One template, or the one named `default` of several."""
    if isinstance(found, list):
        found = next(
            (
                each.get("template")
                for each in found
                if isinstance(each, dict) and each.get("name") == "default"
            ),
            "",
        )
    return found if isinstance(found, str) else ""


def _tools(template: str) -> Literal["hermes", "llama3", "mistral"] | None:
    """How the template writes tool calls, by the mark it puts before them; None where it takes no tools."""
    if "tools" not in template:
        return None
    for mark, style in _TOOLS:
        if mark in template:
            return style  # type: ignore[return-value]  # the table's values are these
    return None
