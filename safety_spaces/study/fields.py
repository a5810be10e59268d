"""What all sections of a study file share: strict and frozen models, and the kinds of value they are made of.

A typing error that passes in silence costs a night of computing. So no key is ignored, no text is taken for a number,
and nothing changes once it is read.
"""

import difflib
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from itertools import pairwise
from typing import Annotated, Any, LiteralString, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator
from pydantic_core import ErrorDetails, InitErrorDetails, PydanticCustomError

Problems = Iterator[InitErrorDetails]


def refusal(key: str, message: str) -> InitErrorDetails:
    """Return the error about `key`, a dotted key below the section that raises it."""
    return _error("refusal", message, (key,))


def _error(kind: str, message: str, place: tuple[int | str, ...], came: Any = None) -> InitErrorDetails:
    return InitErrorDetails(type=PydanticCustomError(kind, "{message}", {"message": message}), loc=place, input=came)


def known_names(name: str, known: Iterable[str]) -> str:
    """Return the nearest known name as a question, or all of them where none is near."""
    names = sorted(known)
    close = difflib.get_close_matches(name, names, n=1)
    return f"did you mean {close[0]}?" if close else f"expected one of {', '.join(names) or 'none'}"


def unknown_name(key: str, name: str, known: Iterable[str], kind: str) -> Problems:
    """Yield the error about a name of `kind` below `key` that nothing is called by."""
    if name not in (names := list(known)):
        yield refusal(key, f"no {kind} is named {name!r}; {known_names(name, names)}")


@dataclass(frozen=True)
class Wrong:
    """What takes the place of a setting that is wrong, so that the others are read too."""

    content: Any
    errors: Sequence[ErrorDetails]


MISSING = Wrong(None, [ErrorDetails(type="missing", loc=(), msg="missing", input=None)])


class Settings(BaseModel):
    """A section of a study file. All that is wrong with it is said at once."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False, serialize_by_alias=True)

    def _problems(self) -> Problems:
        """Yield what is wrong between the settings of a section, each of which is right alone."""
        yield from ()

    def _problems_beside(self, wrong: Mapping[str, Wrong]) -> Problems:
        """Yield what is wrong between the settings of a section that are not `wrong` alone."""
        if not wrong:
            yield from self._problems()

    @field_validator("*", mode="wrap")
    @classmethod
    def _hold(cls, value: Any, read: Callable[[Any], Any]) -> Any:
        try:
            return value if value is MISSING else read(value)
        except ValidationError as error:
            return Wrong(value, error.errors(include_url=False))

    @model_validator(mode="wrap")
    @classmethod
    def _collect(cls, content: Any, read: Callable[[Any], "Settings"]) -> "Settings":
        if not isinstance(content, dict):
            return read(content)
        keys = {name: field.alias or name for name, field in cls.model_fields.items()}
        known = {*keys.values()}
        given = {keys[name]: MISSING for name, field in cls.model_fields.items() if field.is_required()} | content
        section = read({key: value for key, value in given.items() if key in known})
        wrong = {name: value for name, value in section if isinstance(value, Wrong)}
        problems = [refusal(key, f"unknown key; {known_names(key, known)}") for key in content if key not in known]
        for name, setting in wrong.items():
            problems += [_error(e["type"], e["msg"], (keys[name], *e["loc"]), e["input"]) for e in setting.errors]
        if problems := [*problems, *section._problems_beside(wrong)]:
            raise ValidationError.from_exception_data(cls.__name__, problems)
        return section


def part_of(fraction: float, count: int) -> int:
    """Return floor(fraction * count), exact in decimals: 0.29 of 100 is 29."""
    return int(Decimal(str(fraction)) * count)


def _written_as(pattern: str, expected: LiteralString) -> AfterValidator:
    def check(text: str) -> str:
        if not re.fullmatch(pattern, text, re.DOTALL):
            raise PydanticCustomError("text", expected)
        return text

    return AfterValidator(check)


def _increase(numbers: tuple[Any, ...]) -> tuple[Any, ...]:
    # As the tables carry them.
    written = [float(f"{number:.6g}") for number in numbers]
    if any(second <= first for first, second in pairwise(written)):
        raise PydanticCustomError("order", "expected numbers that increase, none of them twice")
    return numbers


def _differ(entries: tuple[Any, ...]) -> tuple[Any, ...]:
    if len(set(entries)) < len(entries):
        raise PydanticCustomError("repeated", "expected no entry twice")
    return entries


Positive = Annotated[int, Field(ge=1)]
NotNegative = Annotated[int, Field(ge=0)]
Share = Annotated[float, Field(gt=0, le=1)]
Depth = Annotated[float, Field(ge=0, lt=1)]
Text = Annotated[str, Field(min_length=1)]
Phrase = Annotated[str, _written_as(r".*\S.*", "expected a text that is not blank")]
FileName = Annotated[
    str,
    Field(max_length=100),
    _written_as(r"[A-Za-z0-9_-][A-Za-z0-9_.-]*", "expected letters, digits, -, _ and, not in the first place, dots"),
]
# No hyphen: `useful-1` names a replicate and `useful-harmful` a pair.
Word = Annotated[str, _written_as(r"[A-Za-z0-9_]+", "expected letters, digits and _")]
ModelPath = Annotated[
    Text,
    _written_as(
        r"(?!\w+://|(www\.)?(hf\.co|huggingface\.co)/).*",
        "expected a folder or an id of the hub such as owner/model, no address",
    ),
]

# A list of YAML becomes a tuple, which strict pydantic refuses; what is in the list stays strict.
T = TypeVar("T")
A_LIST = Field(strict=False, min_length=1)
Increasing = Annotated[tuple[T, ...], A_LIST, AfterValidator(_increase)]
Different = Annotated[tuple[T, ...], A_LIST, AfterValidator(_differ)]
DifferentOrNone = Annotated[tuple[T, ...], Field(strict=False), AfterValidator(_differ)]
IncreasingOrNone = Annotated[tuple[T, ...], Field(strict=False), AfterValidator(_increase)]
Pair = Annotated[tuple[str, str], A_LIST, AfterValidator(_differ)]
Window = Annotated[tuple[Depth, Share], A_LIST, AfterValidator(_increase)]
Shares = Increasing[Share]
