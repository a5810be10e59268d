"""Numbers and booleans are what a person means."""

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from safety_spaces.study.documents import Replacement, read_document


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-5", 1e-5), ("1E5", 1e5), ("3e-3", 0.003), ("-.5", -0.5), ("2.", 2.0), ("+0.25", 0.25),
        ("12", 12), ("010", 10), ("-7", -7), ("0x10", "0x10"), ("1:30", "1:30"), ("1_000", "1_000"), (".inf", ".inf"),
        ("true", True), ("False", False), ("no", "no"), ("on", "on"), ("y", "y"), ("Off", "Off"),
        ("null", None), ("~", None), ("", None), ("2024-01-01", "2024-01-01"),
        ('"5"', "5"), ("'true'", "true"), ("1e-5 rows", "1e-5 rows"), ("e5", "e5"), (".", "."), ("-", [None]),
    ],
)  # fmt: skip
def test_plain_scalars(text: str, value: object) -> None:
    read = read_document(text.encode())
    assert read == value
    assert type(read) is type(value)


@given(st.floats(allow_nan=False, allow_infinity=False) | st.integers() | st.booleans() | st.none())
def test_what_python_writes_is_read_back(value: float | bool | None) -> None:
    text = "null" if value is None else repr(value)
    read = read_document(text.encode())
    assert repr(read) == repr(value)


@given(st.recursive(st.text(), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=8))
def test_quoted_text_stays_text(value: object) -> None:
    assert read_document(yaml.safe_dump(value, default_style='"').encode()) == value


def test_names_that_yaml_1_1_takes_for_booleans_are_keys() -> None:
    assert read_document(b"{no: 1, on: {yes: off}}") == {"no": 1, "on": {"yes": "off"}}


def test_replace_marks_a_mapping() -> None:
    read = read_document(b"{a: !replace {b: 1}, c: {b: 1}}")
    assert isinstance(read["a"], Replacement)
    assert not isinstance(read["c"], Replacement)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("a: 1\nb: 2\na: 3", "expected every key once, got a twice"),
        ("true: 1", "expected text as a key, got True; put it in quotes"),
        ("[a]: 1", r"expected text as a key, got \['a'\]"),
        ("a: !replace [1]", "unknown tag !replace; only a mapping has one"),
        ("a: !!python/name:os.system x", "unknown tag"),
        ("a: [1", "expected ',' or ']'"),
        ("a: &a [*a]", "got an anchor that holds itself"),
        ("a: 1\nb: &b {c: [1, {d: *b}]}", "line 2"),
        (f"a: {'[' * 5000}{']' * 5000}", "at most 50 levels of nesting"),
        (f"a: {'[' * 51}{']' * 51}", "at most 50 levels of nesting"),
        ("\n".join(["a0: &a0 []", *(f"a{n}: &a{n} [*a{n - 1}]" for n in range(1, 900))]), "at most 50 levels"),
        ("\n".join(["a0: &a0 1", *(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 12))]),
         "at most 100,000 values"),
    ],
)  # fmt: skip
def test_refused(text: str, problem: str) -> None:
    with pytest.raises(yaml.YAMLError, match=problem):
        read_document(text.encode())


def test_an_alias_repeats_its_anchor() -> None:
    assert read_document(b"a: &layers [0, 3]\nb: {c: *layers, d: *layers}") == {
        "a": [0, 3],
        "b": {"c": [0, 3], "d": [0, 3]},
    }


def test_marks_of_byte_order_are_no_text() -> None:
    for encoding in ("utf-8-sig", "utf-16"):
        assert read_document("a: ü".encode(encoding)) == {"a": "ü"}
