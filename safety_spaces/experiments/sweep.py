"""Scores of projected models: weights in place, generation, judgement, one cell after the other (equations 5 and 6).

A cell is found in memory only while it is scored; its answers and its result are on disk before the next one begins.
"""

import itertools
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

import torch
from tqdm import tqdm

from safety_spaces.behaviour.generation import generate
from safety_spaces.behaviour.harmfulness import Answer, Judge, judge_responses
from safety_spaces.behaviour.live import WeightEdit, edited_weights, load_model, load_tokenizer
from safety_spaces.behaviour.utility import UtilityTask, gsm8k_task
from safety_spaces.errors import UserError
from safety_spaces.experiments.cells import NO_SCHEME, Cell, Score
from safety_spaces.experiments.checkpoints import finished_checkpoint
from safety_spaces.experiments.command import Command
from safety_spaces.experiments.device import DTYPES, ready_device
from safety_spaces.experiments.energies import Subspaces
from safety_spaces.experiments.texts import data_path, forbidden_prompts
from safety_spaces.geometry.bases import ordered_basis
from safety_spaces.geometry.checkpoints import open_checkpoint
from safety_spaces.geometry.projection import kept, parallel_parts
from safety_spaces.miniature.rubric import FILE_NAME as RUBRIC_FILE
from safety_spaces.miniature.rubric import RubricJudge
from safety_spaces.store import Cells, write_atomically, writing

Metric = Callable[[], list[Answer]]


def score_cells(command: Command, seed: int, missing: Sequence[Score]) -> None:
    """Score the missing cells of one seed and store each result as soon as it is known.

    Raises:
        UserError: a checkpoint is missing or unlike the others, a prompt file is missing, or the disk is full.
    """
    device = ready_device(command)
    tasks = sorted({score.cell.task for score in missing} - {"base", "reference"})
    subspaces = Subspaces(command, seed, tasks)
    reference = finished_checkpoint(command, "reference", seed)
    model = load_model(reference, device=device, dtype=DTYPES[command.study.projection.weights_dtype])
    metrics = _metrics(command, seed, model, {score.metric for score in missing})
    done = Cells(command.layout.cells(seed))
    with tqdm(total=len(missing), desc=f"scores, seed {seed}", disable=None) as bar:
        for cell, group in itertools.groupby(missing, key=lambda score: score.cell):
            edits = _edits(command, subspaces, cell)
            with edited_weights(model, edits, restore=subspaces.updates.reference.tensor) as delivered:
                for score in group:
                    answers = metrics[score.metric]()
                    _write_responses(command.layout.responses(seed) / f"{score.key}.jsonl", answers)
                    done.put(
                        score.key,
                        {
                            "sources": command.sources,
                            "metric": score.metric,
                            **asdict(cell),
                            "realised_energy": delivered.realised_energy,
                            "realised_cosine": delivered.realised_cosine,
                            "scores": [answer.score for answer in answers],
                        },
                    )
                    bar.update()


def _metrics(command: Command, seed: int, model: object, names: set[str]) -> Mapping[str, Metric]:
    """Prepare what is asked of every cell: everything but the weights."""
    evaluation = command.study.evaluation
    tokenizer = load_tokenizer(finished_checkpoint(command, "reference", seed))
    metrics: dict[str, Metric] = {}
    if "utility" in names:
        settings = evaluation.utility
        task = gsm8k_task(
            test=data_path(command, settings.dataset),
            few_shot=data_path(command, settings.fewshot_dataset),
            number_of_shots=settings.fewshot,
            max_new_tokens=settings.max_new_tokens,
            cache=command.layout.runs / "datasets",
        )
        with writing(command.layout.runs / "datasets"):
            metrics["utility"] = UtilityTask(
                model, tokenizer, task, limit=settings.prompts, batch_size=evaluation.batch_size
            )
    if "harmfulness" in names:
        forbidden, judge = forbidden_prompts(command), find_judge(command)

        def harmfulness() -> list[Answer]:
            responses = generate(
                model,
                tokenizer,
                forbidden.asked,
                max_new_tokens=evaluation.harmfulness.max_new_tokens,
                batch_size=evaluation.batch_size,
            )
            return judge_responses(judge, forbidden.goals, responses)

        metrics["harmfulness"] = harmfulness
    return metrics


JUDGES: Mapping[str, Callable[[Path], Judge]] = {"rubric": lambda corpora: RubricJudge.read(corpora / RUBRIC_FILE)}
"""Name in a study -> judge, given the corpora folder."""


def find_judge(command: Command) -> Judge:
    """Return the judge that the study names.

    Raises:
        UserError: no judge has this name, or its files are missing.
    """
    name = command.study.evaluation.harmfulness.judge.name
    if name not in JUDGES:
        raise UserError(f"evaluation.harmfulness.judge.name: expected one of {', '.join(JUDGES)}, got {name!r}")
    return JUDGES[name](command.layout.corpora)


def _baseline(command: Command, cell: Cell) -> Iterator[WeightEdit]:
    """A checkpoint as it is: its own weights, no update."""
    if cell.task == "reference":
        return
    checkpoint = open_checkpoint(finished_checkpoint(command, cell.task, cell.seed))
    for name in checkpoint.names:
        weights = checkpoint.tensor(name)
        yield WeightEdit(name, weights, torch.zeros_like(weights))


def _edits(command: Command, subspaces: Subspaces, cell: Cell) -> Iterator[WeightEdit]:
    """W_A plus the part of the task update that the cell keeps, one tensor at a time.

    The parallel part is summed over all fractions up to the cell's own, so a cell has the same weights whichever
    others were scored before it; no more directions are read or drawn than the cell keeps.
    """
    if cell.scheme == NO_SCHEME:
        yield from _baseline(command, cell)
        return
    settings, updates = command.study.projection, subspaces.updates
    for name, D in updates.each(updates.names, [cell.task]):
        update, frames = D[cell.task], subspaces.frames(name)
        ks = frames.directions(cell.fractions(settings.fractions), updates.shape(name), rounding=settings.rounding)
        basis = ordered_basis(
            cell.basis,
            frames.of(cell.basis),
            k=ks[-1],
            seed=cell.seed,
            draw=cell.draw or 0,
            name=name,
            device=update.device,
        )
        *_, parallel = parallel_parts(update, basis, ks, vectors=settings.vectors)
        part = kept(update, parallel, cell.scheme, vectors=settings.vectors)
        yield WeightEdit(name, updates.reference.tensor(name), updates.restored(name, part))


def _write_responses(path: Path, answers: Sequence[Answer]) -> None:
    lines = (json.dumps({"prompt": a.prompt, "response": a.response, "score": a.score}) + "\n" for a in answers)
    write_atomically(path, "".join(lines).encode())
