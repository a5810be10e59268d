"""The judge of a study: found by its settings, and what its scores depend on."""

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from safety_spaces.errors import UserError
from safety_spaces.evaluation.metrics.harmfulness import Judge
from safety_spaces.experiments.command import Command
from safety_spaces.miniature.rubric import FILE_NAME as RUBRIC_FILE
from safety_spaces.miniature.rubric import RubricJudge
from safety_spaces.models.roles import folder_identity, given_folder
from safety_spaces.paths import resolve_path
from safety_spaces.processes import processes
from safety_spaces.store import digest, file_digest
from safety_spaces.study import ClassifierJudge, KeywordJudge, ServiceJudge
from safety_spaces.study import Judge as JudgeSettings

NO_EFFECT = {"published_rubric", "concurrency", "retries", "timeout", "unscored_in_a_row", "price", "budget"}
"""Settings of a service that no score depends on."""


def find_judge(command: Command, settings: JudgeSettings) -> Judge:
    """Return a judge of the study, ready to score.

    Raises:
        UserError: its files, its model or its key are missing.
    """
    # Torch and the client take seconds to import, and not every judge needs them.
    match settings:
        case ServiceJudge():
            return _service(command, settings)
        case ClassifierJudge():
            return _classifier(command, settings)
        case KeywordJudge():
            from safety_spaces.evaluation.judges import keywords

            return keywords.KeywordJudge(settings.phrases, settings.name)
    return RubricJudge.read(command.layout.corpora / RUBRIC_FILE)


def judge_key(command: Command, settings: JudgeSettings) -> Any:
    """Return what the scores of a judge depend on, as JSON can hold it.

    Raises:
        UserError: a file that they depend on is missing.
    """
    match settings:
        case ServiceJudge():
            return [
                settings.model_dump(mode="json", exclude=NO_EFFECT | {"rubric"}),
                file_digest(rubric_file(settings)),
            ]
        case ClassifierJudge():
            # Its content in the place of its name: a folder may move, and a name of the hub may get other weights.
            dumped = settings.model_dump(mode="json", exclude={"name", "revision"})
            return [dumped, folder_identity(given_folder(settings.name, settings.revision))]
        case KeywordJudge():
            from safety_spaces.evaluation.judges.keywords import RULE

            return [settings.model_dump(mode="json"), RULE if settings.phrases is None else None]
    right_steps = command.layout.corpora / RUBRIC_FILE
    exact = settings.model_dump(mode="json", exclude={"temperature"})
    return [exact, file_digest(right_steps) if right_steps.is_file() else None]


def _service(command: Command, settings: ServiceJudge) -> Judge:
    from safety_spaces.evaluation.judges import service
    from safety_spaces.evaluation.judges.budget import Budget

    rubric = read_rubric(settings)
    ledger, dollars = _share(command, settings)
    budget = Budget(ledger, dollars, setting=f"{_place(command, settings)}.budget")
    return service.ServiceJudge(settings, rubric=rubric, cache=command.layout.judge, budget=budget)


def _share(command: Command, settings: ServiceJudge) -> tuple[Path, float]:
    """Return the ledger of this process and the dollars that it may count up to.

    Each process may spend an equal share of what launches of another number of processes have left. Judges of one study
    may ask the same model, so a ledger belongs to a place in the study, and to what is asked there.
    """
    from safety_spaces.evaluation.judges.budget import spent_in

    ours, name = processes(), re.sub(r"[^\w.-]", "-", settings.name)
    asked = digest([_place(command, settings), settings.base_url, settings.rubric])
    folder = command.layout.runs / command.study.name / "judge" / f"{name}-{asked}"
    others = sorted(folder.glob("*-of-*.json"))
    before = sum(spent_in(path) for path in others if not path.stem.endswith(f"-of-{ours.count}"))
    return folder / f"{ours.index}-of-{ours.count}.json", (settings.budget - before) / ours.count


def _place(command: Command, settings: ServiceJudge) -> str:
    """Return the key of the study that a judge stands under; two judges may have the same settings."""
    every = command.study.evaluation.judges_by_place
    return next((place for place, judge in every.items() if judge is settings), "judge")


def spent(command: Command, judges: Iterable[JudgeSettings | None]) -> str:
    """Return what services have cost this process so far, as a line of progress says it; nothing of other judges."""
    from safety_spaces.evaluation.judges.budget import spent_in

    ledgers = {_share(command, judge)[0] for judge in judges if isinstance(judge, ServiceJudge)}
    return f"{sum(map(spent_in, ledgers)):.2f} US dollars so far" if ledgers else ""


def rubric_file(settings: ServiceJudge) -> Path:
    """Return the file of a service's rubric.

    Raises:
        UserError: it is not there.
    """
    path = resolve_path(settings.rubric)
    if not path.is_file():
        raise UserError(
            f"judge {settings.name}: expected its rubric at {path}, found none; correct rubric in the study, or write "
            "the file"
        )
    return path


def read_rubric(settings: ServiceJudge) -> str:
    """Return the rubric of a service.

    Raises:
        UserError: it is not there, cannot be read, or lacks a placeholder.
    """
    from safety_spaces.evaluation.judges.question import check_rubric

    path = rubric_file(settings)
    try:
        rubric = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(
            f"{path}: expected the rubric of judge {settings.name} as UTF-8 text ({error}); write it again"
        ) from error
    check_rubric(rubric, source=str(path))
    return rubric


def _classifier(command: Command, settings: ClassifierJudge) -> Judge:
    from safety_spaces.evaluation.judges import classifier
    from safety_spaces.models.device import ready_device

    return classifier.ClassifierJudge(
        given_folder(settings.name, settings.revision),
        name=settings.name,
        harmful_labels=settings.harmful_labels,
        batch_size=settings.batch_size,
        device=ready_device(command.device, threads=command.study.threads),
    )
