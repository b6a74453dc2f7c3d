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
    "carriage returns": "{{ 'a\r\nb' }}{% if true %}\r\n  x\r\n{% endif %}\r\ny\rz {{ messages[0].content }}\r\n",
    "loops over texts": "{% for c in 'abä' %}{{ loop.index }}/{{ loop.length }}{{ c }}{{ loop.last }}{{ loop.revindex }};{% endfor %}{% for c in 'xy' ~ 'z' if c != 'y' %}{{ c }}{{ loop.last }}{% endfor %}{% for k, v in {'a': 1, 'b': 2}.items() %}{{ k }}{{ loop.last }}{% endfor %}{% for i in [3, 4] | reverse %}{{ loop.length }}{{ i }}{% endfor %}{%- for a in 1, 2 -%} {{ a }} {%- endfor -%}{% for i in [1, [2]] recursive %}{% if i is iterable %}({{ loop(i) }}){% else %}{{ i }}{% endif %}{% endfor %} {{ messages[0].content }}",
    "split": "{{ '  a b '.rsplit(None, 1) }} {{ ' a  b c '.split(None, 1) }} {{ ' a  b c '.rsplit(None, 0) }} {{ ' a b '.split() }} {{ 'a,b,c'.split(',', maxsplit=1) }} {{ 'a,b,c'.rsplit(sep=',', maxsplit=1) }} {{ ''.split() }} {{ ''.split(',') }} {{ messages[0].content }}",
    "percent conversions": "{{ '%r %r %r' % ('it\\'s', [1, 'a'], none) }} {{ '%*d|%-*d|%.*f' % (5, 42, 5, 42, 2, 3.14159) }} {{ '%5s|%-5s|%.2s' % ('é', 'é', 'äöü') }} {{ '%+d % d %05d %x %#x %o %X' % (3, 4, -5, 255, 255, 8, 255) }} {{ '%e %g %G %.3g %010.3f' % (12345.678, 0.00001, 1e20, 1234.5, -3.14159) }} {{ '%c%c' % ('a', 98) }} {{ '%i %d %d' % (3.9, -3.9, true) }} {{ '%.3d' % 5 }} {{ '%a' % 'é' }} {{ '%(a)5s|%(b)r' % {'a': 'x', 'b': 'y'} }} {{ '%s' % (none,) }} {{ '100%%' % () }} {{ '%s%%' | format(5) }} {{ '%(n)s' | format(n='v') }} {{ messages[0].content }}",
    "method format": "{{ '{:>6}|{:<6}|{:^6}|{:*^7}'.format('é', 'ab', 'abc', 'x') }} {{ '{0}{1}{0} {a[b]} {c.d}'.format(1, 2, a={'b': 3}, c={'d': 4}) }} {{ '{!r:>6} {!s}'.format('a', 1.0) }} {{ '{:{}}|{:>{w}}'.format('a', 3, 'b', w=4) }} {{ '{:05d} {:+} {:,} {:.2f} {:.1%} {:x} {:#b} {:e} {:08.3f} {:012,.1f}'.format(42, 7, 1234567, 3.14159, 0.256, 255, 5, 12345.6789, -3.14159, 1234.5) }} {{ '{:*=+6} {:=6}'.format(42, -1) }} {{ '{:.3}'.format('abcdef') }} {{ '{} {} {} {}'.format(none, true, [1, 'a'], 1e20) }} {{ '{:3}|{:.3}'.format(true, 3.0) }} {{ '{{}} {}'.format('x') }} {{ messages[0].content }}",
    "fillings": "{{ 'ab' | center(7) }}| {{ 'abc' | center(width=6) }}| {{ 3 | center(4) }}| {{ 'ab' | center | length }} {{ 'ab'.center(7, '*') }} {{ 'abc def ghi jkl' | truncate(5) }} {{ 'abc def ghi jkl' | truncate(9, true) }} {{ 'abc def ghi jkl' | truncate(9, false, '!', 0) }} {{ 'abcdefghijklmn' | truncate(5, leeway=0, end='') }} {{ 'a\nb\n\nc' | indent(2) }} {{ 'a\n\nb\n' | indent('> ', true, true) }}| {{ messages[0].content }}",
    "cycler": "{% set c = cycler('a', 'b', 3) %}{{ c.next() }}{{ c.current }}{{ c.next() }}{{ c.next() }}{{ c.next() }}{{ c.reset() }}{{ c.current }}{% for i in range(4) %}{{ loop.cycle('odd', 'even') }}{% endfor %} {{ messages[0].content }}",
    "representations": "{{ ['it\\'s', 'q\"', 'b\\'\"', 'a\\n\\t\\\\', '\\x00\\x7f\\u200b', 'é', 'e\\u0301'] }} {{ [1e20, 1e-7, 1.0, true, none] }} {{ {'a': [1], 2: (1,), none: ()} }} {{ (1, 'x') }} {{ [undefined_name] }} {{ 1e20 | string }} {{ [1e20] | string }} {{ messages[0].content }}",
    "views and generators": "{{ {'a': 1}.items() }} {{ {'a': 1}.keys() }} {{ {'a': 1}.values() }} {{ range(3) }} {{ range(1, 5, 2) }} {{ {'a': 1}.items() | length }} {% if {}.items() %}no{% endif %}{% if messages | selectattr('role', 'equalto', 'system') %}yes{% endif %} {{ messages | map(attribute='role') | first }} {{ [1, 2, 1] | unique | list }} {{ [0] * 2 }} {{ [1] + [2] }} {{ [3, 1] | reverse | list }} {{ 'abc' | reverse }} {{ {'a': 1} | items | list }} {{ messages[0].content }}",
    "numbers and texts": "{{ 'x' | int }} {{ 'x' | int(5) }} {{ '3.7' | int }} {{ '0x1f' | int(0, 16) }} {{ 'x' | float }} {{ 'x' | float(1.5) }} {{ none | int }} {{ [1.0, 1e20, none, 'a'] | join(',') }} {{ messages | join('|', attribute='role') }} {{ 'abc' | join('-') }} {{ \"they're x2y\".title() }} {{ 'a\\r\\nb\\rc\\n\\nd\\n'.splitlines() }} {{ 'a\\nb'.splitlines(true) }} {{ messages[0].content }}",
    "remainders": "{{ 7 % -3 }} {{ -7 % 3 }} {{ 7.5 % 2 }} {{ -7.5 % 2 }} {{ 10 % 4 * 2 }} {{ 1 + 10 % 4 }} {{ messages[0].content }}",
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
