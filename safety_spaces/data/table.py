"""The table of data sets, data_sets.yaml: the columns of each, and where it is on the Hugging Face hub."""

import functools
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import ConfigDict, TypeAdapter

from safety_spaces.errors import UserError
from safety_spaces.study.documents import read_document
from safety_spaces.study.fields import known_names

Row = dict[str, Any]


@dataclass(frozen=True)
class Hub:
    """A split of a data set on the hub at a commit, or at the head of main; rows of its configurations are joined."""

    id: str
    split: str
    configs: tuple[str, ...] = ()
    revision: str = "main"

    def __str__(self) -> str:
        return " ".join(filter(None, (self.id, "+".join(self.configs), self.split, f"@{self.revision}")))

    @property
    def is_pinned(self) -> bool:
        """Whether the rows cannot change."""
        return self.revision != "main"


@dataclass(frozen=True)
class Pair:
    """The columns of two responses to one prompt, and the column with the index, 0 or 1, of the preferred one."""

    responses: tuple[str, str]
    preferred: str


@dataclass(frozen=True)
class DataSet:
    """The columns of a data set. Without a response column it holds prompts, or whole texts where `is_text` says so.

    A preference set has a `pair` of responses to each prompt. `others` are further columns that are needed, `aliases`
    maps another name of a column to the one used here, `is_literal` says that texts are written as bytes literals of
    Python. `size` is the number of rows, `parts` that of rows by column and value, `groups` the number of subjects,
    where they are known. `access` says how to get a gated set.
    """

    prompt: str
    response: str | None = None
    pair: Pair | None = None
    others: tuple[str, ...] = ()
    aliases: Mapping[str, str] = field(default_factory=dict)
    is_text: bool = False
    is_literal: bool = False
    hub: Hub | None = None
    size: int | None = None
    parts: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    groups: int | None = None
    licence: str = ""
    access: str | None = None

    @property
    def texts(self) -> tuple[str, ...]:
        """The columns that hold text: the prompt, and the response or the two responses if any."""
        responses = self.pair.responses if self.pair else (self.response,)
        return (self.prompt, *filter(None, responses))

    @property
    def trained(self) -> tuple[str, ...]:
        """The columns that a model is trained on."""
        return (*self.texts, self.pair.preferred) if self.pair else self.texts

    @property
    def columns(self) -> tuple[str, ...]:
        """Every column that may be needed; others are not read."""
        return (*self.trained, *self.others)

    def most_rows(self, where: Mapping[str, Any]) -> int | None:
        """Return an upper bound of the number of rows whose columns have the values in `where`; None if unknown."""
        sizes = (self.parts.get(column, {}).get(value) for column, value in where.items())
        return min((size for size in sizes if size is not None), default=self.size)


@functools.cache
def data_sets() -> dict[str, DataSet]:
    """Return the table: name in a study -> data set."""
    table = TypeAdapter(dict[str, DataSet], config=ConfigDict(extra="forbid"))
    return table.validate_python(read_document((Path(__file__).parent / "data_sets.yaml").read_bytes()))


def find_data_set(name: str, *, own: Collection[str] = ()) -> DataSet:
    """Return a data set of the table, or one of the user's `own`, of prompts and responses; else raise UserError."""
    known = dict.fromkeys(own, DataSet("prompt", "response")) | data_sets()
    if name not in known:
        raise UserError(
            f"data set {name}: none has this name, and the study names no file for it under datasets; "
            f"{known_names(name, known)}"
        )
    return known[name]
