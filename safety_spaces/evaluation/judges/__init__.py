"""The judges of a study: a file for each kind, with its key, its opening, and how it scores."""

from collections.abc import Iterable, Mapping
from typing import Any, Protocol

from safety_spaces.evaluation.judges import classifier, keywords, rubric, service
from safety_spaces.evaluation.judges.judge import SCALE, Judge
from safety_spaces.evaluation.judges.service.budget import spent_in
from safety_spaces.store import Layout
from safety_spaces.study import Judge as JudgeSettings
from safety_spaces.study import ServiceJudge, Study

__all__ = ["SCALE", "Judge", "judge_key", "open_judge", "spent"]


class Kind(Protocol):
    """What the file of a kind of judge holds."""

    def judge_key(self, settings: Any, layout: Layout, /) -> Any:
        """Return what scores depend on."""

    def open_judge(self, settings: Any, place: str, layout: Layout, /, *, device: str | None, threads: int) -> Judge:
        """Return the judge, ready to score."""


KINDS: Mapping[str, Kind] = {"rubric": rubric, "keywords": keywords, "classifier": classifier, "service": service}


def open_judge(settings: JudgeSettings, study: Study, layout: Layout, *, device: str | None) -> Judge:
    """Return a judge of a study, ready to score; raises UserError when its files, its model or its key are missing."""
    kind = KINDS[settings.kind]
    return kind.open_judge(settings, _place(settings, study), layout, device=device, threads=study.threads)


def judge_key(settings: JudgeSettings, layout: Layout) -> Any:
    """Return what the scores of a judge depend on, as JSON can hold it; raises UserError when a file is missing."""
    return KINDS[settings.kind].judge_key(settings, layout)


def spent(judges: Iterable[JudgeSettings], study: Study, layout: Layout) -> str:
    """Return what services have cost this process so far, as a line of progress says it; nothing of other judges."""
    services = [judge for judge in judges if isinstance(judge, ServiceJudge)]
    ledgers = {service.share(judge, _place(judge, study), layout)[0] for judge in services}
    return f"{sum(map(spent_in, ledgers)):.2f} US dollars so far" if ledgers else ""


def _place(settings: JudgeSettings, study: Study) -> str:
    """The key of the study that a judge stands under: two judges may have the same settings, and each has a budget."""
    places = study.evaluation.judges_by_place if study.evaluation else {}
    return next((place for place, judge in places.items() if judge is settings), "judge")
