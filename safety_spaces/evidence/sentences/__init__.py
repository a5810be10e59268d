"""The findings in words: each sentence says whether this study agrees with the paper, and with which numbers.

Every wording has its opposite, chosen by the numbers alone, and a third form for a contrast that the study cannot
decide because seeds differ in sign or because it is within the noise.
"""

from safety_spaces.evidence.sentences.activations import activations, states, windows
from safety_spaces.evidence.sentences.appendices import (
    carriage,
    general_ability,
    layerwise,
    over_refusal,
    removal,
)
from safety_spaces.evidence.sentences.experiments import energy, orthogonal, parallel, premises, seeds, updates
from safety_spaces.evidence.sentences.paper import paper_numbers, paper_order
from safety_spaces.evidence.sentences.wording import DIRECTIONS, listed, signed, spread

__all__ = [
    "DIRECTIONS",
    "activations",
    "carriage",
    "energy",
    "general_ability",
    "layerwise",
    "listed",
    "orthogonal",
    "over_refusal",
    "paper_numbers",
    "paper_order",
    "parallel",
    "premises",
    "removal",
    "seeds",
    "signed",
    "spread",
    "states",
    "updates",
    "windows",
]
