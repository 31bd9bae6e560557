"""multipart/form-data (RFC 7578) as the object that JSON would be: texts are strings, files `File`, `name[]` lists.

Reads from memory and writes no file; knows no route. Names of files are not looked at.
"""

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from deployments.errors import BadRequest
from service.errors import UnsupportedMedia
from service.openai.schemas.fields import File

MEDIA: Final = "multipart/form-data"
MAX_PARTS: Final = 64
MAX_TEXT: Final = 262_144
"""Bytes of one field that is no file."""

_MAX_HEADERS: Final = 8
_MAX_HEADER_BYTES: Final = 2048
_UNCHANGED: Final = (b"", b"7bit", b"8bit", b"binary")
_UTF_8: Final = (b"", b"utf-8", b"us-ascii")


def is_form(content_type: bytes) -> bool:
    """Whether a body of this type is a form."""
    return content_type.partition(b";")[0].strip().lower() == MEDIA.encode()


def parse_form(body: bytes, content_type: bytes) -> dict[str, Any]:
    """The fields of a form. Raises BadRequest, and UnsupportedMedia for text that is not UTF-8."""
    boundary = parse_options_header(content_type)[1].get(b"boundary", b"")
    if not boundary:
        raise _malformed("its content type names no boundary")
    reader = _Reader()
    try:
        parser = MultipartParser(
            boundary, reader.callbacks(), max_header_count=_MAX_HEADERS, max_header_size=_MAX_HEADER_BYTES
        )
        # A client's mistakes are answered, not logged.
        parser.logger = logging.Logger("form", logging.CRITICAL)  # noqa: LOG001 - its own, beside all others
        parser.write(body)
    except FormParserError as error:
        raise _malformed(str(error)[:100]) from None
    if not reader.ended:
        raise _malformed("its end is missing")
    return _gathered(reader.parts)


def _malformed(what: str) -> BadRequest:
    return BadRequest(f"The body is not valid {MEDIA}: {what}.", code="invalid_multipart")


@dataclass
class _Part:
    headers: dict[bytes, bytes] = field(default_factory=dict)
    pieces: list[bytes] = field(default_factory=list)


class _Reader:
    """Collects what the parser finds, which may call several times for one header or one part's content."""

    def __init__(self) -> None:
        self.parts: list[_Part] = []
        self.ended = False
        self._name = self._value = b""

    def callbacks(self) -> Any:
        return {
            "on_part_begin": self._begin,
            "on_header_field": self._header_name,
            "on_header_value": self._header_value,
            "on_header_end": self._header_end,
            "on_part_data": self._data,
            "on_end": self._end,
        }

    def _begin(self) -> None:
        if len(self.parts) == MAX_PARTS:
            raise BadRequest(f"The form has more than {MAX_PARTS} parts.", code="invalid_multipart")
        self.parts.append(_Part())

    def _header_name(self, data: bytes, start: int, end: int) -> None:
        self._name += data[start:end]

    def _header_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def _header_end(self) -> None:
        headers = self.parts[-1].headers
        name = self._name.lower()
        if name in headers:
            raise _malformed("a part's header is given twice")
        headers[name] = self._value
        self._name = self._value = b""

    def _data(self, data: bytes, start: int, end: int) -> None:
        self.parts[-1].pieces.append(data[start:end])

    def _end(self) -> None:
        self.ended = True


def _gathered(parts: list[_Part]) -> dict[str, Any]:
    fields: dict[str, Any] = {}
    for part in parts:
        name, value = _field(part)
        key = name.removesuffix("[]")
        if key == name and key not in fields:
            fields[key] = value
        elif key != name and isinstance(fields.setdefault(key, []), list):
            fields[key].append(value)
        else:
            raise BadRequest(f"The field '{key}' is given twice.", code="duplicate_key", param=key)
    return fields


def _field(part: _Part) -> tuple[str, str | File]:
    disposition, options = parse_options_header(part.headers.get(b"content-disposition"))
    name = _text(options.get(b"name", b""), None)
    if disposition != b"form-data" or not name:
        raise _malformed("a part has no name")
    if part.headers.get(b"content-transfer-encoding", b"").lower() not in _UNCHANGED:
        raise BadRequest("Send the parts of a form without a transfer encoding.", param=name)
    kind, parameters = parse_options_header(part.headers.get(b"content-type"))
    if kind.startswith(b"multipart/"):
        raise BadRequest("A form inside a form is not read: send each file as a part.", param=name)
    content = b"".join(part.pieces)
    if b"filename" in options:
        return name, File(content)
    _check_charset(parameters)
    if len(content) > MAX_TEXT:
        raise BadRequest(f"A field is text of at most {MAX_TEXT} bytes: send more as a file.", param=name)
    return name, _text(content, name)


def _check_charset(parameters: Mapping[bytes, bytes]) -> None:
    if parameters.get(b"charset", b"").lower() not in _UTF_8:
        raise UnsupportedMedia("Send the fields of a form as UTF-8.")


def _text(content: bytes, param: str | None) -> str:
    try:
        return content.decode()
    except UnicodeDecodeError:
        raise BadRequest(
            "A field of a form is UTF-8 text, or a file with its 'filename'.",
            code="invalid_multipart",
            param=param,
        ) from None
