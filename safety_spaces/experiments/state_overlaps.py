"""Mode Subspace Overlap of hidden states (equations 8 to 11): one forward pass a prompt set, then all pairs and layers.

The states stay in files, one for each prompt set and position, so another position or prompt set reads no text twice.
"""

from collections.abc import Mapping, Sequence
from itertools import combinations, takewhile
from pathlib import Path
from typing import Any

import numpy as np

from safety_spaces.errors import UserError, warn_once
from safety_spaces.evaluation.generation import generate_tokens, prompt_tokens
from safety_spaces.evaluation.positions import Tokens
from safety_spaces.evaluation.states import write_states
from safety_spaces.experiments.activation_spaces import ANSWERS, answer_tokens
from safety_spaces.experiments.command import Command
from safety_spaces.experiments.overlaps import overlap_columns
from safety_spaces.geometry.moments import moment_factors, state_moments
from safety_spaces.geometry.overlap import mso_curve
from safety_spaces.models.device import ready_device
from safety_spaces.models.loading import live_model, role_tokenizer
from safety_spaces.progress import progress
from safety_spaces.store import Cells
from safety_spaces.study import Position


def collect_states(
    command: Command,
    seed: int,
    role: str,
    prompts: Mapping[str, list[str]],
    *,
    folders: Mapping[str, Path],
    positions: Sequence[Position],
) -> dict[Position, dict[str, Path]]:
    """Return the files of one checkpoint's states by position and prompt set; those that are missing are written first.

    Each prompt set is generated from at most once and passes the model once for all of its missing positions.

    Raises:
        UserError: the checkpoint is missing, or a prompt set has no token at a position.
    """
    files = {
        position: {name: folder / f"{position.name}.npy" for name, folder in folders.items()} for position in positions
    }
    missing = {
        name: found
        for name in folders
        if (found := {position: paths[name] for position, paths in files.items() if not paths[name].is_file()})
    }
    if not missing:
        return files
    model, tokenizer = (
        live_model(command.roles, role, seed, device=ready_device(command.device, threads=command.study.threads)),
        role_tokenizer(command.roles, role, seed),
    )
    for name, paths in progress(missing.items(), desc=f"states of {role}, seed {seed}"):
        texts = _texts(command, model, tokenizer, prompts[name], folders[name])
        _check_template(name, texts, positions)
        write_states(paths, model, tokenizer, texts, batch_size=command.study.evaluation.batch_size, name=name)
    return files


def _texts(command: Command, model: Any, tokenizer: Any, prompts: list[str], folder: Path) -> list[Tokens]:
    """Return the tokens of prompts, and of their answers where the study reads these; they are generated once."""
    new_tokens, evaluation = answer_tokens(command.study), command.study.evaluation
    asked = prompt_tokens(tokenizer, prompts)
    if new_tokens is None:
        return [Tokens(tokens, []) for tokens in asked]
    kept = Cells(folder)
    found = kept.get(ANSWERS)
    if found is not None:
        return [Tokens(*pair) for pair in zip(asked, found[ANSWERS], strict=True)]
    texts = generate_tokens(
        model,
        tokenizer,
        prompts,
        max_new_tokens=new_tokens,
        batch_size=evaluation.batch_size,
        engine=evaluation.generation.engine,
    )
    kept.put(ANSWERS, {ANSWERS: [text.answer for text in texts]})
    return texts


def _check_template(name: str, texts: Sequence[Tokens], positions: Sequence[Position]) -> None:
    """Warn of windows on tokens that are the same in all prompts: what they overlap in is the template.

    Raises:
        UserError: a window has no other tokens, so that its states do not vary.
    """
    columns = zip(*(text.prompt for text in texts), strict=False)
    shared = sum(1 for _ in takewhile(lambda tokens: len(set(tokens)) == 1, columns))
    for position in positions if len(texts) > 1 else ():
        window = position.prompt_window
        if not window:
            continue
        if window.stop <= shared:
            raise UserError(
                f"activation_spaces.positions: expected a window beyond the {shared} tokens that all prompts of {name} "
                f"begin with, got stop: {window.stop}; raise it"
            )
        if window.start < shared:
            warn_once(
                f"{name}: the first {shared} tokens are the same in all prompts; {position.name} reads some "
                "of them, whose states do not vary"
            )


def state_overlaps(command: Command, position: Position, states: Mapping[str, Path]) -> list[dict[str, Any]]:
    """Return the rows of activation_spaces.csv of one checkpoint and position, from the files of its prompt sets.

    Moments and factors of a set's layer serve all pairs and energy levels. A set with one state has no spread: its
    centred overlaps are empty.
    """
    settings, device = command.study.activation_spaces, ready_device(command.device, threads=command.study.threads)
    number_of_states = np.load(next(iter(states.values())), mmap_mode="r").shape[1]
    rows = []
    for index in progress(range(number_of_states), desc=position.name, inner=True):
        moments = {name: state_moments(path, index, device=device) for name, path in states.items()}
        for centred in (False, True):
            factors = {name: moment_factors(moment, centred=centred) for name, moment in moments.items()}
            for first, second in combinations(settings.sets, 2):
                place = {
                    "pair": f"{first}-{second}",
                    "layer": index,
                    "depth": index / (number_of_states - 1),
                    **position.table_columns,
                    "centred": centred,
                    "n_first": moments[first].n,
                    "n_second": moments[second].n,
                }
                curve = mso_curve(factors[first], factors[second], settings.etas)
                rows += [{**place, **overlap_columns(overlap)} for overlap in curve]
    return rows
