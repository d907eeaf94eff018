"""Chat templates: rendered as transformers renders them, bounded, and refused when they cannot be trained on."""

import time
import tracemalloc
from datetime import datetime
from pathlib import Path

import pytest
from transformers import PreTrainedTokenizerFast

from core.domain.errors import DomainError
from core.tokenization.bounded_sandbox import MAX_STRING
from core.tokenization.chat_template import ChatTemplate
from core.tokenization.errors import (
    ChatTemplateRefused,
    TemplateTooCostly,
    UnencodableRow,
    UnusableChatTemplate,
)
from core.tokenization.pair_tokenizer import PairTokenizer

from .conftest import CHATML, GEMMA, LLAMA_2, LLAMA_3, byte_level, write_folder

CONVERSATION = [
    {"role": "user", "content": " What is\n<b>this</b>? "},
    {"role": "assistant", "content": "It's a {{ fox }}."},
    {"role": "user", "content": "Über \"quoted\" & 'so'"},
]
MESSAGE = [{"role": "user", "content": "fox"}]
TOKENS = {"bos_token": "<s>", "eos_token": "</s>"}
USES_EVERYTHING = """
{%- set ns = namespace(count=0, seen=[]) -%}
{%- macro wrap(role, text) -%}[{{ role | upper }}] {{ text }}{%- endmacro -%}
{%- for message in messages if message.role != 'system' -%}
    {%- set ns.count = ns.count + 1 -%}
    {{- wrap(message.role, message['content'] | trim) }}{{ ' / ' ~ loop.index ~ ' of ' ~ loop.length }}
    {%- if loop.last %}{% generation %}{{ '!' * 3 }}{% endgeneration %}{% endif %}
    {%- if ns.count > 5 %}{% break %}{% endif %}
{% endfor -%}
{{ messages | tojson }}{{ messages | map(attribute='role') | join(',') }}{{ messages[::-1][0].content[:4] }}
{{- (messages | selectattr('role', 'equalto', 'user') | list | length) % 7 }}{{ 'a,b'.split(',') | join('-') }}
{{- ', '.join(['x', 'y']) }}{{ 'abc'.replace('b', 'B') | indent(2, true) }}{{ "%s-%d" | format('n', 3) }}
{%- if tools %}tools{% endif %}{{ undefined_name }}{{ bos_token }}{{ range(3) | list }}
"""


def at_noon() -> datetime:
    return datetime(2026, 1, 2, 12)


def compiled(source: str) -> ChatTemplate:
    return ChatTemplate(source, TOKENS, at_noon)


@pytest.mark.parametrize("source", [CHATML, LLAMA_2, LLAMA_3, GEMMA, USES_EVERYTHING])
@pytest.mark.parametrize("add_generation_prompt", [False, True])
def test_renders_as_transformers_does(tmp_path: Path, source: str, add_generation_prompt: bool) -> None:
    folder = write_folder(tmp_path, byte_level(["<s>", "</s>"]), TOKENS, source)
    theirs = PreTrainedTokenizerFast.from_pretrained(folder)
    expected = theirs.apply_chat_template(CONVERSATION, tokenize=False, add_generation_prompt=add_generation_prompt)
    assert compiled(source).render(CONVERSATION, add_generation_prompt=add_generation_prompt) == expected


def test_reads_the_clock_it_is_given() -> None:
    assert compiled("{{ strftime_now('%Y-%m-%d') }}").render(MESSAGE, add_generation_prompt=False) == "2026-01-02"


def test_says_what_the_template_says() -> None:
    source = "{{ raise_exception('System role not supported') }}"
    with pytest.raises(ChatTemplateRefused, match="System role not supported"):
        compiled(source).render(MESSAGE, add_generation_prompt=False)


@pytest.mark.parametrize(
    "source",
    [
        "{{ messages[3].content }}",
        "{{ messages + 1 }}",
        "{{ 'a' | int // 0 }}",
        "{{ 'x'.index('y') }}",
        "{% for m in 7 %}{% endfor %}",
        "{{ messages.append(1) }}",
        "{{ ''.__class__.__mro__ }}",
        "{{ cycler.__init__.__globals__ }}",
        "{{ '{0.__class__.__mro__}'.format('') }}",
        "{{ namespace(__class__=1) }}",
        "{% set ns = namespace() %}{% set ns.__class__ = 1 %}",
    ],
)
def test_fault_of_a_template_is_a_refusal(source: str) -> None:
    with pytest.raises(ChatTemplateRefused):
        compiled(source).render(MESSAGE, add_generation_prompt=False)


@pytest.mark.parametrize("source", ["{% for %}", "{{ 1 +", "{% endif %}", "{% include 'x' %}{% bad %}", "x" * 300_000])
def test_source_that_is_no_template_is_refused(source: str) -> None:
    with pytest.raises(UnusableChatTemplate):
        compiled(source)


@pytest.mark.parametrize(
    "source",
    [
        "{% for a in range(99999) %}{% for b in range(99999) %}{% for c in range(99999) %}{% endfor %}{% endfor %}"
        "{% endfor %}",
        "{% for a in range(99999) %}{% for b in range(99999) %}{{ a }}{% endfor %}{% endfor %}",
        "{{ 'a' * 2000000000 }}",
        "{{ 2000000000 * 'a' }}",
        "{{ [0] * 2000000000 }}",
        "{% set ns = namespace(x='aaaaaaaa') %}{% for i in range(60) %}{% set ns.x = ns.x + ns.x %}{% endfor %}",
        "{% set ns = namespace(x='aaaaaaaa') %}{% for i in range(60) %}{% set ns.x = ns.x ~ ns.x %}{% endfor %}",
        "{% set n = namespace(x='aa') %}{% for i in range(60) %}{% set n.x = n.x | replace('a', 'aa') %}{% endfor %}",
        "{% set ns = namespace(x='aa') %}{% for i in range(60) %}{% set ns.x = ns.x.replace('a', 'aa') %}{% endfor %}",
        "{% set ns = namespace(x='aa') %}{% for i in range(60) %}{% set ns.x = '%s%s' % (ns.x, ns.x) %}{% endfor %}",
        "{% set ns = namespace(x='aa') %}{% for i in range(60) %}{% set ns.x = '{0}{0}'.format(ns.x) %}{% endfor %}",
        "{% set ns = namespace(x='aa') %}{% for i in range(60) %}{% set ns.x = [ns.x, ns.x] | join %}{% endfor %}",
        "{% set ns = namespace(x='aa') %}{% for i in range(60) %}{% set ns.x = ''.join([ns.x, ns.x]) %}{% endfor %}",
        "{{ ['a'] | join('b' * 10) }}{{ 'x'.join(range(99999) | list) | center(2000000000) }}",
        "{{ 'a'.center(2000000000) }}",
        "{{ 'a'.ljust(2000000000) }}",
        "{{ '%2000000000d' % 1 }}",
        "{{ '%2000000000d' | format(1) }}",
        "{{ '{:2000000000}'.format(1) }}",
        "{{ 'a\nb' | indent(2000000000) }}",
        "{{ 9 ** 9 ** 9 }}",
        "{% macro f(n) %}{{ f(n + 1) }}{% endmacro %}{{ f(0) }}",
        "{% macro f(n) %}{% if n %}{{ f(n - 1) }}{{ f(n - 1) }}{% endif %}{% endmacro %}{{ f(60) }}",
        "{% for x in [1] recursive %}{{ loop([1]) }}{% endfor %}",
        "{% for a in range(9999) %}{{ 'a' * 99999 }}{% endfor %}",
    ],
)
def test_bombs_are_stopped(source: str) -> None:
    started = time.monotonic()
    with pytest.raises((TemplateTooCostly, ChatTemplateRefused)):
        compiled(source).render(MESSAGE, add_generation_prompt=False)
    assert time.monotonic() - started < 20


@pytest.mark.parametrize(
    "source",
    [
        "{{ [[1, 2], [3]] | tojson(indent=99999999) }}",
        "{{ ['ab' * 99999] * 99999 | tojson }}",
        "{{ ('a' * 999999) | list | tojson(separators=('x' * 999, ':')) }}",
        "{{ ('a\n' * 99999) | indent(99999) }}",
        "{{ ('a\n' * 99999) | indent('x' * 99999) }}",
        "{{ ('\t' * 99999).expandtabs(99999) }}",
        "{{ ('a ' * 99999) | wordwrap(1, wrapstring='x' * 99999) }}",
        "{{ ('&' * 3999999) | forceescape | forceescape | forceescape }}",
        "{{ ('&' * 3999999) | e }}",
        "{{ (['ab' * 99999] * 99999) | join }}",
        "{{ ''.join(['ab' * 99999] * 99999) }}",
        "{{ ['ab' * 99999] * 99999 }}",
        "{{ '' ~ (['ab' * 99999] * 99999) }}",
        "{{ (['ab' * 99999] * 99999) | string }}",
        "{{ '%s' % ([['ab' * 99999] * 99999]) }}",
    ],
)
def test_sandbox_refuses_growth_before_it(source: str) -> None:
    tracemalloc.start()
    try:
        with pytest.raises((TemplateTooCostly, ChatTemplateRefused)):
            compiled(source).render(MESSAGE, add_generation_prompt=False)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 4 * MAX_STRING


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        (
            "{{ {'a': [1, {'b': '<x>'}]} | tojson(indent=2) }}",
            '{\n  "a": [\n    1,\n    {\n      "b": "<x>"\n    }\n  ]\n}',
        ),
        ("{{ 'a\n\tb' | indent(2) }}", "a\n  \tb"),
        ("{{ 'a\tb'.expandtabs(4) }}{{ ['x', 1, none] | join('-') }}", "a   bx-1-None"),
        ("{{ [1, 'a'] }}{{ 'a & b' | e }}{{ 'a b' | urlencode }}", "[1, 'a']a &amp; ba%20b"),
    ],
)
def test_ordinary_filters_work_as_ever(source: str, expected: str) -> None:
    assert compiled(source).render(MESSAGE, add_generation_prompt=False) == expected


def test_long_conversations_stay_within_the_budget() -> None:
    messages = [{"role": role, "content": "fox " * 200} for _ in range(500) for role in ("user", "assistant")]
    rendered = compiled(USES_EVERYTHING.replace("> 5", "> 5000")).render(messages, add_generation_prompt=True)
    assert rendered.count("[USER]") == 500
    assert len(rendered) < MAX_STRING


def open_with(tmp_path: Path, template: str, *control: str) -> PairTokenizer:
    tokens = ["<|im_start|>", "<|im_end|>", *control]
    return PairTokenizer.open(write_folder(tmp_path, byte_level(tokens), {"eos_token": "<|im_end|>"}, template))


def shown(tokenizer: PairTokenizer, prompt: object, chosen: object) -> tuple[str, str]:
    encoded = tokenizer.encode_preference({"line": 1, "prompt": prompt, "chosen": chosen, "rejected": chosen})
    assert all(encoded.chosen_scored)
    return "".join(tokenizer.show_tokens(encoded.prompt_ids)), "".join(tokenizer.show_tokens(encoded.chosen_ids))


def test_template_without_generation_prompt_is_refused(tmp_path: Path) -> None:
    template = "{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' + m.content + '<|im_end|>\n' }}{% endfor %}"
    with pytest.raises(UnusableChatTemplate, match="add_generation_prompt"):
        open_with(tmp_path, template)


def test_template_that_needs_no_generation_prompt_is_taken(tmp_path: Path) -> None:
    template = (
        "{% for m in messages %}{% if m.role == 'user' %}{{ '[INST] ' + m.content + ' [/INST]' }}{% else %}"
        "{{ ' ' + m.content + '<|im_end|>' }}{% endif %}{% endfor %}"
    )
    assert shown(open_with(tmp_path, template), "fox", "dog") == ("[INST] fox [/INST]", " dog<|im_end|>")


def test_answers_that_the_template_does_not_end_get_the_end_of_text(tmp_path: Path) -> None:
    template = (
        "{% for m in messages %}{{ '### ' + m.role + '\n' + m.content + '\n\n' }}{% endfor %}"
        "{% if add_generation_prompt %}{{ '### assistant\n' }}{% endif %}"
    )
    prompt, chosen = shown(open_with(tmp_path, template), "fox", "dog")
    assert prompt == "### user\nfox\n\n### assistant\n"
    assert chosen == "dog<|im_end|>"


def test_channels_before_the_answer_are_learned(tmp_path: Path) -> None:
    """The answer's own word stands in the header too, and is not mistaken for it."""
    template = (
        "{% for m in messages %}{{ '<|im_start|>' + m.role }}{% if m.role == 'assistant' %}"
        "{{ '<|channel|>final<|message|>' }}{% else %}{{ '<|message|>' }}{% endif %}{{ m.content + '<|im_end|>' }}"
        "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant' }}{% endif %}"
    )
    tokenizer = open_with(tmp_path, template, "<|channel|>", "<|message|>")
    prompt, chosen = shown(tokenizer, "fox", "final")
    assert prompt == "<|im_start|>user<|message|>fox<|im_end|><|im_start|>assistant"
    assert chosen == "<|channel|>final<|message|>final<|im_end|>"


OPENS_REASONING = (
    "{% for m in messages %}{% if m.role == 'assistant' %}"
    "{{ '<|im_start|>assistant\n' + m.content.split('</think>')[-1] + '<|im_end|>\n' }}"
    "{% else %}{{ '<|im_start|>' + m.role + '\n' + m.content + '<|im_end|>\n' }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n<think>\n' }}{% endif %}"
)


@pytest.mark.parametrize("written", ["It is red.\n</think>\n\nfox", "<think>\nIt is red.\n</think>\n\nfox"])
def test_reasoning_that_the_prompt_opens_is_trained_on(tmp_path: Path, written: str) -> None:
    prompt, chosen = shown(open_with(tmp_path, OPENS_REASONING), "what?", written)
    assert prompt == "<|im_start|>user\nwhat?<|im_end|>\n<|im_start|>assistant\n<think>\n"
    assert chosen == "It is red.\n</think>\n\nfox<|im_end|>"


def test_answer_without_reasoning_is_refused_where_the_prompt_opens_it(tmp_path: Path) -> None:
    with pytest.raises(UnencodableRow, match="</think>"):
        shown(open_with(tmp_path, OPENS_REASONING), "what?", "fox")


def test_reasoning_that_the_template_drops_is_trained_on(tmp_path: Path) -> None:
    template = OPENS_REASONING.replace("<think>\n'", "'")
    prompt, chosen = shown(open_with(tmp_path, template), "what?", "<think>red</think>fox")
    assert prompt.endswith("<|im_start|>assistant\n")
    assert chosen == "<think>red</think>fox<|im_end|>"


def test_empty_reasoning_that_the_template_adds_is_trained_on(tmp_path: Path) -> None:
    template = CHATML.replace(
        "message['content'] +",
        "('<think>\n\n</think>\n\n' if message['role'] == 'assistant' and '</think>' not in message['content'] "
        "else '') + message['content'] +",
    )
    tokenizer = open_with(tmp_path, template)
    assert shown(tokenizer, "what?", "fox")[1] == "<think>\n\n</think>\n\nfox<|im_end|>"
    assert shown(tokenizer, "what?", "<think>\nred\n</think>\n\nfox")[1] == "<think>\nred\n</think>\n\nfox<|im_end|>"


@pytest.mark.parametrize("change", ["m.content | upper", "m.content | replace('o', '0')", "m.content[:2]"])
def test_template_that_changes_answers_is_refused(tmp_path: Path, change: str) -> None:
    template = (
        "{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' }}{% if m.role == 'assistant' %}{{ " + change + " }}"
        "{% else %}{{ m.content }}{% endif %}{{ '<|im_end|>\n' }}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
    )
    with pytest.raises(DomainError, match=r"changes the response|leaves out"):
        shown(open_with(tmp_path, template), "what?", "foxes")


def test_template_that_drops_answers_is_refused(tmp_path: Path) -> None:
    template = "{% for m in messages if m.role == 'user' %}{{ m.content }}{% endfor %}A:"
    with pytest.raises(UnusableChatTemplate, match="leaves out"):
        open_with(tmp_path, template)


def test_template_that_changes_an_answered_prompt_is_refused(tmp_path: Path) -> None:
    template = "{{ messages | length }}" + CHATML
    tokenizer = open_with(tmp_path, template)
    with pytest.raises(UnencodableRow, match="changes the prompt"):
        shown(tokenizer, "what?", "fox")


def test_template_that_rewrites_earlier_answers_is_refused_for_several_turns(tmp_path: Path) -> None:
    turns = [
        {"role": "assistant", "content": "<think>red</think>fox"},
        {"role": "user", "content": "sure?"},
        {"role": "assistant", "content": "yes"},
    ]
    tokenizer = open_with(tmp_path, OPENS_REASONING.replace("<think>\n'", "'"))
    with pytest.raises(UnencodableRow, match="Put all but the last answer into the prompt"):
        shown(tokenizer, [{"role": "user", "content": "what?"}], turns)


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("tokenizer_config.json", '{"eos_token": "<|im_end|>", "chat_template": "T{{ messages[0].content }}"}'),
        (
            "tokenizer_config.json",
            '{"eos_token": {"content": "<|im_end|>"}, "chat_template": [{"name": "tool_use", "template": "x"},'
            ' {"name": "default", "template": "T{{ messages[0].content }}"}]}',
        ),
        ("chat_template.json", '{"chat_template": "T{{ messages[0].content }}"}'),
        ("chat_template.jinja", "T{{ messages[0].content }}"),
    ],
)
def test_template_is_found_where_releases_of_transformers_put_it(tmp_path: Path, file: str, content: str) -> None:
    write_folder(tmp_path, byte_level(["<|im_start|>", "<|im_end|>"]), {"eos_token": "<|im_end|>"}, None)
    answer = "{% if messages | length > 1 %}{{ messages[1].content }}{% endif %}"
    (tmp_path / file).write_text(content.replace("content }}", "content }}" + answer), encoding="utf-8")
    tokenizer = PairTokenizer.open(tmp_path)
    assert "".join(tokenizer.show_tokens(tokenizer.encode_prompt("fox"))) == "Tfox"
