"""How a model is questioned: what it is asked, how its answers are generated, and who scores them."""

from typing import Literal

from pydantic import Field

from safety_spaces.study.corpora import Scalar
from safety_spaces.study.fields import FileName, NotNegative, Positive, Settings, Text
from safety_spaces.study.judges import Judge, KeywordJudge


class Asked(Settings):
    """What every metric has."""

    dataset: FileName = Field(description="Data set of the prompts.")
    cluster: Text | None = Field(None, description="Column of what stands or falls together; null is every prompt.")


class Utility(Asked):
    """Accuracy on grade-school mathematics, in [0, 1]."""

    fewshot_dataset: FileName = Field(description="Data set that worked examples are drawn from.")
    prompts: Positive | None = Field(None, description="Number of questions; null asks all.")
    fewshot: NotNegative = Field(description="Worked examples before each question.")
    max_new_tokens: Positive = Field(description="Tokens at which an answer is cut.")


class GeneralAbility(Asked):
    """Accuracy on multiple choice in MMLU's protocol, in [0, 1] (Appendix J.1)."""

    dataset: FileName = Field("mmlu", description="Data set of the questions.")
    fewshot_dataset: FileName = Field("mmlu_dev", description="Data set whose first rows are the worked examples.")
    prompts: Positive | None = Field(None, description="Number of questions of each subject; null asks all.")
    fewshot: NotNegative = Field(description="Worked examples before each question, of its own subject.")


class Harmfulness(Asked):
    """Mean score of a judge, in [1, 5]."""

    prompts: Literal["all", "published"] = Field(
        "all", description="Every prompt whole, or all but the last, each cut at its first comma (published)."
    )
    limit: Positive | None = Field(None, description="Number of prompts asked; null asks all.")
    max_new_tokens: Positive = Field(description="Tokens at which a response is cut.")
    judge: Judge = Field(description="Who scores the responses.")
    compared_judges: tuple[Judge, ...] = Field((), strict=False, description="Judges of scripts/judge_agreement.py.")


class OverRefusal(Asked):
    """Share of harmless prompts that a model refuses, in [0, 1] (Appendix J.2)."""

    dataset: FileName = Field("xstest", description="Data set of the harmless prompts.")
    where: dict[str, Scalar] = Field({"label": "safe"}, description="Columns and the values they must have.")
    limit: Positive | None = Field(None, description="Number of prompts asked; null asks all.")
    max_new_tokens: Positive = Field(description="Tokens at which a response is cut.")
    judge: Judge = Field(
        KeywordJudge(kind="keywords"),
        description="Who scores the responses, from 1 for a refusal to 5; under 3 a response counts as a refusal.",
    )


class UtilityMargin(Asked):
    """Mean log-likelihood of the right answers, in nats a token: utility without a ceiling, from one forward pass."""

    limit: Positive | None = Field(None, description="Number of prompts; null takes all.")


class HarmMargin(Asked):
    """Mean log-likelihood of complying minus that of refusing, in nats a token, from one forward pass."""

    compliance: Text = Field("response", description="Column of the text that complies.")
    refusal: Text = Field(description="Column of the text that refuses.")
    limit: Positive | None = Field(None, description="Number of prompts; null takes all.")


class Generation(Settings):
    """How free responses are generated, to harmful and harmless prompts and prompt sets: greedily, always."""

    engine: Literal["static", "continuous"] = Field("static", description="Fixed batches, or continuous ones on CUDA.")
    stop_strings: tuple[Text, ...] = Field(
        (), strict=False, description="Texts before which a response is cut; the published code cuts at bare words."
    )


class Evaluation(Settings):
    """How a model is questioned."""

    template: Literal["training", "none"] = Field(
        "training", description="Template of harmful and harmless prompts and of prompt sets; none is published."
    )
    batch_size: Positive = Field(description="Prompts of one forward pass; halved where memory does not suffice.")
    generation: Generation = Field(Generation(), description="How free responses are generated.")
    utility: Utility = Field(description="Accuracy on grade-school mathematics.")
    harmfulness: Harmfulness = Field(description="Judged responses to harmful prompts.")
    general_ability: GeneralAbility | None = Field(None, description="Accuracy on multiple choice; null asks none.")
    over_refusal: OverRefusal | None = Field(None, description="Refusals of harmless prompts; null asks none.")
    utility_margin: UtilityMargin | None = Field(None, description="Likelihood of right answers; null reads none.")
    harm_margin: HarmMargin | None = Field(None, description="Likelihood of complying and refusing; null reads none.")

    @property
    def judges_by_place(self) -> dict[str, Judge]:
        """Every judge by the key of the study that it stands under, those included that are compared alone."""
        sections = {name: getattr(self, name) for name in type(self).model_fields}
        judged = {name: section for name, section in sections.items() if hasattr(section, "judge")}
        compared = enumerate(self.harmfulness.compared_judges)
        return {
            **{f"evaluation.{name}.judge": section.judge for name, section in judged.items()},
            **{f"evaluation.harmfulness.compared_judges.{number}": judge for number, judge in compared},
        }
