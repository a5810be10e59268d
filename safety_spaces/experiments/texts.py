"""The texts of a study: its data sets, the small world that writes them, and which rows train a role."""

from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

from safety_spaces.data.datasets import read_rows, source_of
from safety_spaces.data.selection import (
    draw_rows,
    mix,
    preference_rows,
    training_rows,
    unique_prompts,
    without_prompts,
)
from safety_spaces.data.table import DataSet, Row, find_data_set
from safety_spaces.data.templates import CHAT, Template, find_template
from safety_spaces.errors import UserError
from safety_spaces.experiments.command import Command
from safety_spaces.miniature.corpora import write_corpora
from safety_spaces.miniature.rubric import FILE_NAME as RUBRIC_FILE
from safety_spaces.paths import ROOT, resolve_path
from safety_spaces.store import Cells, digest, file_digest, file_digests
from safety_spaces.study import Existing, MixedCorpus, SingleCorpus

SETS_IN_MEMORY = 4
WORLD_MARK = "world"


def prepare_corpora(command: Command) -> dict[str, int]:
    """Write the corpora of a miniature once; return the number of rows of each. A study of real data has none.

    They are written again when the world's settings or its code have changed, or a file is missing or was edited.
    """
    study, folder = command.study, command.layout.corpora
    if study.world is None:
        return {}
    code = [file_digest(path) for path in sorted((ROOT / "safety_spaces" / "miniature").glob("*.py"))]
    world = digest([study.world.model_dump(), study.training.template, code])
    # Written last: as long as it is missing the corpora are taken for unfinished.
    mark = Cells(folder)
    done = mark.get(WORLD_MARK)
    if done is None or done["world"] != world or done["files"] != _written(folder):
        rows = write_corpora(folder, seed=study.world.seed, sizes=study.world.sizes, template=study.training.template)
        done = {"world": world, "rows": rows, "files": _written(folder)}
        mark.put(WORLD_MARK, done)
    return {str(name): int(count) for name, count in done["rows"].items()}


def _written(folder: Path) -> dict[str, str]:
    return file_digests([*folder.glob("*.jsonl"), folder / RUBRIC_FILE])


def data_path(command: Command, name: str) -> Path | None:
    """Return the file or folder of a data set: the study's own, the one its world wrote, or None for the hub's."""
    own = command.study.datasets.get(name)
    if own is not None:
        return resolve_path(own.path)
    return None if command.study.world is None else command.layout.corpora / f"{name}.jsonl"


def data_set_of(command: Command, name: str) -> DataSet:
    """Return a data set of the table, or one that the study names a file for.

    Raises:
        UserError: it is neither.
    """
    return find_data_set(name, own=command.study.datasets)


def role_rows(command: Command, role: str) -> list[dict[str, str]]:
    """Return the rows that a role is trained on, templates applied, in an order that does not depend on the seed.

    Raises:
        UserError: a data set is missing, unlike its table entry, or has too few rows.
    """
    recipe = command.study.roles[role]
    template = named_template(command, command.study.training_of(role).template)
    as_rows = preference_rows if recipe.method == "dpo" else training_rows  # type: ignore[union-attr]
    return _corpus_rows(command, recipe.corpus, partial(as_rows, template=template))  # type: ignore[union-attr]


def _corpus_rows(
    command: Command, name: str, as_rows: Callable[[list[Row], DataSet], list[dict[str, str]]]
) -> list[dict[str, str]]:
    corpus = command.study.corpora[name]
    if isinstance(corpus, MixedCorpus):
        useful, harmful = (_corpus_rows(command, part, as_rows) for part in (corpus.useful, corpus.harmful))
        return mix(useful, harmful, mixing=corpus.mixing, harmful_share=corpus.harmful_share)
    return as_rows(drawn_rows(command, name), data_set_of(command, corpus.dataset))


def drawn_rows(command: Command, name: str) -> list[Row]:
    """Draw a corpus of one data set; prompts of the corpus that it is to be disjoint from are left out before.

    Raises:
        UserError: the data set is missing, unlike its table entry, or has too few rows.
    """
    corpus = command.study.corpora[name]
    assert isinstance(corpus, SingleCorpus)
    data_set = data_set_of(command, corpus.dataset)
    rows = data_rows(command, corpus.dataset, data_set.trained, corpus.where)
    if corpus.disjoint_from is not None:
        other = data_set_of(command, command.study.corpora[corpus.disjoint_from].dataset)  # type: ignore[union-attr]
        rows = without_prompts(rows, data_set, unique_prompts(drawn_rows(command, corpus.disjoint_from), other))
    return draw_rows(rows, corpus.rows, seed=corpus.seed, name=name)


def trained_corpora(command: Command) -> dict[str, SingleCorpus]:
    """Return the corpora of one data set that a role is trained on, alone or in a mixture."""
    corpora = command.study.corpora
    trained = {recipe.corpus for recipe in command.study.roles.values() if not isinstance(recipe, Existing)}
    mixed = [corpus for name in trained if isinstance(corpus := corpora[name], MixedCorpus)]
    names = sorted(trained.union(*((corpus.useful, corpus.harmful) for corpus in mixed)))
    return {name: corpus for name in names if isinstance(corpus := corpora[name], SingleCorpus)}


def corpus_facts(command: Command) -> dict[str, dict[str, Any]]:
    """Return what run.json says of every corpus that a role is trained on: its source, rows, prompts and digest.

    Raises:
        UserError: a data set is missing, unlike its table entry, or has too few rows.
    """
    facts = {}
    for name, corpus in trained_corpora(command).items():
        rows = drawn_rows(command, name)
        facts[name] = {
            "source": source_of(data_path(command, corpus.dataset), corpus.dataset),
            "rows": len(rows),
            "unique_prompts": len(unique_prompts(rows, data_set_of(command, corpus.dataset))),
            "seed": corpus.seed,
            "digest": digest(rows),
        }
    return facts


def data_rows(command: Command, name: str, columns: Sequence[str], where: Mapping[str, Any] | None = None) -> list[Row]:
    """Return `columns` of the rows of a data set whose columns have the values in `where`; read once a process.

    Raises:
        UserError: the data set is missing or unlike its table entry.
    """
    path, own = data_path(command, name), command.study.datasets.get(name)
    if command.study.world is not None and own is None and not (path and path.is_file()):
        raise UserError(
            f"{path}: expected a corpus of the small world, found none; run bash scripts/finetune.sh "
            f"{command.study_path}"
        )
    # Its age too: within one process a small world may be written anew.
    age = path.stat().st_mtime_ns if path is not None and path.exists() else None
    names = None if own is None else tuple(own.columns.items())
    return list(_read_once(path, name, tuple(columns), tuple((where or {}).items()), names, age))


@lru_cache(maxsize=SETS_IN_MEMORY)
def _read_once(
    path: Path | None,
    name: str,
    columns: tuple[str, ...],
    where: tuple[tuple[str, Any], ...],
    names: tuple[tuple[str, str], ...] | None,
    _: int | None,
) -> list[Row]:
    """Rows of a data set; every role and seed asks for them again, and they may be 400 MB."""
    own = None if names is None else dict(names)
    return read_rows(path, name, columns=columns, where=dict(where), names=own)


def named_template(command: Command, name: str) -> Template:
    """Return a template; chat is that of the model that the reference is, or is trained from.

    Raises:
        UserError: no template has this name, or the model has no chat template.
    """
    if name != CHAT:
        return find_template(name)
    # Costs the import of torch, so only where it is needed.
    from safety_spaces.experiments.models import role_tokenizer

    oldest = command.study.lineage("reference")[0]
    return find_template(name, role_tokenizer(command, oldest, command.study.seeds[0]))
