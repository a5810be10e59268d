"""Mode Subspace Overlap of hidden states (equations 8 to 11): one forward pass a prompt set, then all pairs and layers.

The states stay in files, one for each prompt set and position, so another position or prompt set reads no text twice.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from itertools import combinations, takewhile
from pathlib import Path
from typing import Any

import numpy as np
import torch

from safety_spaces.errors import UserError, warn_once
from safety_spaces.evaluation.generation import Tokens, generate_tokens, prompt_tokens
from safety_spaces.evaluation.states import write_states
from safety_spaces.experiments.state_keys import ANSWERS, Prompts, answer_tokens, state_file
from safety_spaces.geometry.moments import moment_factors, state_moments
from safety_spaces.geometry.overlap import mso_curve
from safety_spaces.models.loading import live_model, role_tokenizer
from safety_spaces.models.roles import Roles
from safety_spaces.progress import progress
from safety_spaces.store import Cells
from safety_spaces.study import ActivationSpaces, Evaluation, Position


def collect_states(
    roles: Roles,
    evaluation: Evaluation,
    seed: int,
    role: str,
    prompts: Prompts,
    *,
    folders: Mapping[str, Path],
    positions: Sequence[Position],
    device: torch.device,
) -> dict[Position, dict[str, Path]]:
    """Return the files of one checkpoint's states by position and prompt set; those that are missing are written first.

    Each prompt set is generated from at most once and passes the model once for all of its missing positions. Raises
    UserError when the checkpoint is missing, or a prompt set has no token at a position.
    """
    files = {one: {name: state_file(folder, one) for name, folder in folders.items()} for one in positions}
    missing = {
        name: {one: paths[name] for one, paths in files.items() if not paths[name].is_file()} for name in folders
    }
    if not any(missing.values()):
        return files
    model, tokenizer = live_model(roles, role, seed, device=device), role_tokenizer(roles, role, seed)
    new_tokens = answer_tokens(roles.study)
    for name, paths in progress(missing.items(), desc=f"states of {role}, seed {seed}"):
        if paths:
            texts = _texts(model, tokenizer, prompts[name], folders[name], evaluation, new_tokens)
            _check_template(name, texts, positions)
            write_states(paths, model, tokenizer, texts, batch_size=evaluation.batch_size, name=name)
    return files


def _texts(
    model: Any, tokenizer: Any, prompts: list[str], folder: Path, evaluation: Evaluation, new_tokens: int | None
) -> list[Tokens]:
    """Return the tokens of prompts, and of their answers where the study reads these; they are generated once."""
    asked = prompt_tokens(tokenizer, prompts)
    if new_tokens is None:
        return [Tokens(tokens, []) for tokens in asked]
    kept = Cells(folder)
    found = kept.get(ANSWERS)
    if found is not None:
        return [Tokens(*pair) for pair in zip(asked, found[ANSWERS], strict=True)]
    size, engine = evaluation.batch_size, evaluation.generation.engine
    texts = generate_tokens(model, tokenizer, prompts, max_new_tokens=new_tokens, batch_size=size, engine=engine)
    kept.put(ANSWERS, {ANSWERS: [text.answer for text in texts]})
    return texts


def _check_template(name: str, texts: Sequence[Tokens], positions: Sequence[Position]) -> None:
    """Warn of windows on tokens that are the same in all prompts: what they overlap in is the template.

    Raises UserError when a window has no other tokens, so that its states do not vary.
    """
    columns = zip(*(text.prompt for text in texts), strict=False)
    shared = sum(1 for _ in takewhile(lambda tokens: len(set(tokens)) == 1, columns))
    for position in positions if len(texts) > 1 else ():
        if (window := position.prompt_window) is None:
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


def state_overlaps(
    settings: ActivationSpaces, position: Position, states: Mapping[str, Path], *, device: torch.device
) -> list[dict[str, Any]]:
    """Return the rows of activation_spaces.csv of one checkpoint and position, from the files of its prompt sets.

    Moments and factors of a set's layer serve all pairs and energy levels. A set with one state has no spread: its
    centred overlaps are empty.
    """
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
                rows += [{**place, "eta": eta, **asdict(overlap)} for eta, overlap in curve.items()]
    return rows
