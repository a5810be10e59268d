"""Overlap of activations in words: Section 6 of the paper, and its Appendix K."""

from collections.abc import Sequence

from safety_spaces.evidence.findings.activations import ActivationFinding, StatesFinding
from safety_spaces.evidence.sentences.wording import AGREES, DIFFERS, UNDECIDED, every_seed, spread


def activations(found: Sequence[ActivationFinding]) -> str:
    """Section 6, K.3: harmful prompts do not consistently overlap more with one another than with ordinary ones."""
    one = found[0]
    parts = "; ".join(f"{one.checkpoint} {spread(one.harmful_preference)}" for one in found)
    numbers = f"harmful-harmful overlap minus the larger {one.ordinary}-harmful one, {_kind(one)}: {parts}"
    seeds = every_seed(one.harmful_preference.seeds)
    preferring = _preferring(found)
    if preferring == len(found):
        return f"{DIFFERS} Harmful prompts overlap more with one another in every checkpoint, {seeds} ({numbers})."
    if preferring:
        return f"{AGREES} Harmful prompts overlap more with one another in some checkpoints only ({numbers})."
    return f"{AGREES} In no checkpoint do harmful prompts overlap more with one another {seeds} ({numbers})."


def windows(found: Sequence[ActivationFinding]) -> str:
    """K.2: the same in early windows of tokens, all windows and checkpoints in one sentence."""
    preferring, seeds = _preferring(found), every_seed(found[0].harmful_preference.seeds)
    where = f"in {preferring} of {len(found)} windows and checkpoints, {seeds}, {_kind(found[0])}"
    if preferring == len(found):
        return f"{DIFFERS} Harmful prompts overlap more with one another than with useful ones: {where}."
    return f"{AGREES} Harmful prompts do not always overlap more with one another than with useful ones: {where}."


def states(found: Sequence[StatesFinding]) -> str:
    """K.1: the same at every state, where the majority of states decides for a checkpoint."""
    kind = "centred" if found[0].centred else "uncentred"
    parts = "; ".join(f"{one.checkpoint} at {len(one.preferring)} of {one.states}" for one in found)
    numbers = f"states at which they do {every_seed(found[0].seeds)}, {kind}: {parts}"
    majorities = sum(one.is_majority for one in found)
    if majorities == len(found):
        return (
            f"{DIFFERS} At more than half of the states of every checkpoint harmful prompts overlap more with one "
            f"another than with useful ones ({numbers})."
        )
    if majorities:
        return (
            f"{UNDECIDED} Harmful prompts overlap more with one another at more than half of the states of some "
            f"checkpoints ({numbers})."
        )
    return (
        f"{AGREES} In no checkpoint do harmful prompts overlap more with one another at more than half of the states "
        f"({numbers})."
    )


def _kind(found: ActivationFinding) -> str:
    return "centred" if found.centred else "uncentred"


def _preferring(found: Sequence[ActivationFinding]) -> int:
    return sum(one.harmful_preference.direction > 0 for one in found)
