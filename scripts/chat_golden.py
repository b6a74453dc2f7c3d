"""Renders chat templates with jinja2 as transformers 5.24 does, and writes what comes out.

    python3 scripts/chat_golden.py > testdata/golden/chat-templates.json

It needs jinja2 3.1.6. A template gets the words of the placeholder as its user's, and no tools.
"""

import json
from datetime import datetime

import jinja2
import jinja2.ext
import jinja2.sandbox

USER = "hyperrag0user0words"
MODEL = "hyperrag0model0words"
NOW = datetime(2024, 3, 7, 5, 9, 3)

# Whole templates in the manner of those that models have, and single features of the language.
TEMPLATES = {
    "generation": "{% for m in messages %}<{{ m.role }}>{% generation %}{{ m.content }}{{ eos_token }}{% endgeneration %}\n{% endfor %}",
    "generation trims": "{%- for m in messages -%}\n  {%- generation -%}\n {{ m.content }} \n {%- endgeneration -%}\n{%- endfor -%} end",
    "generation scope": "{% set x = 1 %}{% generation %}{% set x = 2 %}{{ x }}{% endgeneration %}{{ x }}{{ messages[0].content }}",
    "generation in text": "{{ '{% generation %}' }}{% raw %}{% generation %}{% endraw %}{# {% generation %} #}{{ messages[0].content }}",
    "date": "Today is {{ strftime_now('%d %b %Y') }}, {{ strftime_now(\"%A %B %-d, %H:%M\") }}.{{ messages[0].content }}",
    "date if defined": "{% if strftime_now is defined %}{% set d = strftime_now('%Y-%m-%d') %}{% else %}{% set d = '26 Jul' %}{% endif %}{{ d }} {{ messages[0].content }}",
    "rsplit": "{{ 'a.b.c'.rsplit('.', 1)[0] }} {{ 'a b  c'.rsplit() | join('|') }} {{ 'a b  c d'.rsplit(None, 1) | join('|') }} {{ 'a--b'.rsplit('-') | length }} {{ '</think>x</think>y'.rsplit('</think>', 1)[-1] }} {{ messages[0].content }}",
    "percent": "{{ '%s has %d of %.2f%%' % ('hive', 3, 4.5) }} {{ 'one %s' % messages[0].role }} {{ messages[0].content }}",
    "percent numbers": "{{ 7 % 3 }} {{ -7 % 3 }} {% for m in messages %}{{ loop.index0 % 2 == 0 }}{{ '%02d' % loop.index }}{% endfor %} {{ 2 * 7 % 4 }} {{ messages[0].content }}",
    "percent variables": "{% set f = '<|%s|>' %}{% set name = 'user' %}{{ f % name }}{{ f % name | upper }}{{ 'a' ~ f % (name) ~ 'b' }}{{ 'x' + f % name + 'y' }}{{ '%(a)s' % {'a': 1} }} {{ messages[0].content }}",
    "percent in a block": "{% if '%s' % 1 == '1' %}yes{% endif %}{% set a = ['%s-%s' % ('b', 'c'), '%x' % 255] %}{{ a | join(' ') }} {{ messages[0].content }}",
    "methods": "{{ '  a '.strip() }}|{{ 'xxaxx'.strip('x') }}|{{ 'xxa'.lstrip('x') }}|{{ 'axx'.rstrip('x') }}|{{ 'a,b'.split(',')[1] }}|{{ 'abc'.startswith('a') }}|{{ 'abc'.startswith(('x', 'ab')) }}|{{ 'abc'.endswith('c') }}|{{ 'aXb'.lower() }}|{{ 'a b'.title() }}|{{ 'a'.upper() }}|{{ 'abc'.find('c') }}|{{ 'abca'.replace('a', 'x', 1) }}|{{ 'abc'.capitalize() }} {{ messages[0].content }}",
    "more methods": "{{ 'a=b=c'.partition('=') | join('|') }} {{ 'a=b=c'.rpartition('=') | join('|') }} {{ 'prefix-a'.removeprefix('prefix-') }} {{ 'a.gguf'.removesuffix('.gguf') }} {{ '7'.zfill(3) }} {{ '-7'.zfill(4) }} {{ 'a'.ljust(3, '.') }} {{ 'a'.rjust(3) }} {{ 'ab'.center(5, '*') }} {{ 'abc'.index('b') }} {{ 'aBc'.swapcase() }} {{ 'ABC'.casefold() }} {{ [1, 2, 2].index(2) }} {{ 'a\\nb'.splitlines() | join('|') }} {{ 'aXbX'.count('X') }} {{ 'ab'.isalpha() }} {{ '{} and {x}'.format(1, x=2) }} {{ messages[0].content }}",
    "mappings": "{% set d = {'b': 1, 'a': 2} %}{% for k, v in d.items() %}{{ k }}={{ v }};{% endfor %}{{ d.get('c', 'none') }}{{ d.get('c') is none }}{{ d.keys() | list | length }}{{ d | length }}{% for k, v in d | dictsort %}{{ k }}{% endfor %}{% for k, v in d | items %}{{ k }}{% endfor %} {{ messages[0].content }}",
    "order of fields": "{% for k, v in messages[0].items() %}{{ k }}:{{ v }};{% endfor %}",
    "json": "{{ {'b': [1, 2.5, true, none], 'a': 'é<&>\\'\"/\\n'} | tojson }} {{ 'é' | tojson(ensure_ascii=true) }} {{ {'a': [1, {'b': []}], 'c': {}} | tojson(indent=2) }} {{ {'b': 1, 'a': 2} | tojson(sort_keys=true, separators=(',', ':')) }} {{ [] | tojson(indent=4) }} {{ 1e20 | tojson }} {{ messages[0].content }}",
    "json of a message": "{{ messages[0] | tojson }}",
    "python values": "{{ true }} {{ false }} {{ none }} {{ 1.0 }} {{ 1e20 }} {{ 1.5e-7 }} {{ 0.1 }} {{ -2.5 }} {{ [1, 'a', none, true] }} {{ {'a': 'b', 'c': 1.5} }} {{ (1, 'x') }} {{ 'a' ~ true ~ none ~ 1.0 }} {{ [true] | join }} {{ true | string }} {{ undefined_name }} {{ messages[0].content }}",
    "namespace": "{% set ns = namespace(a=1, found=false) %}{% for i in range(4) %}{% if i == 2 %}{% set ns.found = true %}{% set ns.a = ns.a + i %}{% endif %}{% endfor %}{{ ns.a }}{{ ns.found }} {{ messages[0].content }}",
    "loop controls": "{% for i in range(9) %}{% if i == 1 %}{% continue %}{% endif %}{% if i == 4 %}{% break %}{% endif %}{{ i }}{% endfor %} {{ messages[0].content }}",
    "slices": "{{ 'abcdef'[1:3] }} {{ 'abcdef'[-2:] }} {{ [1, 2, 3, 4][::-1] | join }} {{ messages[-1].role }} {{ messages[1:] | length }} {{ 'abc'[::-1] }} {{ [1, 2, 3][:-1] | join }} {{ messages[0]['content'] }}",
    "macros": "{% macro turn(role, text='') %}<{{ role }}>{{ text }}{% endmacro %}{{ turn('user', messages[0].content) }}{{ turn(role='model') }}",
    "filters": "{{ [3, 1, 2] | sort | join(',') }} {{ messages | selectattr('role', 'equalto', 'user') | list | length }} {{ messages | map(attribute='role') | join }} {{ ['a', none] | reject('none') | list | length }} {{ '  x ' | trim }} {{ x | default('y') }} {{ '' | default('z', true) }} {{ [1, 2, 3] | first }}{{ [1, 2, 3] | last }} {{ 'a\\nb' | indent(2) }} {{ '3' | int + 1 }} {{ 3 | float }} {{ -3 | abs }} {{ ['b', 'a', 'b'] | unique | join }} {{ 'a b' | capitalize }} {{ [1, 2, 3] | sum }} {{ 'a b c' | wordcount }} {{ 2.567 | round(1) }} {{ '%s!' | format('x') }} {{ [[1, 2], [3]] | sum(start=[]) | length }} {{ 'one two three' | truncate(length=9) }} {{ ['x'] | list }} {{ messages[0].content }}",
    "tests": "{{ 'a' is string }} {{ 1 is number }} {{ {} is mapping }} {{ [] is iterable }} {{ [] is sequence }} {{ none is none }} {{ x is defined }} {{ x is undefined }} {{ true is boolean }} {{ true is true }} {{ 4 is divisibleby(2) }} {{ 3 is odd }} {{ 'a' in 'abc' }} {{ 'role' in messages[0] }} {{ 1 not in [2] }} {{ 2 is in [2] }} {{ 'a' is eq('a') }} {{ tools is none }} {{ documents is none }} {{ messages[0].content }}",
    "arithmetic": "{{ 7 // 2 }} {{ -7 // 2 }} {{ 7 / 2 }} {{ 2 ** 3 }} {{ 1 + 2 * 3 }} {{ 'a' * 3 }} {{ [1] + [2] }} {{ 3 > 2 > 1 }} {{ not true }} {{ 'a' if false else 'b' }} {{ ('a' if false) }} {{ messages[0].content }}",
    "adjacent texts": "{{ 'a' 'b' }} {{ messages[0].content }}",
    "escapes": "{{ 'tab\\there \\\\ \\'q\\' \\u00e9 \\x41' }} {{ messages[0].content }}",
    "whitespace": "  {% if true %}\n    x\n  {% endif %}\n  {%+ if true %} y{% endif +%}\nz\n{{ messages[0].content }}\n\n",
    "loop variables": "{% for i in ['a', 'b', 'c'] %}{{ loop.index }}{{ loop.revindex }}{{ loop.first }}{{ loop.last }}{{ loop.length }}{{ loop.previtem }}{{ loop.nextitem }}{{ loop.cycle('x', 'y') }};{% else %}none{% endfor %}{% for i in [] %}{% else %}none{% endfor %}{% for i in [1, 2, 3] if i != 2 %}{{ loop.index }}{% endfor %}{% for i in [[1, [2]], [3]] recursive %}{% if i is iterable %}({{ loop(i) }}){% else %}{{ i }}{% endif %}{% endfor %} {{ messages[0].content }}",
    "call and filter blocks": "{% macro m() %}[{{ caller() }}]{% endmacro %}{% call m() %}x{% endcall %}{% filter upper %}abc{% endfilter %}{% set y %}block{% endset %}{{ y }}{% with a = 1 %}{{ a }}{% endwith %} {{ messages[0].content }}",
    "tools": "{%- if tools is not none %}tools{% elif not tools %}no tools{% endif %}{% if documents %}docs{% endif %}{% if enable_thinking is defined and enable_thinking is false %}no{% endif %} {{ messages[0].content }}",
    "dict": "{% set d = dict(a=1, b='x') %}{{ d.a }}{{ d['b'] }}{{ dict(d, c=2) | length }} {{ messages[0].content }}",
    "thinking": "{%- for m in messages %}{%- set content = m.content %}{%- if m.role == 'assistant' %}{%- if '</think>' in content %}{%- set content = content.split('</think>')[-1].lstrip('\\n') %}{%- endif %}{%- endif %}<|{{ m.role }}|>{{ content }}<|end|>\n{%- endfor %}{%- if add_generation_prompt %}<|assistant|>{% endif %}",
    "content parts": "{% for m in messages %}{% if m['content'] is string %}{{ m['content'] }}{% else %}{% for c in m['content'] %}{{ c['text'] }}{% endfor %}{% endif %}{% endfor %}",
}


def strftime_now(format):
    return NOW.strftime(format)


def raise_exception(message):
    raise jinja2.exceptions.TemplateError(message)


def tojson(x, ensure_ascii=False, indent=None, separators=None, sort_keys=False):
    return json.dumps(x, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


class Generation(jinja2.ext.Extension):
    """The block whose text a trainer learns; it prints what is in it."""

    tags = {"generation"}

    def parse(self, parser):
        line = next(parser.stream).lineno
        body = parser.parse_statements(["name:endgeneration"], drop_needle=True)
        return jinja2.nodes.CallBlock(self.call_method("printed"), [], [], body).set_lineno(line)

    def printed(self, caller):
        return caller()


def environment():
    environment = jinja2.sandbox.ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[Generation, jinja2.ext.loopcontrols]
    )
    environment.filters["tojson"] = tojson
    environment.globals["raise_exception"] = raise_exception
    environment.globals["strftime_now"] = strftime_now
    return environment


def main():
    messages = [{"role": "user", "content": USER}]
    rendered = []
    for name, template in TEMPLATES.items():
        values = {
            "messages": messages, "tools": None, "documents": None, "add_generation_prompt": True,
            "bos_token": "<s>", "eos_token": "</s>",
        }
        try:
            text = environment().from_string(template).render(**values)
        except Exception as error:
            raise SystemExit(f"{name}: {error!r}")
        rendered.append({"name": name, "template": template, "text": text})
    print(json.dumps(rendered, indent=1, ensure_ascii=False))


main()
