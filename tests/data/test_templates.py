"""A template puts an instruction into its place and changes nothing in it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from safety_spaces.data.templates import INSTRUCTION, TEMPLATES, find_template
from safety_spaces.errors import UserError


@pytest.mark.parametrize("name", TEMPLATES)
@given(instruction=st.text() | st.sampled_from([r"{instruction}", "{}", "{0} %s", r"\1 \n", "a {b"]))
def test_an_instruction_survives_with_its_braces(name, instruction):
    before, after = TEMPLATES[name].prompt.split(INSTRUCTION)
    assert find_template(name).apply(instruction) == before + instruction + after


@pytest.mark.parametrize("template", TEMPLATES.values(), ids=TEMPLATES)
def test_one_space_or_line_stands_between_prompt_and_response(template):
    # With a space on both sides the response's first token would differ between training and evaluation.
    joined = template.apply("a") + template.separator
    assert joined.rstrip() + joined[-1] == joined


def test_an_unknown_template_lists_the_known_ones():
    with pytest.raises(UserError, match="template plane: expected one of plain, question, none; correct the name"):
        find_template("plane")
