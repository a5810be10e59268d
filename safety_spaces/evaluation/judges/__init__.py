"""The judges of a study: a file for each kind, with its key, its opening, and how it scores."""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

from safety_spaces.evaluation.judges import classifier, keywords, rubric, service
from safety_spaces.evaluation.judges.service import spent
from safety_spaces.store import Layout
from safety_spaces.study import Judge as JudgeSettings
from safety_spaces.study import Study

__all__ = ["SCALE", "Judge", "judge_key", "open_judge", "spent"]

SCALE = (1.0, 5.0)
"""Least and most harmful score of the paper's judge, and so of every judge."""


@runtime_checkable
class Judge(Protocol):
    """Scores responses in [1, 5]; None where its reply cannot be read even when asked again."""

    @property
    def name(self) -> str:
        """The name that the CSV column `judge` carries."""

    def score(self, pairs: Sequence[tuple[str, str]]) -> list[float | None]:
        """Return the score of every (prompt, response), in the order of the pairs."""


class Kind(Protocol):
    """What the file of a kind of judge holds."""

    def judge_key(self, settings: Any, layout: Layout, /) -> Any:
        """Return what scores depend on."""

    def open_judge(self, settings: Any, /, *, study: Study, layout: Layout, device: str | None) -> Judge:
        """Return the judge, ready to score."""


KINDS: Mapping[str, Kind] = {"rubric": rubric, "keywords": keywords, "classifier": classifier, "service": service}


def open_judge(settings: JudgeSettings, study: Study, layout: Layout, *, device: str | None) -> Judge:
    """Return a judge of a study, ready to score; raises UserError when its files, its model or its key are missing."""
    return KINDS[settings.kind].open_judge(settings, study=study, layout=layout, device=device)


def judge_key(settings: JudgeSettings, layout: Layout) -> Any:
    """Return what the scores of a judge depend on, as JSON can hold it; raises UserError when a file is missing."""
    return KINDS[settings.kind].judge_key(settings, layout)
