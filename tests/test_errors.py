"""An error is a line for each problem, and quotes the beginning of what came."""

import pickle

import pytest

from safety_spaces.errors import UserError, quote


@pytest.mark.parametrize("separator", ["\n", "\r\n", "\u2028", "\x0b"])
def test_an_error_is_one_line_whatever_it_quotes(separator):
    assert str(UserError(f"a{separator}b  c")) == "a b  c"
    assert quote(f"a{separator}b") == "a b"


def test_an_error_about_several_places_has_a_line_for_each():
    error = UserError("a\nb", "c")
    assert str(error) == str(pickle.loads(pickle.dumps(error))) == "a b\nc"


def test_a_quotation_ends_after_120_characters():
    assert quote("x" * 120) == "x" * 120
    assert quote(["x" * 120]) == f"['{'x' * 114} ..."
