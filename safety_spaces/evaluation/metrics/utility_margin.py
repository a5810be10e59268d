"""Utility margin: the mean log-likelihood of the right answer, worked out as the data set has it."""

from safety_spaces.errors import UserError
from safety_spaces.evaluation.metrics.likelihood import Likelihood


class UtilityMargin(Likelihood):
    """log p(answer | question) / tokens."""

    name = "utility_margin"
    label = "utility margin (nats a token)"
    short = "utility margin"

    @property
    def weights(self) -> dict[str, float]:
        """The right answer; raises UserError when the data set has none."""
        response = self.texts.data_set(self.settings.dataset).response
        if response is None:
            name = self.settings.dataset
            raise UserError(f"evaluation.utility_margin: expected a data set with answers, got {name}, which has none")
        return {response: 1.0}
