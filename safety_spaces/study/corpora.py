"""Texts by name: rows of one data set, or harmful rows mixed into useful ones (the paper's contaminated data)."""

from typing import Annotated, Any, ClassVar, Literal

from pydantic import BeforeValidator, Discriminator, Field, Tag
from pydantic_core import PydanticCustomError

from safety_spaces.study.fields import FileName, NotNegative, Positive, Problems, Settings, Text, refusal


def _is_scalar(value: Any) -> Any:
    if not isinstance(value, bool | int | float | str):
        raise PydanticCustomError("scalar", "expected text, a number, true or false")
    return value


Scalar = Annotated[bool | int | float | str, BeforeValidator(_is_scalar)]


class DataFile(Settings):
    """A local copy that stands for a public data set, or a set under a name of its own: a file, or a folder."""

    path: Text = Field(description="File (JSON lines, JSON, CSV, TSV, Arrow, parquet, a text a line), or folder.")
    columns: dict[str, Text] = Field({}, description="Column of the table or of `where`, and its name in the file.")


WORLD_CORPORA = (
    "pretraining", "alignment", "pku_saferlhf", "metamathqa", "beavertails", "beavertails_test", "gsm8k_train",
    "gsm8k_test", "math", "mmlu", "mmlu_dev", "advbench", "xstest", "extended_refusal", "toxigen",
)  # fmt: skip
"""What the small world writes, most of it in the place of a public data set."""


class World(Settings):
    """The small world that the miniature writes its corpora from."""

    seed: NotNegative = Field(description="Seed of the world and of every text in it.")
    sizes: dict[FileName, Positive] = Field(description="Number of rows by name of the corpus file.")

    def _problems(self) -> Problems:
        if wrong := ", ".join(sorted({*self.sizes} ^ {*WORLD_CORPORA})):
            known = ", ".join(WORLD_CORPORA)
            yield refusal("sizes", f"expected the corpora {known}; missing or unknown: {wrong}")


class Selection(Settings):
    """Rows of a data set that meet a condition."""

    dataset: FileName = Field(description="Name of the data set.")
    where: dict[str, Scalar] = Field({}, description="Columns and the values they must have; empty takes every row.")
    seed: NotNegative = Field(0, description="Seed of the draw of rows; not a seed of the study, so scores pair.")


class SingleCorpus(Selection):
    """Rows of one data set."""

    parts: ClassVar[tuple[str, ...]] = ()
    rows: Positive | None = Field(None, description="Number of rows drawn; null takes all.")
    disjoint_from: str | None = Field(None, description="Corpus whose prompts are left out: public sets repeat them.")


class MixedCorpus(Settings):
    """Useful rows contaminated with harmful ones."""

    useful: str = Field(description="Name of the corpus of useful rows.")
    harmful: str = Field(description="Name of the corpus of harmful rows.")
    mixing: Literal["replace", "add"] = Field(
        "replace", description="Harmful rows take the place of useful ones, or all of both are used (published)."
    )
    harmful_share: float = Field(0.2, gt=0, lt=1, description="Share of harmful rows where they replace useful ones.")

    @property
    def parts(self) -> tuple[str, ...]:
        """The corpora that are mixed."""
        return self.useful, self.harmful


def _form(content: Any) -> str | None:
    match content:
        case {"dataset": _, "useful": _} | {"dataset": _, "harmful": _}:
            return None
        case {"dataset": _} | SingleCorpus():
            return "(single)"
        case {"useful": _} | {"harmful": _} | MixedCorpus():
            return "(mixed)"
    return None


Corpus = Annotated[
    Annotated[SingleCorpus, Tag("(single)")] | Annotated[MixedCorpus, Tag("(mixed)")],
    Discriminator(
        _form,
        custom_error_type="form",
        custom_error_message="expected one of {dataset: ...} and {useful: corpus, harmful: corpus}; "
        "write !replace before a corpus that replaces an extended one",
    ),
]
