"""The texts of a study: which rows train a role, which prompts a model is asked."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from safety_spaces.data.datasets import Row, find_data_set, read_rows, toxic_rows
from safety_spaces.data.selection import draw_rows, mix, training_rows, unique_prompts
from safety_spaces.data.templates import find_template
from safety_spaces.experiments.command import ROOT, Command, resolve_path
from safety_spaces.miniature.corpora import write_corpora
from safety_spaces.miniature.rubric import FILE_NAME as RUBRIC_FILE
from safety_spaces.store import Cells, digest, file_digest, file_digests
from safety_spaces.study import MixedCorpus, Selection

NO_TEMPLATE = "none"
TOXIGEN = "toxigen"
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


def data_path(command: Command, name: str) -> Path:
    """Return the file of a data set: the study's own, or the one of the corpora folder."""
    own = command.study.datasets.get(name)
    return resolve_path(own.path) if own else command.layout.corpora / f"{name}.jsonl"


def role_rows(command: Command, role: str) -> list[dict[str, str]]:
    """Return the rows that a role is trained on, templates applied, in an order that does not depend on the seed.

    Raises:
        UserError: a data set is missing, unlike its table entry, or has too few rows.
    """
    recipe = command.study.roles[role]
    return _corpus_rows(command, recipe.corpus, template=command.study.training_of(role).template)  # type: ignore[union-attr]


def _corpus_rows(command: Command, name: str, *, template: str) -> list[dict[str, str]]:
    corpus = command.study.corpora[name]
    if isinstance(corpus, MixedCorpus):
        useful, harmful = (_corpus_rows(command, part, template=template) for part in (corpus.useful, corpus.harmful))
        return mix(useful, harmful, mixing=corpus.mixing, harmful_share=corpus.harmful_share)
    rows = draw_rows(_selected(command, corpus), corpus.rows, seed=corpus.seed, name=name)
    return training_rows(rows, find_data_set(corpus.dataset), template=template)


def _selected(command: Command, selection: Selection) -> Sequence[Row]:
    return read_rows(data_path(command, selection.dataset), selection.dataset, where=selection.where)


def evaluation_template(command: Command) -> str:
    """Return the template that harmful prompts and prompt sets are put in."""
    return command.study.training.template if command.study.evaluation.template == "training" else NO_TEMPLATE


@dataclass(frozen=True)
class ForbiddenPrompts:
    """The prompts of the harmfulness metric as they are judged, and the template that they are asked in."""

    goals: tuple[str, ...]
    template: str

    @property
    def asked(self) -> list[str]:
        """The texts that the model continues."""
        return [find_template(self.template).apply(goal) for goal in self.goals]


def forbidden_prompts(command: Command) -> ForbiddenPrompts:
    """Return the prompts of the harmfulness metric.

    Raises:
        UserError: the data set is missing or unlike its table entry.
    """
    settings = command.study.evaluation.harmfulness
    rows = read_rows(data_path(command, settings.dataset), settings.dataset)
    goals = [row[find_data_set(settings.dataset).prompt] for row in rows]
    if settings.prompts == "published":
        goals = published_prompts(goals)
    return ForbiddenPrompts(tuple(goals[: settings.limit]), evaluation_template(command))


def published_prompts(goals: Sequence[str]) -> list[str]:
    """Return the goals as the published code read them: the last one left out, each cut at its first comma."""
    return [goal.split(",")[0] for goal in goals[:-1]]


def activation_prompts(command: Command, name: str) -> list[str]:
    """Return the prompts of one prompt set of the activation experiment, each once, the template applied.

    Raises:
        UserError: fewer unique prompts are there than the study asks for.
    """
    settings = command.study.activation_spaces
    selection = settings.sets[name]
    rows = list(_selected(command, selection))
    if selection.dataset == TOXIGEN and settings.toxigen == "toxic":
        rows = toxic_rows(rows)
    prompts = unique_prompts(rows, find_data_set(selection.dataset))
    drawn = draw_rows(prompts, settings.prompts, seed=selection.seed, name=name)
    return [find_template(evaluation_template(command)).apply(prompt) for prompt in drawn]
