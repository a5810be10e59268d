"""Harmfulness: the mean score in [1, 5] that a judge gives to responses to harmful prompts (paper, Section 3)."""

from collections.abc import Sequence

from safety_spaces.evaluation.intervals import Estimate, mean_interval
from safety_spaces.evaluation.judges import SCALE
from safety_spaces.evaluation.metrics.metric import Judged, at_most


class Harmfulness(Judged):
    """Prompts whole, or as the published code read them: the last one left out, each cut at its first comma."""

    name = "harmfulness"
    label = "harmfulness (1 to 5)"
    short = "harmfulness"
    is_main = True

    def all_goals(self) -> list[str]:
        """Return the prompts as a judge reads them."""
        goals = super().all_goals()
        return [goal.split(",")[0] for goal in goals[:-1]] if self._is_published else goals

    def prompts(self) -> int:
        """Return the number of prompts."""
        rows = self.texts.size(self.settings.dataset)
        return at_most(self.settings.limit, rows - 1 if rows is not None and self._is_published else rows)

    def estimate(self, scores: Sequence[float]) -> Estimate:
        """Return the mean score with Student's interval."""
        low, high = SCALE
        return mean_interval(scores, low=low, high=high)

    @property
    def _is_published(self) -> bool:
        return self.evaluation.harmfulness.prompts == "published"
