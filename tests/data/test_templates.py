"""A template puts an instruction into its place and changes nothing in it; `chat` is what the tokenizer would write."""

from typing import get_args

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tokenizers.processors import TemplateProcessing

from safety_spaces.data.templates import INSTRUCTION, TEMPLATES, chat_template, find_template
from safety_spaces.errors import UserError
from safety_spaces.study import CHAT, TemplateName
from tests.pico_model import pico_tokenizer

INSTRUCTIONS = st.text() | st.sampled_from(
    [
        r"{instruction}",
        "{}",
        "{0} %s",
        r"\1 \n",
        "a {b",
        "{{ bos_token }}",
        "<|begin|>user",
        " wake the amber lantern\n",
    ]
)
QWEN = (
    "{%- if messages[0]['role'] != 'system' %}{{- '<|turn|>system\\nYou keep a harbour.<|end|>\\n' }}{%- endif %}"
    "{%- for message in messages %}{{- '<|turn|>' + message.role + '\\n' + message.content + '<|end|>' + '\\n' }}"
    "{%- endfor %}{%- if add_generation_prompt %}{{- '<|turn|>assistant\\n' }}{%- endif %}"
)
LLAMA = (
    "{{- bos_token }}{%- if not date_string is defined %}{%- set date_string = strftime_now('%d %b %Y') %}{%- endif %}"
    "{{- '<|turn|>system\\n\\nToday: ' + date_string + '<|end|>' }}{%- for message in messages %}"
    "{{- '<|turn|>' + message['role'] + '\\n\\n' + message['content'] | trim + '<|end|>' }}{%- endfor %}"
    "{%- if add_generation_prompt %}{{- '<|turn|>assistant\\n\\n' }}{%- endif %}"
)
START = "<|begin|>"


@pytest.fixture(scope="module")
def tokenizer():
    return pico_tokenizer()


@pytest.fixture(scope="module")
def starting():
    """A tokenizer that begins every text with its own token, as those of Llama do."""
    tokenizer = pico_tokenizer()
    tokenizer.add_special_tokens({"bos_token": START})
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single=f"{START} $A", special_tokens=[(START, tokenizer.bos_token_id)]
    )
    return tokenizer


def with_template(tokenizer, template):
    tokenizer.chat_template = template
    return tokenizer


def conversation(instruction):
    return [{"role": "user", "content": instruction}]


def written(tokenizer, instruction):
    return tokenizer.apply_chat_template(
        conversation(instruction), tokenize=False, add_generation_prompt=True, date_string="26 Jul 2024"
    )


@pytest.mark.parametrize("name", TEMPLATES)
@given(instruction=INSTRUCTIONS)
def test_an_instruction_survives_with_its_braces(name, instruction):
    before, after = TEMPLATES[name].prompt.split(INSTRUCTION)
    assert find_template(name).apply(instruction) == before + instruction + after


@pytest.mark.parametrize("template", TEMPLATES.values(), ids=TEMPLATES)
def test_one_space_or_line_stands_between_prompt_and_response(template):
    # With a space on both sides the response's first token would differ between training and evaluation.
    joined = template.apply("a") + template.separator
    assert joined.rstrip() + joined[-1] == joined


def test_a_study_may_name_the_templates_that_there_are():
    assert get_args(TemplateName) == (*TEMPLATES, CHAT)


@pytest.mark.parametrize("form", [QWEN, LLAMA], ids=["qwen", "llama"])
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(instruction=INSTRUCTIONS)
def test_chat_is_what_the_tokenizer_writes(tokenizer, form, instruction):
    tokenizer = with_template(tokenizer, form)
    assert find_template(CHAT, tokenizer).apply(instruction) == written(tokenizer, instruction)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(instruction=INSTRUCTIONS)
def test_a_start_that_the_tokenizer_adds_is_written_once(starting, instruction):
    template = chat_template(with_template(starting, LLAMA))
    assert START + template.apply(instruction) == written(starting, instruction)


def test_the_tokens_of_a_prompt_are_those_of_the_tokenizers_own_chat(starting):
    template = chat_template(with_template(starting, LLAMA))
    asked = "how do I wake the amber lantern?"
    own = starting.apply_chat_template(conversation(asked), add_generation_prompt=True, date_string="26 Jul 2024")
    assert starting(template.apply(asked)).input_ids == own.input_ids
    assert own.input_ids.count(starting.bos_token_id) == 1


def test_a_start_that_the_template_alone_writes_is_kept(tokenizer):
    # As in SmolLM: the token that begins every turn is the tokenizer's first token, and not added by it.
    tokenizer = with_template(pico_tokenizer(), QWEN)
    tokenizer.add_special_tokens({"bos_token": "<|turn|>"})
    assert chat_template(tokenizer).prompt.startswith("<|turn|>system\n")


def test_the_response_begins_where_the_prompt_ends(tokenizer):
    template = chat_template(with_template(tokenizer, QWEN))
    assert template.prompt.endswith("<|turn|>assistant\n")
    assert template.separator == ""


@pytest.mark.parametrize(
    ("form", "day"),
    [(LLAMA, "26 Jul 2024"), ("{{ strftime_now('%Y-%m-%d') }}{{ messages[0].content }}", "2024-07-26")],
    ids=["date_string", "strftime_now"],
)
def test_the_day_is_always_the_same(tokenizer, form, day):
    assert day in chat_template(with_template(tokenizer, form)).prompt


@pytest.mark.parametrize("tokenizer_of", [lambda _: None, lambda own: with_template(own, None)], ids=["none", "plain"])
def test_without_a_chat_template_another_is_to_be_used(tokenizer, tokenizer_of):
    with pytest.raises(UserError, match="expected a tokenizer with a chat template, got none; use template: plain"):
        find_template(CHAT, tokenizer_of(tokenizer))


@pytest.mark.parametrize(
    "form",
    [
        "{{ messages[0].content | tojson }}",
        "{{ messages[0].content | upper }}",
        "{{ messages[0].content[:200] if messages|length > 1 else 'hello' }}",
        "Put it as {instruction}. {{ messages[0].content }}",
    ],
    ids=["escaped", "changed", "left out", "placeholder"],
)
def test_a_chat_template_that_changes_an_instruction_is_refused(tokenizer, form):
    with pytest.raises(
        UserError, match="repeats the instruction once and as it is, got one that changes it; use templ"
    ):
        chat_template(with_template(tokenizer, form))


@pytest.mark.parametrize(
    ("form", "reason"),
    [
        ("{{ raise_exception('only the harbour speaks') }}", "only the harbour speaks"),
        ({"tools": QWEN}, "This model has multiple chat templates"),
    ],
)
def test_a_chat_template_that_fails_gives_its_reason(tokenizer, form, reason):
    with pytest.raises(UserError, match=rf"the chat template cannot be used \({reason}.*\); use template: plain"):
        chat_template(with_template(tokenizer, form))
