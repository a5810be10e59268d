"""States of a trainer from which a killed training goes on: weights, optimiser, schedule and random numbers.

The trainer writes a folder file by file, so one that a kill cut short looks much like a whole one. A state counts once
its mark is there: written last, after every process has written its part, and holding the digest of what is trained.
"""

import shutil
from pathlib import Path
from typing import Any

from accelerate import PartialState
from transformers import TrainerCallback
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR

from safety_spaces.store import write_atomically

MARK = "whole"


def last_state(folder: Path, recipe: str) -> Path | None:
    """Return the newest whole state of a recipe, None where there is none; every other one is deleted."""
    states = sorted(folder.glob(f"{PREFIX_CHECKPOINT_DIR}-*"), key=lambda state: int(state.name.rsplit("-", 1)[1]))
    whole = [state for state in states if (mark := state / MARK).is_file() and mark.read_text() == recipe]
    for state in states:
        if state not in whole[-1:]:
            _drop(state)
    return whole[-1] if whole else None


def drop_states(folder: Path) -> None:
    """Delete a folder of states, if it is there."""
    for state in folder.glob(f"{PREFIX_CHECKPOINT_DIR}-*"):
        _drop(state)
    shutil.rmtree(folder, ignore_errors=True)


class KeepLast(TrainerCallback):  # type: ignore[misc]
    """Mark every state that is written, and delete those before it only then: one whole state is always there."""

    def __init__(self, folder: Path, recipe: str) -> None:
        self._folder, self._recipe = folder, recipe

    def on_save(self, _arguments: Any, state: Any, _control: Any, **_: Any) -> None:
        """Mark the state that was just written."""
        processes = PartialState()
        processes.wait_for_everyone()
        if processes.is_main_process:
            newest = self._folder / f"{PREFIX_CHECKPOINT_DIR}-{state.global_step}"
            write_atomically(newest / MARK, self._recipe.encode())
            last_state(self._folder, self._recipe)


def _drop(state: Path) -> None:
    # The mark first: what is left by a kill in between counts for nothing.
    (state / MARK).unlink(missing_ok=True)
    shutil.rmtree(state, ignore_errors=True)
