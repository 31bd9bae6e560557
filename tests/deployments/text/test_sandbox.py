import time
from datetime import UTC, datetime
from typing import Any

import pytest
from jinja2 import TemplateError
from transformers.utils.chat_template_utils import render_jinja_template

from deployments.text.meter import TooMuch
from deployments.text.sandbox import Sandbox

MESSAGES = [
    {"role": "user", "content": " To be, or not to be? "},
    {"role": "assistant", "content": "That is the question.\n"},
]
UNEXPECTED = (
    TemplateError,
    TypeError,
    ValueError,
    LookupError,
    AttributeError,
    ArithmeticError,
    RecursionError,
)


def rendered(source: str, seconds: float = 0.1) -> str:
    sandbox = Sandbox(lambda: datetime(2026, 7, 4, 12, tzinfo=UTC), seconds)
    with sandbox.metered():
        template = sandbox.from_string(source)
    with sandbox.metered():
        return template.render(messages=MESSAGES, tools=None, eos_token="</s>", add_generation_prompt=False)  # noqa: S106


@pytest.mark.parametrize(
    "source",
    [
        "a\n  {% if true %}\n  b\n  {% endif %}\n{#- c -#}\n d\n",
        "{{ messages[0].missing }}|{{ missing }}|{{ missing is defined }}|{{ messages[0]['role'] }}",
        "{{ messages | tojson }} {{ messages | tojson(indent=2) }} {{ {'b': 1, 'a': '<'} | tojson(sort_keys=true) }}",
        "{{ {'a': 1} | tojson(separators=(',', ':'), ensure_ascii=true) }}",
        "{% set ns = namespace(n=0) %}{% for m in messages %}{% set ns.n = ns.n + loop.index %}{% endfor %}{{ ns.n }}",
        "{% for i in range(5) %}{% if i == 1 %}{% continue %}{% endif %}{% if i == 3 %}{% break %}{% endif %}{{ i }}{% endfor %}",
        "{% for i in range(3) %}{{ loop.index }}/{{ loop.length }}{{ loop.previtem }}{{ loop.nextitem }}{{ loop.last }} {% endfor %}",
        "{% for k, v in {'x': 1, 'y': [2]}.items() %}{{ k }}={{ v }}{% else %}none{% endfor %}",
        "{% for i in [] %}x{% else %}none{% endfor %}{% for i in range(4) if i is odd %}{{ i }}{{ loop.length }}{% endfor %}",
        "{% macro m(a, b=2) %}{{ a ~ b }}{{ caller() if caller }}{% endmacro %}{{ m(1) }}{% call m('x') %}!{% endcall %}",
        "{{ 'a' ~ 1 ~ none ~ missing }} {{ 'a' * 3 }} {{ [1] * 2 + [3] }} {{ 2 ** 3 }} {{ 7 % 3 }} {{ '%s-%03d' % ('x', 5) }}",
        "{{ '%s %d' | format('a', 5) }} {{ '{} {:>3} {k}'.format(1, 2, k=3) }} {{ 'a,b'.split(',') | join('+') }}",
        "{{ '-'.join(['a', 'b']) }} {{ 'aXbX'.replace('X', 'y') }} {{ 'aXbX' | replace('X', 'y', 1) }} {{ 'ab' | upper | list }}",
        "{{ messages | map(attribute='role') | join(', ') }} {{ messages | selectattr('role', 'eq', 'user') | list | length }}",
        "{{ [3, 1, 2] | sort | first }} {{ [1, 1] | unique | list }} {{ {'b': 1, 'a': 2} | dictsort }} {{ 'a b' | wordcount }}",
        "{{ ' x ' | trim }}{{ 'x\\ny' | indent(2) }}{{ 'a b c d' | truncate(5) }}{{ 3.14159 | round(2) }}{{ none | default('d', true) }}",
        "{% set x %}{{ 'block' }}{% endset %}{{ x }}{% filter upper %}low{% endfilter %}{{ '<' | e }}{{ '<' | safe }}",
        "{{ dict(a=1) }} {{ dict([('b', 2)]) }} {{ messages[0] == messages[-1] }} {{ 'o' in 'foo' }} {{ (1, 2) in [(1, 2)] }} {{ 1 < 2 < 3 }}",
        "{% generation %}{{ messages[0].content }}{% endgeneration %}{% set j = joiner('|') %}{{ j() }}a{{ j() }}b",
        "{{ messages[0]['con' ~ 'tent'] }}{{ {'a' ~ 'b': 1} }}{{ {(1, 2): 3}[(1, 2)] }}{{ messages[:1] }}{{ 'abc'[::-1] }}",
        "{{ 'caf\u00e9'.title() }}{{ 'a.b'.rsplit('.', 1)[0] }}{{ '  a'.lstrip() }}{{ 'ab'.startswith('a') }}{{ 'aab'.count('a') }}",
    ],
)  # fmt: skip
def test_a_template_does_what_it_does_elsewhere(source: str) -> None:
    render: Any = render_jinja_template  # its types are narrower than what it takes
    theirs, *_ = render([MESSAGES], chat_template=source, eos_token="</s>")  # noqa: S106
    assert rendered(source) == theirs[0]


HOSTILE = {
    "nested loops": "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}",
    "nested loops with output": "{% for i in range(99999) %}{% for j in range(99999) %}x{% endfor %}{% endfor %}",
    "long range": "{% for i in range(10 ** 9) %}{% endfor %}",
    "large string": "{{ 'a' * 300000000 }}",
    "large list": "{{ [1] * 300000000 }}",
    "large number": "{{ 9 ** (9 ** 9) }}",
    "multiplied number": "{% set ns = namespace(x=9) %}{% for i in range(100) %}{% set ns.x = ns.x * ns.x %}{% endfor %}",
    "doubled sum": "{% set ns = namespace(x='a') %}{% for i in range(60) %}{% set ns.x = ns.x + ns.x %}{% endfor %}",
    "doubled concatenation": "{% set ns = namespace(x='a') %}{% for i in range(60) %}{% set ns.x = ns.x ~ ns.x %}{% endfor %}",
    "doubled block": "{% set ns = namespace(x='a') %}{% for i in range(60) %}{% set ns.x %}{{ ns.x }}{{ ns.x }}{% endset %}{% endfor %}",
    "doubled list": "{% set ns = namespace(x=[1]) %}{% for i in range(60) %}{% set ns.x = ns.x + ns.x %}{% endfor %}",
    "nested list": "{% set ns = namespace(x=[1]) %}{% for i in range(60) %}{% set ns.x = [ns.x, ns.x] %}{% endfor %}{{ ns.x }}",
    "nested list as json": "{% set ns = namespace(x=[1]) %}{% for i in range(60) %}{% set ns.x = [ns.x, ns.x] %}{% endfor %}{{ ns.x | tojson }}",
    "nested lists compared": "{% set ns = namespace(x=[1], y=[1]) %}{% for i in range(60) %}{% set ns.x = [ns.x, ns.x] %}{% set ns.y = [ns.y, ns.y] %}{% endfor %}{{ ns.x == ns.y }}",
    "nested lists tested": "{% set ns = namespace(x=[1], y=[1]) %}{% for i in range(60) %}{% set ns.x = [ns.x, ns.x] %}{% set ns.y = [ns.y, ns.y] %}{% endfor %}{{ ns.x is eq(ns.y) }}",
    "nested tuple as key": "{% set ns = namespace(x=(1,)) %}{% for i in range(60) %}{% set ns.x = (ns.x, ns.x) %}{% endfor %}{{ {ns.x: 1} }}",
    "nested tuple as index": "{% set ns = namespace(x=(1,)) %}{% for i in range(60) %}{% set ns.x = (ns.x, ns.x) %}{% endfor %}{{ {}[ns.x] }}",
    "nested list as string": "{% set ns = namespace(x=[1]) %}{% for i in range(60) %}{% set ns.x = [ns.x, ns.x] %}{% endfor %}{{ ns.x | string | length }}",
    "nested list formatted": "{% set ns = namespace(x=[1]) %}{% for i in range(60) %}{% set ns.x = [ns.x, ns.x] %}{% endfor %}{{ '%s' | format(ns.x) }}",
    "nested list by percent": "{% set ns = namespace(x=[1]) %}{% for i in range(60) %}{% set ns.x = [ns.x, ns.x] %}{% endfor %}{{ '%s' % ns.x }}",
    "nested list by braces": "{% set ns = namespace(x=[1]) %}{% for i in range(60) %}{% set ns.x = [ns.x, ns.x] %}{% endfor %}{{ '{}'.format(ns.x) }}",
    "nested list raised": "{% set ns = namespace(x=[1]) %}{% for i in range(60) %}{% set ns.x = [ns.x, ns.x] %}{% endfor %}{{ raise_exception(ns.x) }}",
    "nested list mapped": "{% set ns = namespace(x=[1]) %}{% for i in range(60) %}{% set ns.x = [ns.x, ns.x] %}{% endfor %}{{ [ns.x] | map('string') | list | length }}",
    "nested list counted": "{% set ns = namespace(x=[1], y=[1]) %}{% for i in range(60) %}{% set ns.x = [ns.x, ns.x] %}{% set ns.y = [ns.y, ns.y] %}{% endfor %}{{ [ns.x].count(ns.y) }}",
    "joined": "{{ ('a' * 9999) | list | join('a' * 99999) }}",
    "joined by method": "{{ ('a' * 99999).join('a' * 9999) }}",
    "replaced": "{{ ('a' * 99999) | replace('a', 'a' * 99999) }}",
    "replaced by method": "{{ ('a' * 99999).replace('a', 'a' * 99999) }}",
    "wide filter": "{% set n = 10 ** 9 %}{{ 'a' | indent(n, true) }}",
    "wide json": "{% set n = 10 ** 9 %}{{ [1] | tojson(indent=n) }}",
    "wide percent": "{{ '%1000000000d' % 1 }}",
    "wide star": "{{ '%*d' % (1000000000, 1) }}",
    "wide format": "{{ '%1000000000d' | format(1) }}",
    "wide braces": "{{ '{:>1000000000}'.format(1) }}",
    "wide nested braces": "{{ '{:>{n}}'.format(1, n=1000000000) }}",
    "wide method": "{{ 'a'.ljust(1000000000) }}",
    "wide tabs": "{{ '\t'.expandtabs(1000000000) }}",
    "wide batch": "{% set n = 10 ** 9 %}{{ [1] | batch(n, 0) | list | length }}",
    "wide date": "{{ strftime_now('%1000000000d') }}",
    "endless macro": "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}",
    "macro tree": "{% macro m(n) %}{% if n %}{{ m(n - 1) }}{{ m(n - 1) }}{% endif %}{% endmacro %}{{ m(60) }}",
    "loop tree": "{% for a in [[[]]] recursive %}{{ loop([a, a, a, a, a, a, a]) }}{% endfor %}",
    "class": "{{ ''.__class__.__mro__[1].__subclasses__() }}",
    "namespace class": "{{ namespace.__init__.__globals__ }}",
    "private names": "{{ namespace(__class__=1) }}",
    "private item": "{% set ns = namespace() %}{% set ns._x = 1 %}",
    "change of messages": "{{ messages.append(1) }}",
    "zero": "{{ 1 / 0 }}",
    "encode": "{{ 'a'.encode() }}",
    "format map": "{{ '{a}'.format_map({'a': 1}) }}",
}  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_template_ends_soon_and_small(name: str) -> None:
    began = time.thread_time()
    with pytest.raises(UNEXPECTED):
        rendered(HOSTILE[name])
    assert time.thread_time() - began < 0.5


@pytest.mark.parametrize(
    "source",
    ["{{ ''['__class__'] }}", "{{ raise_exception.__globals__ }}", "{{ '{0.__class__}'.format(1) }}"],
)
def test_what_is_private_reads_as_nothing(source: str) -> None:
    assert rendered(source) == ""


def test_what_a_template_may_do_is_counted_anew_each_time() -> None:
    sandbox = Sandbox(lambda: datetime.now(UTC), 5.0)
    with sandbox.metered():
        template = sandbox.from_string("{{ ('a' * n) | length }}")
    for _ in range(3):
        with sandbox.metered():
            assert template.render(n=5_000_000) == "5000000"
        with pytest.raises(TooMuch, match="too much text"), sandbox.metered():
            template.render(n=20_000_000)


def test_a_format_of_a_date_is_bounded() -> None:
    assert rendered("{{ strftime_now('%d %b %Y') }}") == "04 Jul 2026"
    with pytest.raises(TemplateError):
        rendered("{{ strftime_now('%Y' * 600) }}")
