"""YAML as a person means it.

PyYAML follows YAML 1.1, which reads 1e-5 as text, `no` as false, 010 as eight and 1:30 as ninety, and lets the second
of two equal keys win. Here numbers and booleans are those of YAML 1.2, keys are text and come once, and the only tag is
`!replace`, before a mapping that replaces the one it extends instead of being merged into it.
"""

import re
from collections.abc import Callable
from typing import Any

import yaml

LARGEST, DEEPEST = 100_000, 50
"""Values of a document with every alias written out, and levels of nesting: far more than a study has."""
PLAIN_SCALARS: tuple[tuple[str, Callable[[str], Any]], ...] = (
    (r"[-+]?[0-9]+", int),
    (r"[-+]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][-+]?[0-9]+)?", float),
    (r"true|True|TRUE|false|False|FALSE", lambda text: text.lower() == "true"),
    (r"null|Null|NULL|~|", lambda _: None),
)
"""How a scalar without quotes is written and how it is read, the first that matches; anything else is text."""

TOO_DEEP = f"expected at most {DEEPEST} levels of nesting"


class Replacement(dict[str, Any]):
    """A mapping that replaces the one it extends."""


def read_document(content: bytes) -> Any:
    """Return what a YAML document says.

    Raises yaml.YAMLError when it is not YAML, a key is not text or comes twice, a tag is not `!replace`, or it has no
    end: an anchor holds itself, or the aliases of aliases are too many to write out.
    """
    try:
        node = yaml.compose(content, Loader=yaml.BaseLoader)
    except RecursionError as error:
        raise yaml.MarkedYAMLError(problem=TOO_DEEP) from error
    if node is None:
        return None
    size, levels = _extent(node, {})
    if levels > DEEPEST or size > LARGEST:
        raise yaml.MarkedYAMLError(
            problem=TOO_DEEP if levels > DEEPEST else f"expected at most {LARGEST:,} values, aliases written out"
        )
    return _value(node)


def _extent(node: yaml.Node, known: dict[int, tuple[int, int] | None]) -> tuple[int, int]:
    """Return the number of values and of levels below a node, each node looked at once, however often it is named."""
    if id(node) in known:
        if (extent := known[id(node)]) is None:
            raise _error(node, "expected values, got an anchor that holds itself; write them out")
        return extent
    known[id(node)] = None
    children = [] if isinstance(node, yaml.ScalarNode) else node.value
    if isinstance(node, yaml.MappingNode):
        children = [part for pair in node.value for part in pair]
    extents = [_extent(child, known) for child in children]
    known[id(node)] = found = 1 + sum(size for size, _ in extents), 1 + max((deep for _, deep in extents), default=0)
    return found


def _value(node: yaml.Node) -> Any:
    match node:
        case yaml.ScalarNode(tag="tag:yaml.org,2002:str"):
            return node.value if node.style else plain_scalar(node.value)
        case yaml.SequenceNode(tag="tag:yaml.org,2002:seq"):
            return [_value(entry) for entry in node.value]
        case yaml.MappingNode(tag="tag:yaml.org,2002:map"):
            return _mapping(node)
        case yaml.MappingNode(tag="!replace"):
            return Replacement(_mapping(node))
    raise _error(node, f"unknown tag {node.tag}; only a mapping has one, and only !replace")


def _mapping(node: yaml.MappingNode) -> dict[str, Any]:
    mapping: dict[str, Any] = {}
    for key_node, value_node in node.value:
        key = _value(key_node)
        if not isinstance(key, str):
            raise _error(key_node, f"expected text as a key, got {key!r:.60}; put it in quotes")
        if key in mapping:
            raise _error(key_node, f"expected every key once, got {key:.60} twice")
        mapping[key] = _value(value_node)
    return mapping


def plain_scalar(text: str) -> Any:
    """Return what a scalar without quotes says: a number, true or false, nothing, or itself."""
    return next((read(text) for pattern, read in PLAIN_SCALARS if re.fullmatch(pattern, text)), text)


def _error(node: yaml.Node, problem: str) -> yaml.MarkedYAMLError:
    return yaml.MarkedYAMLError(problem=problem, problem_mark=node.start_mark)
