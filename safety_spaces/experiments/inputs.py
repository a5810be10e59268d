"""What a study names outside of itself, looked at before hours of work and not after them. Reads no weights."""

import logging
import os
from collections.abc import Collection

from safety_spaces.data.table import find_data_set
from safety_spaces.data.templates import CHAT, find_template
from safety_spaces.errors import UserError
from safety_spaces.experiments.cells import asked, baseline_metrics
from safety_spaces.experiments.command import Command
from safety_spaces.experiments.judges import judge_key, rubric_file
from safety_spaces.experiments.processes import processes
from safety_spaces.experiments.sizes import base_architecture
from safety_spaces.experiments.texts import data_rows
from safety_spaces.study import KEY_VARIABLE, ServiceJudge, Study

logger = logging.getLogger(__name__)


def check_inputs(command: Command) -> None:
    """Check the layers, the template, the user's own data sets and what the judges need.

    Raises:
        UserError: the model lacks a layer that is named, a data set is not in the table, cannot be read or lacks a
            column, there is no such template or rubric, or a service's address is none.
    """
    study, shape = command.study, base_architecture(command)
    if shape is not None:
        check_layers(study, range(shape.layers))
    if study.training.template != CHAT:
        find_template(study.training.template)
    for name in study.datasets:
        find_data_set(name)
        data_rows(command, name)
    for judge in study.questioning.judges if study.questioning else ():
        if isinstance(judge, ServiceJudge):
            _check_service(judge)


def check_layers(study: Study, known: Collection[int]) -> None:
    """Check that every layer that is projected alone is one of the model: of another one no tensor would be found.

    Raises:
        UserError: one is not.
    """
    for scored in study.projection.scored:
        if unknown := sorted(set(scored.layers or ()) - set(known)):
            raise UserError(
                f"projection.scored: expected layers from 0 to {max(known)}, got {unknown[0]}; correct layers"
            )


def _check_service(judge: ServiceJudge) -> None:
    rubric_file(judge)
    if judge.base_url is not None and not judge.base_url.startswith(("http://", "https://")):
        raise UserError(f"judge {judge.name}: expected a base_url with http:// or https://, got {judge.base_url}")


def check_asked(command: Command) -> None:
    """Read what models will be asked, and find the files of the judges; warn where a key is missing.

    Raises:
        UserError: a data set or a judge is not there.
    """
    evaluation = command.study.evaluation
    for metric in baseline_metrics(command.study):
        asked(command, metric)
        judge = evaluation.judge_of(metric)
        if judge is None:
            continue
        judge_key(command, judge)
        keyless = isinstance(judge, ServiceJudge) and judge.base_url is None and not os.environ.get(KEY_VARIABLE)
        if keyless and processes().is_first:
            logger.warning("warning: no %s: answers will be generated, and not judged", KEY_VARIABLE)
