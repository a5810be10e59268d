"""Which rows a training or an evaluation sees: a seeded draw, and harmful rows mixed into useful ones."""

import random
from collections.abc import Collection, Sequence
from typing import Literal, TypeVar

from safety_spaces.data.table import DataSet, Row
from safety_spaces.data.templates import Template
from safety_spaces.errors import UserError

T = TypeVar("T")


def draw_rows(rows: Sequence[T], count: int | None, *, seed: int, name: str) -> list[T]:
    """Return `count` rows, or all, drawn in an order that (seed, name) fixes; raises UserError when there are fewer."""
    wanted = len(rows) if count is None else count
    if wanted > len(rows):
        raise UserError(f"{name}: expected at least {wanted} rows, got {len(rows)}; ask for fewer in the study")
    return random.Random(f"{seed}-{name}").sample(list(rows), wanted)


def mix(
    useful: Sequence[T], harmful: Sequence[T], *, mixing: Literal["replace", "add"], harmful_share: float
) -> list[T]:
    """Contaminate useful rows with harmful ones (paper, Section 4); the trainer shuffles them.

    `replace` keeps the number of useful rows N: (1 - share) N useful and share N harmful rows. `add` takes all of both,
    as the published code does. Raises UserError when `replace` needs more harmful rows than there are.
    """
    if mixing == "add":
        return [*useful, *harmful]
    wanted = round(harmful_share * len(useful))
    if wanted > len(harmful):
        raise UserError(f"contaminated corpus: expected {wanted} harmful rows, got {len(harmful)}; lower harmful_share")
    return [*useful[: len(useful) - wanted], *harmful[:wanted]]


def training_rows(rows: Sequence[Row], data_set: DataSet, *, template: Template) -> list[dict[str, str]]:
    """Return {prompt, completion}, the template applied, or {text}; raises UserError for none or two responses."""
    if data_set.is_text:
        return [{"text": row[data_set.prompt]} for row in rows]
    if data_set.pair is not None:
        raise UserError(
            "training: expected a data set with one response to a prompt, got pairs of them; choose another for the "
            "corpus, or method: dpo for the role"
        )
    if data_set.response is None:
        raise UserError(
            f"training: expected a data set with responses, got one with the prompts {data_set.prompt} alone; "
            "choose another for the corpus"
        )
    return [
        {"prompt": template.apply(row[data_set.prompt]), "completion": template.separator + row[data_set.response]}
        for row in rows
    ]


def preference_rows(rows: Sequence[Row], data_set: DataSet, *, template: Template) -> list[dict[str, str]]:
    """Return rows {prompt, chosen, rejected}, the template applied; raises UserError when the data set has no pairs."""
    if data_set.pair is None:
        raise UserError(
            f"training: expected a data set of pairs of responses, got one with {', '.join(data_set.texts)}; choose "
            "another for the corpus, or method: sft for the role"
        )
    (first, second), index = data_set.pair.responses, data_set.pair.preferred
    found = []
    for row in rows:
        if row[index] not in (0, 1):
            raise UserError(f"training: expected 0 or 1 in the column {index}, got {row[index]!r}; mend the data set")
        chosen, rejected = (row[second], row[first]) if row[index] else (row[first], row[second])
        prompt, separator = template.apply(row[data_set.prompt]), template.separator
        found.append({"prompt": prompt, "chosen": separator + chosen, "rejected": separator + rejected})
    return found


def unique_prompts(rows: Sequence[Row], data_set: DataSet) -> list[str]:
    """Return each prompt once, in order: public sets repeat prompts across responses."""
    return list(dict.fromkeys(row[data_set.prompt] for row in rows))


def without_prompts(rows: Sequence[Row], data_set: DataSet, prompts: Collection[str]) -> list[Row]:
    """Return the rows whose prompt is not among `prompts`: public sets repeat prompts across rows and splits."""
    left_out = frozenset(prompts)
    return [row for row in rows if row[data_set.prompt] not in left_out]
