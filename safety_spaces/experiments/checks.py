"""What a study names outside of itself, looked at before hours of work and not after them. Reads no weights."""

import difflib
import logging
from collections.abc import Iterator
from functools import partial

from safety_spaces.data.table import data_sets
from safety_spaces.data.texts import Texts
from safety_spaces.errors import UserError
from safety_spaces.evaluation.judges.service import read_rubric
from safety_spaces.evaluation.metrics import every_metric
from safety_spaces.evaluation.metrics.general_ability import COLUMNS
from safety_spaces.evaluation.prompt_sets import Use, reads_of_sets
from safety_spaces.experiments.projection.cells import check_layers
from safety_spaces.models.folders import is_checkpoint, special_tokens
from safety_spaces.models.roles import Roles, check_weights
from safety_spaces.study.fields import known_names

logger = logging.getLogger(__name__)


def check_inputs(roles: Roles, texts: Texts) -> None:
    """Check the layers, the user's own checkpoints and data sets, and what the judges need.

    Raises UserError when the model lacks a layer that is named, a checkpoint is quantised, its generation_config.json
    or a data set cannot be read, a data set is not in the table or lacks a column, or there is no such rubric.
    """
    study, shape = roles.study, roles.architecture
    if shape is not None:
        check_layers(study, range(shape.layers))
    for role in study.given_roles:
        if is_checkpoint(folder := roles.folder(role, study.seeds[0])):
            special_tokens(folder)
            check_weights(folder.resolve())
    _check_data_sets(texts)
    for judge in study.services:
        read_rubric(judge)


def data_uses(texts: Texts) -> Iterator[Use]:
    """Yield everything that a study reads: what trains a role, the prompt sets, what the metrics ask."""
    study = texts.study
    for name, corpus in texts.trained_corpora().items():
        yield Use(corpus.dataset, corpus.where, partial(texts.drawn, name, study.seeds[0]))
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
