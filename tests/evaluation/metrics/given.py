"""A metric of the miniature's study over rows that a test gives."""

from functools import cache
from pathlib import Path

from safety_spaces.data.texts import Texts
from safety_spaces.store import Layout
from safety_spaces.study import GeneralAbility, HarmMargin, OverRefusal, UtilityMargin, load_study
from tests.pico import ROOT

ABSENT = {
    "general_ability": GeneralAbility(fewshot=0),
    "over_refusal": OverRefusal(max_new_tokens=4),
    "utility_margin": UtilityMargin(dataset="gsm8k_test"),
    "harm_margin": HarmMargin(dataset="advbench", refusal="refusal"),
}
"""Sections of metrics that the miniature does not ask."""


@cache
def study():
    return load_study(ROOT / "configs/miniature.yaml")


def given(metric, rows, *, batch_size=4, **settings):
    """Return the metric over rows by the name of their data set, with settings of its section changed."""

    class Given(Texts):
        def rows(self, name, columns, where=None):
            return [dict(row) for row in rows[name]]

    evaluation = study().evaluation
    section = (getattr(evaluation, metric.name) or ABSENT[metric.name]).model_copy(update=settings)
    changed = evaluation.model_copy(update={"batch_size": batch_size, metric.name: section})
    return metric(Given(study(), Layout(Path(), Path(), "miniature"), lambda: None), changed)
