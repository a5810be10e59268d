"""A chat model behind a service of the OpenAI protocol, asked with a rubric, and its share of the budget.

The client of the protocol is imported when the judge is opened.
"""

import re
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safety_spaces.errors import UserError
from safety_spaces.evaluation.judges.service.budget import Budget, spent_in
from safety_spaces.evaluation.judges.service.dialogue import check_rubric
from safety_spaces.paths import resolve_path
from safety_spaces.processes import processes
from safety_spaces.store import Layout, digest, file_digest
from safety_spaces.study import Judge as JudgeSettings
from safety_spaces.study import ServiceJudge as Settings
from safety_spaces.study import Study

if TYPE_CHECKING:
    from safety_spaces.evaluation.judges.service.asking import ServiceJudge

NO_EFFECT = {"published_rubric", "concurrency", "retries", "timeout", "unscored_in_a_row", "price", "budget"}
"""Settings that no score depends on."""


def judge_key(settings: Settings, _layout: Layout) -> Any:
    """Return the settings that a score depends on, and the content of the rubric."""
    return [settings.model_dump(mode="json", exclude=NO_EFFECT | {"rubric"}), file_digest(_rubric_file(settings))]


def open_judge(settings: Settings, *, study: Study, layout: Layout, **_: Any) -> "ServiceJudge":
    """Return the judge, ready to ask; raises UserError when its rubric or its key is missing."""
    from safety_spaces.evaluation.judges.service.asking import ServiceJudge

    place = _place(settings, study)
    budget = Budget(*share(settings, place, layout), setting=f"{place}.budget")
    return ServiceJudge(settings, rubric=read_rubric(settings), cache=layout.judge, budget=budget)


def spent(judges: Iterable[JudgeSettings], study: Study, layout: Layout) -> str:
    """Return what services have cost this process so far, as a line of progress says it; nothing of other judges."""
    services = [judge for judge in judges if isinstance(judge, Settings)]
    ledgers = {share(judge, _place(judge, study), layout)[0] for judge in services}
    return f"{sum(map(spent_in, ledgers)):.2f} US dollars so far" if ledgers else ""


def share(settings: Settings, place: str, layout: Layout) -> tuple[Path, float]:
    """Return the ledger of this process and the dollars that it may count up to.

    Each process may spend an equal share of what launches of another number of processes have left. Judges of one study
    may ask the same model, so a ledger belongs to a place in the study, and to what is asked there.
    """
    ours, name = processes(), re.sub(r"[^\w.-]", "-", settings.name)
    asked = digest([place, settings.base_url, settings.rubric])
    folder = layout.runs / layout.study_name / "judge" / f"{name}-{asked}"
    others = sorted(folder.glob("*-of-*.json"))
    before = sum(spent_in(path) for path in others if not path.stem.endswith(f"-of-{ours.count}"))
    return folder / f"{ours.index}-of-{ours.count}.json", (settings.budget - before) / ours.count


def read_rubric(settings: Settings) -> str:
    """Return the rubric; raises UserError when it is not there, cannot be read, or lacks a placeholder."""
    path = _rubric_file(settings)
    try:
        rubric = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(
            f"{path}: expected the rubric of judge {settings.name} as UTF-8 text ({error}); write it again"
        ) from error
    check_rubric(rubric, source=str(path))
    return rubric


def _rubric_file(settings: Settings) -> Path:
    path = resolve_path(settings.rubric)
    if not path.is_file():
        raise UserError(
            f"judge {settings.name}: expected its rubric at {path}, found none; correct rubric in the study, or write "
            "the file"
        )
    return path


def _place(settings: Settings, study: Study) -> str:
    """The key of the study that a judge stands under: two judges may have the same settings, and each has a budget."""
    places = study.evaluation.judges_by_place if study.evaluation else {}
    return next((place for place, judge in places.items() if judge is settings), "judge")
