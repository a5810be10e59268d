"""The metrics of a study: each is one object, and one section of `evaluation`."""

from safety_spaces.data.texts import Texts
from safety_spaces.evaluation.metrics.general_ability import GeneralAbility
from safety_spaces.evaluation.metrics.harm_margin import HarmMargin
from safety_spaces.evaluation.metrics.harmfulness import Harmfulness
from safety_spaces.evaluation.metrics.metric import Answer, Ask, Metric
from safety_spaces.evaluation.metrics.over_refusal import OverRefusal
from safety_spaces.evaluation.metrics.utility import Utility
from safety_spaces.evaluation.metrics.utility_margin import UtilityMargin
from safety_spaces.study import Evaluation

__all__ = ["METRICS", "Answer", "Ask", "Metric", "every_metric", "metric_of"]

METRICS: dict[str, type[Metric]] = {
    metric.name: metric for metric in (Utility, Harmfulness, GeneralAbility, OverRefusal, UtilityMargin, HarmMargin)
}


def metric_of(name: str, texts: Texts, evaluation: Evaluation) -> Metric:
    """Return a metric of a study by its name."""
    return METRICS[name](texts, evaluation)


def every_metric(texts: Texts, evaluation: Evaluation) -> dict[str, Metric]:
    """Return the metrics that a study has a section of."""
    return {name: metric_of(name, texts, evaluation) for name in METRICS if getattr(evaluation, name) is not None}
