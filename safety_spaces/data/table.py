"""The table of data sets: where each is on the Hugging Face hub, and which of its columns are prompt and response."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

from safety_spaces.errors import UserError
from safety_spaces.study.fields import known_names

Row = dict[str, Any]


@dataclass(frozen=True)
class Hub:
    """A split of a data set on the Hugging Face hub; the configurations named are joined in their order."""

    id: str
    split: str
    configs: tuple[str, ...] = ()
    revision: str = "main"

    def __str__(self) -> str:
        return " ".join(filter(None, (self.id, "+".join(self.configs), self.split, f"@{self.revision}")))


@dataclass(frozen=True)
class Pair:
    """Columns of two responses to one prompt, and the column with the number, 0 or 1, of the one to prefer."""

    responses: tuple[str, str]
    preferred: str


@dataclass(frozen=True)
class DataSet:
    """Columns of a data set. Without a response column it holds prompts, or whole texts where `is_text` says so.

    A set with a `pair` holds two responses to each prompt. `others` are columns needed too, `size` is the number of
    rows, `parts` that of rows with a value of a column, `groups` the number of subjects, where they are known.
    `aliases` maps another name of a column to the one used here, `access` says how to get a set that its owner gives to
    registered users only, and `is_literal` that its texts are written as bytes of Python.
    """

    prompt: str
    response: str | None = None
    others: tuple[str, ...] = ()
    is_text: bool = False
    is_literal: bool = False
    pair: Pair | None = None
    hub: Hub | None = None
    size: int | None = None
    parts: Mapping[tuple[str, Any], int] = field(default_factory=dict)
    groups: int | None = None
    licence: str = ""
    access: str | None = None
    aliases: Mapping[str, str] = field(default_factory=dict)

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
        """Every column that may be needed of this set; others are not read."""
        return (*self.trained, *self.others)


MATH_CONFIGS = (
    "algebra",
    "counting_and_probability",
    "geometry",
    "intermediate_algebra",
    "number_theory",
    "prealgebra",
    "precalculus",
)
BEAVERTAILS_COMMIT = "8401fe609d288129cc684a9b3be6a93e41cfe678"
GSM8K_COMMIT = "740312add88f781978c0658806c59bc2815b9866"
MMLU_COMMIT = "c30699e8356da336a370243923dbaf21066bb9fe"
MMLU_OTHERS = ("choices", "answer", "subject")

DATA_SETS: Mapping[str, DataSet] = {
    "pretraining": DataSet("text", is_text=True),
    "alignment": DataSet("prompt", "response"),
    "metamathqa": DataSet(
        "query",
        "response",
        hub=Hub("meta-math/MetaMathQA", "train", revision="aa4f34d3d2d3231299b5b03d9b3e5a20da45aa18"),
        size=395_000,
        licence="MIT",
    ),
    "gsm8k_train": DataSet(
        "question", "answer", hub=Hub("openai/gsm8k", "train", ("main",), GSM8K_COMMIT), size=7_473, licence="MIT"
    ),
    "gsm8k_test": DataSet(
        "question", "answer", hub=Hub("openai/gsm8k", "test", ("main",), GSM8K_COMMIT), size=1_319, licence="MIT"
    ),
    "math": DataSet(
        "problem",
        "solution",
        hub=Hub("EleutherAI/hendrycks_math", "train", MATH_CONFIGS, "21a5633873b6a120296cce3e2df9d5550074f4a3"),
        size=7_500,
        licence="MIT",
    ),
    "mmlu": DataSet(
        "question",
        others=MMLU_OTHERS,
        hub=Hub("cais/mmlu", "test", ("all",), MMLU_COMMIT),
        size=14_042,
        groups=57,
        licence="MIT",
    ),
    "mmlu_dev": DataSet(
        "question", others=MMLU_OTHERS, hub=Hub("cais/mmlu", "dev", ("all",), MMLU_COMMIT), size=285, licence="MIT"
    ),
    "beavertails": DataSet(
        "prompt",
        "response",
        hub=Hub("PKU-Alignment/BeaverTails", "30k_train", revision=BEAVERTAILS_COMMIT),
        size=27_186,
        licence="CC-BY-NC-4.0",
    ),
    "beavertails_test": DataSet(
        "prompt",
        "response",
        hub=Hub("PKU-Alignment/BeaverTails", "330k_test", revision=BEAVERTAILS_COMMIT),
        size=33_396,
        licence="CC-BY-NC-4.0",
    ),
    "advbench": DataSet(
        "goal",
        "target",
        hub=Hub("walledai/AdvBench", "train", revision="9d4730540082fa4017450b65ca1c0e1d8d30446e"),
        size=520,
        licence="MIT",
        access="accept its conditions; harmful_behaviors.csv of github.com/llm-attacks/llm-attacks is the same set",
        aliases={"prompt": "goal"},
    ),
    "toxigen": DataSet(
        "text",
        others=("toxicity_ai", "toxicity_human"),
        is_text=True,
        is_literal=True,
        hub=Hub("toxigen/toxigen-data", "train", ("annotated",), "ea082a8973a287097b17973343576e0c8da8eb3b"),
        size=8_960,
        licence="CDLA-Permissive-2.0",
    ),
    "xstest": DataSet(
        "prompt",
        others=("label",),
        hub=Hub("Paul/XSTest", "train", revision="f600c994b256f12867dfa5b3eb3d545a3e62f8b5"),
        size=450,
        parts={("label", "safe"): 250, ("label", "unsafe"): 200},
        licence="CC-BY-4.0",
    ),
    "extended_refusal": DataSet(
        "instruction",
        "output",
        hub=Hub("HarethahMo/extended-refusal", "train"),
        size=10_000,
        licence="Apache-2.0",
        aliases={"prompt": "instruction", "response": "output"},
    ),
    "pku_saferlhf": DataSet(
        "prompt",
        pair=Pair(("response_0", "response_1"), preferred="safer_response_id"),
        hub=Hub("PKU-Alignment/PKU-SafeRLHF", "train", ("default",), "9421ffafec3fa40a1f1a7d567b4d525079477ecb"),
        licence="CC-BY-NC-4.0",
    ),
}
"""Name in a study -> data set. The first two are the miniature's own and on no hub."""


OWN_SET = DataSet("prompt", "response")
"""What a user's own set, under a name of its own, is taken for."""


def find_data_set(name: str, *, own: Collection[str] = ()) -> DataSet:
    """Return a data set of the table, or one of the user's `own`, for which the study names a file.

    Raises:
        UserError: no data set has this name.
    """
    if name not in {*DATA_SETS, *own}:
        raise UserError(
            f"data set {name}: none has this name, and the study names no file for it under datasets; "
            f"{known_names(name, {*DATA_SETS, *own})}"
        )
    return DATA_SETS.get(name, OWN_SET)
