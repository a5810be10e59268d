"""Utility margin: the mean log-likelihood of the right answer, worked out as the data set has it."""

from safety_spaces.evaluation.metrics.likelihood import Likelihood


class UtilityMargin(Likelihood):
    """log p(answer | question) / tokens."""

    name = "utility_margin"
    label = "utility margin (nats a token)"
    short = "utility margin"

    @property
    def weights(self) -> dict[str, float]:
        """The right answer; raises UserError when the data set has none."""
        return {self.answer_column(self.settings.dataset): 1.0}
