"""What a study names outside of itself, looked at before hours of work and not after them. Reads no weights."""

import difflib
import logging
import os
from collections.abc import Collection

from safety_spaces.data.answers import COLUMNS
from safety_spaces.errors import UserError
from safety_spaces.evaluation.gold_answers import COLUMNS
from safety_spaces.experiments.cells import asked, baseline_metrics
from safety_spaces.experiments.command import Command
from safety_spaces.experiments.judges import judge_key, read_rubric
from safety_spaces.experiments.questions import data_uses
from safety_spaces.models.folders import is_checkpoint, special_tokens
from safety_spaces.models.roles import check_weights
from safety_spaces.models.sizes import base_architecture
from safety_spaces.processes import processes
from safety_spaces.study import KEY_VARIABLE, Existing, ServiceJudge, Study
from safety_spaces.study.fields import known_names

logger = logging.getLogger(__name__)


def check_inputs(command: Command) -> None:
    """Check the layers, the user's own checkpoints and data sets, and what the judges need.

    Raises:
        UserError: the model lacks a layer that is named, a checkpoint is quantised, its generation_config.json or a
            data set cannot be read, a data set is not in the table or lacks a column, or there is no such rubric.
    """
    study, shape = command.study, base_architecture(command.roles)
    if shape is not None:
        check_layers(study, range(shape.layers))
    for role, recipe in study.roles.items():
        folder = command.roles.folder(role, study.seeds[0])
        if isinstance(recipe, Existing) and is_checkpoint(folder):
            special_tokens(folder)
            check_weights(folder.resolve())
    _check_data_sets(command)
    for judge in study.services:
        read_rubric(judge)


def _check_data_sets(command: Command) -> None:
    """Check every name of a data set and of a column, and read the user's own sets as the work will."""
    own, uses = command.study.datasets, list(data_uses(command))
    known: dict[str, set[str]] = {}
    for name, where, _ in uses:
        data_set = command.texts.data_set(name)
        others = () if name in data_sets() else (*COLUMNS, "subject")
        known.setdefault(name, set()).update(data_set.columns, data_set.aliases, where, others)
    for name, settings in own.items():
        if name not in (names := {*known, *data_sets()}) and (near := difflib.get_close_matches(name, names, n=1)):
            raise UserError(f"datasets.{name}: nothing in the study reads it; did you mean {near[0]}?")
        for column in settings.columns:
            if column not in known.get(name, settings.columns):
                raise UserError(f"datasets.{name}.columns: {column} is not read; {known_names(column, known[name])}")
        if name not in known:
            command.texts.rows(name, ())
    for name, _, read in uses:
        if name in own:
            read()


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
