"""Reads held-out texts. Nothing is downloaded.

file.txt, or a folder of them         documents
file.jsonl   {"text"}                 documents
             {"prompt", "target"}     what to answer to; `target` may be a list of right answers
             {"messages", "target"}   the same to a conversation
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from deployments.evaluation.data import chosen, digest
from deployments.evaluation.errors import EvaluationError
from deployments.evaluation.record import Data
from deployments.messages import Chat


@dataclass(frozen=True)
class Pair:
    """What is asked, and the answers that are right."""

    prompt: str | Chat
    wanted: tuple[str, ...]

    @property
    def asked(self) -> str:
        """What a page shows of the prompt."""
        if isinstance(self.prompt, str):
            return self.prompt
        return "\n".join(str(each.get("content", "")) for each in self.prompt.messages)


@dataclass(frozen=True)
class Texts:
    """Documents or pairs."""

    documents: tuple[str, ...] = ()
    pairs: tuple[Pair, ...] = ()


class _Line(BaseModel):
    model_config = ConfigDict(extra="ignore", strict=True)

    text: str | None = None
    prompt: str | None = None
    messages: Annotated[list[dict[str, Any]], Field(min_length=1)] | None = None
    target: str | list[str] | None = None


def read_texts(path: Path, limit: int | None) -> tuple[Texts, Data]:
    """Documents or pairs. Of more than `limit` of them, a fixed choice. Raises EvaluationError."""
    files = sorted(path.rglob("*.txt")) if path.is_dir() else [path]
    if path.suffix not in (".txt", ".jsonl") and not (path.is_dir() and files):
        raise EvaluationError(f"{path} is neither .txt nor .jsonl, nor a folder of .txt files")
    try:
        raw = [file.read_bytes() for file in files]
        whole = [content.decode() for content in raw]
    except (OSError, UnicodeDecodeError) as error:
        raise EvaluationError(f"{path} cannot be read as UTF-8 text: {error}") from error
    texts = _lines(path, whole[0]) if path.suffix == ".jsonl" else Texts(documents=tuple(filter(None, whole)))
    parts: Mapping[str, tuple[Any, ...]] = {"documents": texts.documents, "pairs": texts.pairs}
    kept = {name: tuple(each[place] for place in chosen(len(each), limit)) for name, each in parts.items()}
    count = len(kept["documents"]) + len(kept["pairs"])
    if not count:
        raise EvaluationError(f"there is no text in {path}")
    return Texts(**kept), Data(name=path.resolve().name, digest=digest(raw, limit), items=count)


def _lines(path: Path, content: str) -> Texts:
    documents, pairs = [], []
    for number, raw in enumerate(content.splitlines(), start=1):
        if not raw.strip():
            continue
        try:
            line = _Line.model_validate_json(raw)
        except ValidationError as error:
            raise EvaluationError(f"line {number} of {path} is wrong: {error.errors()[0]['msg']}") from error
        prompt = Chat(tuple(line.messages)) if line.messages else line.prompt
        if line.text:
            documents.append(line.text)
        elif prompt is not None and line.target is not None:
            wanted = (line.target,) if isinstance(line.target, str) else tuple(line.target)
            pairs.append(Pair(prompt, wanted))
        else:
            raise EvaluationError(f"line {number} of {path} has neither 'text' nor 'prompt' and 'target'")
    if documents and pairs:
        raise EvaluationError(f"{path} mixes documents with pairs")
    return Texts(tuple(documents), tuple(pairs))
