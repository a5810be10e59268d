"""What a study names outside of itself, looked at before hours of work and not after them. Reads no weights."""

import difflib
import logging
import os
from collections.abc import Collection, Iterator
from functools import partial

from safety_spaces.data.table import data_sets
from safety_spaces.data.texts import Texts
from safety_spaces.errors import UserError
from safety_spaces.evaluation.gold_answers import COLUMNS
from safety_spaces.evaluation.judges import judge_key
from safety_spaces.evaluation.judges.service import read_rubric
from safety_spaces.evaluation.metrics import every_metric
from safety_spaces.evaluation.prompt_sets import Use, reads_of_sets
from safety_spaces.experiments.projection.cells import baseline_metrics
from safety_spaces.models.folders import is_checkpoint, special_tokens
from safety_spaces.models.roles import Roles, check_weights
from safety_spaces.models.sizes import base_architecture
from safety_spaces.processes import processes
from safety_spaces.study import KEY_VARIABLE, ServiceJudge, Study
from safety_spaces.study.fields import known_names

logger = logging.getLogger(__name__)


def check_inputs(roles: Roles, texts: Texts) -> None:
    """Check the layers, the user's own checkpoints and data sets, and what the judges need.

    Raises UserError when the model lacks a layer that is named, a checkpoint is quantised, its generation_config.json
    or a data set cannot be read, a data set is not in the table or lacks a column, or there is no such rubric.
    """
    study, shape = roles.study, base_architecture(roles)
    if shape is not None:
        check_layers(study, range(shape.layers))
    for role in study.given_roles:
        folder = roles.folder(role, study.seeds[0])
        if is_checkpoint(folder):
            special_tokens(folder)
            check_weights(folder.resolve())
    _check_data_sets(texts)
    for judge in study.services:
        read_rubric(judge)


def data_uses(texts: Texts) -> Iterator[Use]:
    """Yield everything that a study reads: what trains a role, the prompt sets, what the metrics ask."""
    study = texts.study
    for name, corpus in texts.trained_corpora().items():
        yield Use(corpus.dataset, corpus.where, partial(texts.drawn, name))
    if study.activation_spaces is not None:
        yield from reads_of_sets(texts, study.activation_spaces)
    if study.evaluation is not None:
        for metric in every_metric(texts, study.evaluation).values():
            yield from metric.reads()


def _check_data_sets(texts: Texts) -> None:
    """Check every name of a data set and of a column, and read the user's own sets as the work will."""
    own, uses = texts.study.datasets, list(data_uses(texts))
    known: dict[str, set[str]] = {}
    for use in uses:
        data_set = texts.data_set(use.dataset)
        others = () if use.dataset in data_sets() else (*COLUMNS, "subject")
        known.setdefault(use.dataset, set()).update(data_set.columns, data_set.aliases, use.where, others)
    for name, settings in own.items():
        if name not in (names := {*known, *data_sets()}) and (near := difflib.get_close_matches(name, names, n=1)):
            raise UserError(f"datasets.{name}: nothing in the study reads it; did you mean {near[0]}?")
        for column in settings.columns:
            if column not in known.get(name, settings.columns):
                raise UserError(f"datasets.{name}.columns: {column} is not read; {known_names(column, known[name])}")
        if name not in known:
            texts.rows(name, ())
    for use in uses:
        if use.dataset in own:
            use.read()


def check_layers(study: Study, known: Collection[int]) -> None:
    """Check that every layer that is projected alone is one of the model: of another one no tensor would be found.

    Raises UserError when one is not.
    """
    for scored in study.projection.scored:
        if unknown := sorted(set(scored.layers or ()) - set(known)):
            raise UserError(
                f"projection.scored: expected layers from 0 to {max(known)}, got {unknown[0]}; correct layers"
            )


def check_asked(texts: Texts) -> None:
    """Read what models will be asked, and find the files of the judges; warn where a key is missing.

    Raises UserError when a data set or a judge is not there.
    """
    assert texts.study.evaluation is not None
    metrics = every_metric(texts, texts.study.evaluation)
    for name in baseline_metrics(texts.study):
        metrics[name].key()
        judge = metrics[name].judge
        if judge is None:
            continue
        judge_key(judge, texts.layout)
        keyless = isinstance(judge, ServiceJudge) and judge.base_url is None and not os.environ.get(KEY_VARIABLE)
        if keyless and processes().is_first:
            logger.warning("warning: no %s: answers will be generated, and not judged", KEY_VARIABLE)
