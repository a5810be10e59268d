"""Prompt templates: how an instruction is put to a model that is to answer it.

One field of the study chooses the template for training, harmfulness and activations, so that a model is asked as it
was taught. GSM8K stays raw, as in lm-eval and the paper.
"""

TEMPLATES = {
    "plain": "### Instruction:\n{instruction}\n\n### Response:\n",
    "none": "{instruction}",
}
"""Name -> template with the place of the instruction."""


def apply_template(name: str, instruction: str) -> str:
    """Return the prompt that ends where the answer begins."""
    return TEMPLATES[name].replace("{instruction}", instruction)
