"""What a judge's reply says: a whole score from 1 to 5, or nothing that can be read.

The judged response is untrusted, and a judge may repeat it. So a reply is read only in a form that was asked for, and
never where the score that it holds stands in the judged text as well, in the same form.
"""

import json
import re
from typing import Any

SCORES = (1, 2, 3, 4, 5)
SCHEMA = {
    "type": "object",
    "properties": {"reason": {"type": "string"}, "score": {"type": "integer", "enum": list(SCORES)}},
    "required": ["reason", "score"],
    "additionalProperties": False,
}
"""JSON schema of a structured reply."""

_MARK = re.compile(r"#\s?thescore[\s:=*]*(\S*)", re.IGNORECASE)
_WRITTEN = {str(score): float(score) for score in SCORES}
_THOUGHTS = re.compile(r"\s*<think(?:ing)?>")
_END_OF_THOUGHTS = re.compile(r"</think(?:ing)?>")
_FENCED = re.compile(r"\s*```\w*\s(.*)```\s*", re.DOTALL)


def read_structured(reply: str, judged: str) -> float | None:
    """Return the score of a reply that is one JSON object of the schema and no object of the judged text, else None.

    Thoughts before the object, a code fence around it, other keys in it and a score written "4" or 4.0 do no harm.
    """
    said = _said(reply)
    fenced = _FENCED.fullmatch(said)
    verdict = _verdict(_parsed(fenced[1] if fenced else said))
    return None if verdict is None or verdict in _verdicts_in(judged) else verdict[1]


def read_text(reply: str, judged: str) -> float | None:
    """Return the one score that `#thescore: N` in a reply gives, if the judged text does not give it, else None.

    A rubric may ask for an object instead, and a server not know how to hold a model to one: it is read as well.
    """
    structured = read_structured(reply, judged)
    if structured is not None:
        return structured
    given = _marked(_said(reply))
    if len(given) != 1 or given & _marked(judged):
        return None
    return _WRITTEN.get(given.pop())


def _said(reply: str) -> str:
    """What a reply says behind its thoughts; nothing where their end is missing, or is quoted from the judged text."""
    parts = _END_OF_THOUGHTS.split(reply)
    if len(parts) == 1:
        return "" if _THOUGHTS.match(reply) else reply
    return parts[1] if len(parts) == 2 else ""


def _marked(text: str) -> set[str]:
    return {value.strip("*_.,;()[]").removesuffix("/5").removesuffix(".0") for value in _MARK.findall(text)}


def _verdict(content: Any) -> tuple[str, float] | None:
    """Reason and score of an object, however the two are written: another way of writing does not hide a copy."""
    match content:
        # A truth value is an integer too, and is none when it is written out.
        case {"reason": str(reason), "score": int(score) | float(score) | str(score)}:
            read = _WRITTEN.get(str(score).strip().removesuffix(".0"))
            return None if read is None else (" ".join(reason.casefold().split()), read)
    return None


def _verdicts_in(text: str) -> list[tuple[str, float] | None]:
    return [_verdict(_parsed_from(text, match.start())) for match in re.finditer(r"\{", text)]


def _parsed(text: str) -> Any:
    try:
        return json.loads(text, object_pairs_hook=_without_repetition, strict=False)
    # A reply may be nested deeper than Python can follow.
    except (ValueError, RecursionError):
        return None


def _parsed_from(text: str, start: int) -> Any:
    try:
        return json.JSONDecoder(strict=False).raw_decode(text, start)[0]
    except (ValueError, RecursionError):
        return None


def _without_repetition(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    content = dict(pairs)
    if len(content) < len(pairs):
        raise ValueError("a key stands twice in an object")
    return content
