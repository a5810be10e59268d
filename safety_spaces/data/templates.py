"""Prompt templates: how an instruction is put to a model that is to answer it.

One field of the study chooses the template for training, harmfulness and activations, so that a model is asked as it
was taught. GSM8K stays raw, as in lm-eval and the paper.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from safety_spaces.errors import UserError

INSTRUCTION = "{instruction}"


@dataclass(frozen=True)
class Template:
    """A prompt around an instruction, and what stands between the prompt and its response."""

    prompt: str
    separator: str = ""

    def apply(self, instruction: str) -> str:
        """Return the prompt; it ends where a model goes on, so that the separator is the model's to write."""
        return self.prompt.replace(INSTRUCTION, instruction)


TEMPLATES: Mapping[str, Template] = {
    "plain": Template("### Instruction:\n{instruction}\n\n### Response:\n"),
    "question": Template("Question: {instruction}\nAnswer:", separator=" "),
    "none": Template("{instruction}", separator=" "),
}
"""Name in a study -> template. `question` is the form of raw GSM8K prompts."""


def find_template(name: str) -> Template:
    """Return a template of the table.

    Raises:
        UserError: no template has this name.
    """
    if name not in TEMPLATES:
        raise UserError(f"template {name}: expected one of {', '.join(TEMPLATES)}; correct the name in the study")
    return TEMPLATES[name]
