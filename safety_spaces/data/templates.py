"""Prompt templates: how an instruction is put to a model that is to answer it.

One field of the study chooses the template for training, harmfulness and activations, so that a model is asked as it
was taught. GSM8K stays raw, as in lm-eval and the paper.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from safety_spaces.errors import UserError
from safety_spaces.study import CHAT, TemplateName

INSTRUCTION = "{instruction}"
TODAY = datetime(2024, 7, 26)
"""The day that every chat template is told: the one that Llama 3.2 falls back on. The same study is the same texts."""
CLOCK = re.compile(r"""strftime_now\(\s*(["'])(.*?)\1\s*\)""")
"""Where a chat template asks for the day."""
PROBE = " {a}\n\"b\" & <c> \\ 'é' "
"""An instruction that a template which escapes, cuts or repeats its instruction does not leave as it is."""


@dataclass(frozen=True)
class Template:
    """A prompt around an instruction, and what stands between the prompt and its response.

    `strips` says whether spaces around the instruction are taken off, as the chat templates of Llama 3 do.
    """

    prompt: str
    separator: str = ""
    strips: bool = False

    def apply(self, instruction: str) -> str:
        """Return the prompt; it ends where a model goes on, so that the separator is the model's to write."""
        return self.prompt.replace(INSTRUCTION, instruction.strip() if self.strips else instruction)


TEMPLATES: Mapping[str, Template] = {
    "plain": Template("### Instruction:\n{instruction}\n\n### Response:\n"),
    "question": Template("Question: {instruction}\nAnswer:", separator=" "),
    "none": Template("{instruction}", separator=" "),
}
"""Name in a study -> template. `question` is the form of raw GSM8K prompts."""


def find_template(name: TemplateName, tokenizer: Any = None) -> Template:
    """Return a template of the table, or for `chat` that of the tokenizer; raises UserError when it has none."""
    return chat_template(tokenizer) if name == CHAT else TEMPLATES[name]


def chat_template(tokenizer: Any) -> Template:
    """Return the chat template of a tokenizer, with one message of the user, up to where the assistant speaks.

    A beginning-of-text token that the tokenizer adds to every text itself is left out. Raises UserError when the
    tokenizer has no chat template, or one that does not repeat an instruction as it is.
    """
    if not getattr(tokenizer, "chat_template", None):
        raise UserError("template chat: expected a tokenizer with a chat template, got none; use template: plain")
    prompt = _render(tokenizer, INSTRUCTION)
    template = Template(prompt, strips=_render(tokenizer, f" {INSTRUCTION} ") == prompt)
    if INSTRUCTION not in prompt or template.apply(PROBE) != _render(tokenizer, PROBE):
        raise UserError(
            "template chat: expected a chat template that repeats the instruction once and as it is, got one that "
            "changes it; use template: plain"
        )
    # Only what the tokenizer adds: the chat templates of other models begin with a token that they alone write.
    added = tokenizer.bos_token if tokenizer("").input_ids[:1] == [tokenizer.bos_token_id] else None
    return Template(prompt.removeprefix(added or ""), strips=template.strips)


def _render(tokenizer: Any, instruction: str) -> str:
    from jinja2 import TemplateError

    try:
        dated = CLOCK.sub(lambda call: repr(TODAY.strftime(call[2])), tokenizer.get_chat_template())
        options = {"tokenize": False, "add_generation_prompt": True, "chat_template": dated}
        return str(tokenizer.apply_chat_template([{"role": "user", "content": instruction}], **options))
    except (ValueError, TemplateError) as error:
        reason = str(error).partition("\n")[0]
        raise UserError(f"template chat: the chat template cannot be used ({reason}); use template: plain") from error
