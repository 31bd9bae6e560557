"""`/docs` and `/openapi.json`. The page is HTML made from the schema: it loads nothing, so it works offline."""

import asyncio
import json
from collections.abc import Callable, Iterator
from html import escape
from typing import Any, Final, TypeAlias

from service.answers import Document, json_answer
from service.call import Call

Schema: TypeAlias = dict[str, Any]

POLICY: Final = b"default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"
STYLE: Final = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; color: #1c2430 }
h1 { margin-bottom: 0 } h2 { margin-top: 2.5rem; border-bottom: 1px solid #d5dbe3 } h2 b { color: #0a6b52 }
pre, code { font: 13px/1.45 ui-monospace, monospace; background: #f3f5f8 } pre { padding: .7rem; overflow-x: auto }
table { border-collapse: collapse; width: 100% } td, th { text-align: left; vertical-align: top; padding: .25rem .6rem }
tr + tr { border-top: 1px solid #e6eaf0 } summary { cursor: pointer; margin: .6rem 0 } a { color: #0a5f8a }
@media (prefers-color-scheme: dark) { body { background: #14181f; color: #dde3ea } pre, code { background: #1f2630 }
h2, tr + tr { border-color: #333d4a } h2 b { color: #58c9a6 } a { color: #6cb8e0 } }
"""


class Docs:
    """The application's description of itself."""

    def __init__(self, schema: Callable[[], Schema]) -> None:
        self._schema = schema

    async def page(self, call: Call) -> Document:
        """Show every route with its fields, for people."""
        html = page(await self._made(), call.scope.get("root_path", ""))
        headers = ((b"content-security-policy", POLICY), (b"x-content-type-options", b"nosniff"))
        return Document(html.encode(), b"text/html; charset=utf-8", headers=headers)

    async def schema(self, call: Call) -> Document:
        """Show the same for programs: OpenAPI, with the address under which it was asked for."""
        root = call.scope.get("root_path", "")
        return json_answer({**await self._made(), "servers": [{"url": root or "/"}]})

    async def _made(self) -> Schema:
        """FastAPI makes the schema once, and takes its time."""
        return await asyncio.to_thread(self._schema)


def page(schema: Schema, root: str) -> str:
    """One HTML page of an OpenAPI document."""
    info = schema["info"]
    title = escape(f"{info['title']} {info['version']}")
    return "".join(
        [
            f"<!doctype html><html lang=en><meta charset=utf-8><title>{title}</title>",
            f"<meta name=viewport content='width=device-width'><style>{STYLE}</style><h1>{title}</h1>",
            f"<p>{escape(info['description'])} <a href='{escape(root)}/openapi.json'>OpenAPI</a></p>",
            *_operations(schema, root),
            "<h2>Objects</h2>",
            *(_object(name, part) for name, part in sorted(schema["components"]["schemas"].items())),
        ]
    )


def _operations(schema: Schema, root: str) -> Iterator[str]:
    for path, methods in schema["paths"].items():
        for method, operation in methods.items():
            yield f"<h2><b>{method.upper()}</b> {escape(root + path)}</h2><p>{escape(operation['description'])}</p>"
            body = operation.get("requestBody")
            if body is not None:
                request = _resolve(schema, body["content"]["application/json"]["schema"])
                yield _example(root + path, request)
                yield _table(request)
            yield "<details><summary>Answers</summary><table>"
            for status, response in operation["responses"].items():
                kinds = [_kind(content.get("schema", {})) for content in response.get("content", {}).values()]
                yield f"<tr><td>{status}<td>{escape(response['description'])}<td>{' or '.join(kinds)}"
            yield "</table></details>"


def _example(path: str, request: Schema) -> str:
    examples = request.get("examples", [])
    if not examples:
        return ""
    # In the table's order; the schema's own is alphabetical.
    fields = {name: examples[0][name] for name in request["properties"] if name in examples[0]}
    body = json.dumps(fields, ensure_ascii=False)
    return f"<pre>curl localhost:8000{escape(path)} -H 'content-type: application/json' -d '{escape(body)}'</pre>"


def _object(name: str, part: Schema) -> str:
    return (
        f"<details id='{name}'><summary><code>{name}</code></summary><p>{escape(part.get('description', ''))}</p>"
        f"{_table(part)}</details>"
    )


def _table(part: Schema) -> str:
    required = part.get("required", [])
    rows = []
    for name, field in part.get("properties", {}).items():
        given = "required" if name in required else _default(field)
        rows.append(
            f"<tr><td><code>{escape(name)}</code><td>{_kind(field)}<td>{given}<td>{escape(field.get('description', ''))}"
        )
    return f"<table>{''.join(rows)}</table>"


def _default(field: Schema) -> str:
    default = field.get("default")
    return "" if default is None else f"<code>{escape(json.dumps(default))}</code>"


def _kind(schema: Schema) -> str:
    """A schema's type in a few words, as HTML."""
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        return f"<a href='#{name}'>{name}</a>"
    for key in ("anyOf", "oneOf"):
        if key in schema:
            return " or ".join(_kind(branch) for branch in schema[key] if branch != {"type": "null"})
    if "enum" in schema or "const" in schema:
        values = schema.get("enum", [schema.get("const")])
        return ", ".join(f"<code>{escape(json.dumps(value))}</code>" for value in values) or "null"
    if schema.get("type") == "array":
        return f"list of {_kind(schema.get('items', {}))}"
    return escape(" ".join([schema.get("type", "any"), *_bounds(schema)]))


def _bounds(schema: Schema) -> Iterator[str]:
    for key, sign in (
        ("minimum", ">="),
        ("exclusiveMinimum", ">"),
        ("maximum", "<="),
        ("exclusiveMaximum", "<"),
    ):
        # 2**63 - 1 says no more than that any integer goes.
        if key in schema and abs(schema[key]) < 2**31 - 1:
            yield f"{sign} {schema[key]:g}"


def _resolve(schema: Schema, part: Schema) -> Schema:
    if "$ref" not in part:
        return part
    found: Schema = schema["components"]["schemas"][part["$ref"].rpartition("/")[2]]
    return found
