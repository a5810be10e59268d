"""The judges of a study: a file for each kind, with its key, its opening, and how it scores."""

from collections.abc import Mapping
from typing import Any, Protocol

from safety_spaces.evaluation.judges import classifier, keywords, rubric, service
from safety_spaces.evaluation.judges.judge import SCALE, Judge
from safety_spaces.evaluation.judges.service.budget import spent_in
from safety_spaces.store import Layout
from safety_spaces.study import Judge as JudgeSettings
from safety_spaces.study import ServiceJudge

__all__ = ["SCALE", "Judge", "judge_key", "open_judge", "spent"]


class Kind(Protocol):
    """What the file of a kind of judge holds."""

    def judge_key(self, settings: Any, layout: Layout, /) -> Any:
        """Return what scores depend on."""

    def open_judge(self, settings: Any, place: str, layout: Layout, /, *, device: str | None, threads: int) -> Judge:
        """Return the judge, ready to score."""


KINDS: Mapping[str, Kind] = {"rubric": rubric, "keywords": keywords, "classifier": classifier, "service": service}


def open_judge(settings: JudgeSettings, place: str, layout: Layout, *, device: str | None, threads: int) -> Judge:
    """Return a judge, ready to score.

    `place` is the key of the study that it stands under: two judges may have the same settings, and each a budget.
    Raises UserError when its files, its model or its key are missing.
    """
    return KINDS[settings.kind].open_judge(settings, place, layout, device=device, threads=threads)


def judge_key(settings: JudgeSettings, layout: Layout) -> Any:
    """Return what the scores of a judge depend on, as JSON can hold it; raises UserError when a file is missing."""
    return KINDS[settings.kind].judge_key(settings, layout)


def spent(judges: Mapping[str, JudgeSettings], layout: Layout) -> str:
    """Return what services have cost this process so far, as a line of progress says it; nothing of other judges.

    Judges stand under their places in the study.
    """
    services = {place: judge for place, judge in judges.items() if isinstance(judge, ServiceJudge)}
    dollars = sum(spent_in(service.share(judge, place, layout)[0]) for place, judge in services.items())
    return f"{dollars:.2f} US dollars so far" if services else ""
