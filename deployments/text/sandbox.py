"""A Jinja environment for chat templates in which nothing takes more than its share of time and memory.

What transformers gives a template is here (`tojson`, `raise_exception`, `strftime_now`, loop controls, `generation`
blocks), over Jinja's own sandbox, which stops escapes but no `'a' * 10 ** 9` and no endless loop. A thread cannot be
stopped from outside, so every template is rewritten as it is read: each loop turn, call, filter, comparison and piece of
output pays into a meter, before the work where the work can be large. Knows no messages and no model.
"""

import functools
import json
import re
import threading
from collections.abc import Callable, Generator, Iterable
from contextlib import contextmanager
from datetime import datetime
from typing import Any, Final, cast

from jinja2 import TemplateError, nodes, pass_context
from jinja2.exceptions import SecurityError
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.runtime import Context, Macro
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.utils import Namespace
from jinja2.visitor import NodeTransformer

from deployments.text.meter import Meter, TooMuch


def _words(names: str) -> frozenset[str]:
    return frozenset(names.split())


_MAX_BITS: Final = 4096  # of an integer
_MAX_WIDTH: Final = 1000  # of an indentation, and of any number that makes text longer

_WIDE_FORMAT: Final = re.compile(r"%[^%a-zA-Z]*(\d{4,}|\*)|\{[^{}]*:[^{}]*(\d{4,}|\{)")
# What a template may do to a string. The others make much of little (`ljust`) or no text (`encode`).
_STRING_METHODS: Final = _words(
    "capitalize casefold count endswith find format index isalnum isalpha isascii isdecimal isdigit islower isnumeric "
    "isspace istitle isupper join lower lstrip partition removeprefix removesuffix replace rfind rindex rpartition "
    "rsplit rstrip split splitlines startswith strip swapcase title upper"
)
# Filters that only hand on what they get, item by item.
_LIGHT_FILTERS: Final = _words(
    "abs count d default first float int items last length list map reject rejectattr select selectattr"
)
# Filters that read all of it: text, or containers as text.
_HEAVY_FILTERS: Final = _words(
    "batch capitalize dictsort e escape forceescape format indent join lower max min replace reverse round safe sort "
    "string title trim truncate unique upper wordcount"
)
_COMPARING_TESTS: Final = _words("== != > >= < <= eq ne gt ge lt le equalto greaterthan lessthan in sameas")


class _Rewriter(NodeTransformer):
    """Puts a meter's filter around everything whose cost the environment does not see otherwise."""

    def visit_For(self, node: nodes.For) -> nodes.Node:  # noqa: N802
        self.generic_visit(node)
        node.iter = _through("*turns", cast("nodes.Expr", node.iter))
        return node

    def visit_Output(self, node: nodes.Output) -> nodes.Node:  # noqa: N802
        self.generic_visit(node)
        node.nodes = [
            _through(
                "*written",
                nodes.Const(part.data, lineno=part.lineno) if isinstance(part, nodes.TemplateData) else part,
            )
            for part in node.nodes
        ]
        return node

    def visit_Concat(self, node: nodes.Concat) -> nodes.Node:  # noqa: N802
        self.generic_visit(node)
        return _through("*joined", nodes.List(node.nodes, lineno=node.lineno))

    def visit_Compare(self, node: nodes.Compare) -> nodes.Node:  # noqa: N802
        self.generic_visit(node)
        node.expr = _weighed(node.expr)
        for operand in node.ops:
            operand.expr = _weighed(operand.expr)
        return node

    def visit_Pair(self, node: nodes.Pair) -> nodes.Node:  # noqa: N802
        self.generic_visit(node)
        node.key = _weighed(node.key)
        return node

    def visit_Getitem(self, node: nodes.Getitem) -> nodes.Node:  # noqa: N802
        self.generic_visit(node)
        if not isinstance(node.arg, nodes.Slice):
            node.arg = _weighed(node.arg)
        return node

    def visit_Import(self, node: nodes.Node) -> nodes.Node:  # noqa: N802
        raise SecurityError(f"a chat template has nothing to {type(node).__name__.lower()}")

    visit_FromImport = visit_Include = visit_Extends = visit_Import  # noqa: N815


def _through(name: str, node: nodes.Expr) -> nodes.Filter:
    return nodes.Filter(node, name, [], [], None, None, lineno=node.lineno)


def _weighed(node: nodes.Expr) -> nodes.Expr:
    return node if isinstance(node, nodes.Const) else _through("*weighed", node)


class _Generation(Extension):
    """`{% generation %}` marks what the model said, for training; here its content is just content."""

    tags = {"generation"}  # noqa: RUF012

    def parse(self, parser: Parser) -> nodes.Node:
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return nodes.Scope(body).set_lineno(line)


class _Namespace(Namespace):
    """Jinja's, without names that begin with an underscore."""

    def __init__(*args: Any, **kwargs: Any) -> None:
        attributes = dict(*args[1:], **kwargs)
        for name in attributes:
            _refuse_private(name)
        Namespace.__init__(args[0], attributes)

    def __setitem__(self, name: str, value: Any) -> None:
        _refuse_private(name)
        super().__setitem__(name, value)


def _refuse_private(name: Any) -> None:
    if str(name).startswith("_"):
        raise SecurityError("names must not begin with an underscore")


class Sandbox(ImmutableSandboxedEnvironment):
    """One environment for one template; it may render in several threads at once."""

    intercepted_binops = frozenset({"+", "*", "**", "%"})

    def __init__(self, now: Callable[[], datetime], seconds: float) -> None:
        super().__init__(trim_blocks=True, lstrip_blocks=True, extensions=[_Generation, loopcontrols])
        self._local = threading.local()
        self._seconds = seconds
        light = {name: self._light(self.filters[name]) for name in _LIGHT_FILTERS}
        heavy = {name: self._heavy(self.filters[name]) for name in _HEAVY_FILTERS}
        heavy["replace"], heavy["tojson"] = self._heavy(self._replace), self._heavy(_tojson)
        heavy["join"], heavy["format"] = self._heavy(self._join(self.filters["join"])), self._heavy(_format)
        self.filters = {**light, **heavy, **self._meters()}
        self.tests.update(
            {name: self._weighing(cast("Callable[..., Any]", self.tests[name])) for name in _COMPARING_TESTS}
        )
        self.globals = {
            "range": self.globals["range"],
            "joiner": self.globals["joiner"],
            "cycler": self.globals["cycler"],
            "dict": dict,
            "namespace": _Namespace,
            "raise_exception": _raise_exception,
            "strftime_now": lambda form: _strftime(now, form),
        }

    @contextmanager
    def metered(self) -> Generator[None]:
        """One rendering, or one compilation: it raises TooMuch past its limits."""
        self._local.meter = Meter(self._seconds)
        try:
            yield
        finally:
            del self._local.meter

    # -- what Jinja asks ---------------------------------------------------------------------------------------------

    def _parse(self, source: str, name: str | None, filename: str | None) -> nodes.Template:
        tree: nodes.Template = _Rewriter().visit(super()._parse(source, name, filename))
        return tree

    def is_safe_attribute(self, obj: Any, attr: str, value: Any) -> bool:
        """No attribute that the sandbox refuses, and no method of a string that is not listed."""
        return super().is_safe_attribute(obj, attr, value) and (
            not isinstance(obj, str) or attr in _STRING_METHODS
        )

    def wrap_str_format(self, value: Any) -> Callable[..., str] | None:
        """Jinja's safe `str.format`, without wide numbers."""
        safe = super().wrap_str_format(value)
        if safe is None:
            return None
        if value.__name__ != "format" or _WIDE_FORMAT.search(value.__self__):
            raise SecurityError("the format is not allowed")
        return self._heavy(safe)

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        """Pay for what comes out before it is made."""
        meter: Meter = self._local.meter
        if operator == "+" and isinstance(left, str) and isinstance(right, str):
            meter.make(len(left) + len(right))
        elif operator == "+" and isinstance(left, (list, tuple)) and isinstance(right, (list, tuple)):
            meter.spend(len(left) + len(right))
        elif operator == "%" and isinstance(left, str):
            meter.write(right)
            return _format(left, *(right if isinstance(right, tuple) else (right,)))
        elif operator == "*":
            self._times(meter, left, right)
        elif operator == "**" and _bits(left) * max(1, abs(right)) > _MAX_BITS:
            raise TooMuch("a number is too large")
        return super().call_binop(context, operator, left, right)

    def _times(self, meter: Meter, left: Any, right: Any) -> None:
        if isinstance(right, (str, list, tuple)):
            left, right = right, left
        if isinstance(left, str) and isinstance(right, int):
            meter.make(len(left) * max(0, right))
        elif isinstance(left, (list, tuple)) and isinstance(right, int):
            meter.spend(len(left) * max(0, right))
        elif _bits(left) + _bits(right) > _MAX_BITS:
            raise TooMuch("a number is too large")

    def call(__self, __context: Context, __obj: Any, /, *args: Any, **kwargs: Any) -> Any:  # noqa: N805
        """Pay for a call; what a macro does pays for itself."""
        meter: Meter = __self._local.meter
        meter.spend()
        if isinstance(__obj, Macro):
            return super().call(__context, __obj, *args, **kwargs)
        owner, name = getattr(__obj, "__self__", None), getattr(__obj, "__name__", "")
        meter.weigh(*args, *kwargs.values())
        if isinstance(owner, str):
            if name == "replace":
                return __self._replace(owner, *args, **kwargs)
            meter.make(len(owner))
            if name == "join":
                args = (__self._paid_list(owner, *args),)
        elif name in ("index", "count"):
            meter.weigh(owner)
        return super().call(__context, __obj, *args, **kwargs)

    # -- filters and tests -------------------------------------------------------------------------------------------

    def _meters(self) -> dict[str, Callable[..., Any]]:
        """The filters that the rewriter puts in. They take the context so that Jinja never folds them into constants."""

        @pass_context
        def turns(_: Context, items: Iterable[Any]) -> Iterable[Any]:
            meter: Meter = self._local.meter
            for item in items:
                meter.spend()
                yield item

        @pass_context
        def written(_: Context, value: Any) -> Any:
            self._local.meter.write(value)
            return value

        @pass_context
        def weighed(_: Context, value: Any) -> Any:
            self._local.meter.weigh(value)
            return value

        @pass_context
        def joined(_: Context, values: list[Any]) -> str:
            self._local.meter.write(values)
            return "".join(map(str, values))

        return {"*turns": turns, "*written": written, "*weighed": weighed, "*joined": joined}

    def _light(self, function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        def light(*args: Any, **kwargs: Any) -> Any:
            self._local.meter.spend()
            result = function(*args, **kwargs)
            if isinstance(result, list):
                self._local.meter.spend(len(result))
            return result

        return light

    def _heavy(self, function: Callable[..., Any]) -> Callable[..., Any]:
        widens = function.__name__ in _WIDENING
        skipped = 1 if hasattr(function, "jinja_pass_arg") else 0  # the context, or the like of it

        @functools.wraps(function)
        def heavy(*args: Any, **kwargs: Any) -> Any:
            meter: Meter = self._local.meter
            for value in (*args[skipped:], *kwargs.values()):
                (meter.weigh if isinstance(value, str) else meter.write)(value)
                if widens and isinstance(value, int) and abs(value) > _MAX_WIDTH:
                    raise TooMuch("a number is too large")
            result = function(*args, **kwargs)
            (meter.write if isinstance(result, str) else meter.weigh)(result)
            return result

        return heavy

    def _weighing(self, function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        def weighing(*args: Any, **kwargs: Any) -> Any:
            self._local.meter.weigh(*args, *kwargs.values())
            return function(*args, **kwargs)

        return weighing

    def _replace(self, text: Any, old: Any, new: Any, count: int | None = None) -> str:
        text, old, new = str(text), str(old), str(new)
        found = text.count(old) if count is None or count < 0 else min(count, text.count(old))
        self._local.meter.make(len(text) + found * len(new))
        return str(text.replace(old, new, -1 if count is None else count))

    def _join(self, function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        def join(context: Any, value: Iterable[Any], d: str = "", attribute: str | None = None) -> Any:
            return function(context, self._paid_list(str(d), value), d, attribute)

        return join

    def _paid_list(self, between: str, values: Iterable[Any]) -> list[Any]:
        """The values, all of them and what stands between them paid for."""
        meter, result = self._local.meter, []
        for value in values:
            meter.write(value)
            meter.make(len(between))
            result.append(value)
        return result


_WIDENING: Final = frozenset({"do_indent", "_tojson", "do_batch", "do_round", "do_truncate"})


def _bits(value: Any) -> int:
    return value.bit_length() if isinstance(value, int) else 0


def _format(value: Any, *args: Any, **kwargs: Any) -> str:
    if _WIDE_FORMAT.search(str(value)):
        raise SecurityError("the format is not allowed")
    return str(value) % (kwargs or args)


def _tojson(  # the names and defaults that transformers gives it
    value: Any,
    ensure_ascii: bool = False,  # noqa: FBT001, FBT002
    indent: Any = None,
    separators: Any = None,
    sort_keys: bool = False,  # noqa: FBT001, FBT002
) -> str:
    if isinstance(indent, str) and len(indent) > _MAX_WIDTH:
        raise TooMuch("a number is too large")
    return json.dumps(
        value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys
    )


def _raise_exception(message: str) -> None:
    if not isinstance(message, str):
        raise TypeError("a reason is a text")
    raise TemplateError(message)


def _strftime(now: Callable[[], datetime], form: str) -> str:
    if len(form) > _MAX_WIDTH or re.search(r"%[^a-zA-Z%]*\d", form):
        raise SecurityError("the format is not allowed")
    return now().strftime(form)
