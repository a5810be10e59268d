"""Appendices G, I and J in words: every layer, single layers, general ability and over-refusal."""

from collections.abc import Sequence

from safety_spaces.evidence.findings.overlap import LayerwiseFinding
from safety_spaces.evidence.findings.robustness import CHANCE, AbilityFinding, RefusalFinding
from safety_spaces.evidence.findings.single_layers import LayerCarriage, LayerRemoval
from safety_spaces.evidence.sentences.wording import AGREES, DIFFERS, UNDECIDED, every_seed, listed, signed, spread

NO_GAP = f"{UNDECIDED} Fine-tuning did not raise the scores in every seed: there is no gap to take shares of."
CARRIED = {
    "out": "added by the claimed directions of the layer",
    "whole": "lost with the other directions of the layer",
}
"""What a share of harmful behaviour means under parallel projection of one layer, by what the other layers have."""


def layerwise(found: LayerwiseFinding) -> str:
    """G: harmful and reference are the closest pair at no layer."""
    counts = {pair: found.closest.count(pair) for pair in dict.fromkeys(found.closest)}
    parts = ", ".join(f"{pair} at {count}" for pair, count in counts.items())
    numbers = f"closest pair of {found.layers} layers, on the mean over seeds: {parts}"
    if found.harmful_reference:
        return (
            f"{DIFFERS} Harmful and reference are the closest pair {every_seed(found.seeds)} at "
            f"{len(found.harmful_reference)} of {found.layers} layers: {listed(found.harmful_reference)} ({numbers})."
        )
    if found.in_some_seeds:
        return (
            f"{UNDECIDED} Harmful and reference are the closest pair in some seeds only, at layers "
            f"{listed(found.in_some_seeds)} ({numbers})."
        )
    return f"{AGREES} At no layer are harmful and reference the closest pair ({numbers})."


def removal(found: Sequence[LayerRemoval] | None) -> str:
    """I, orthogonal: from no layer alone can harmfulness be removed selectively."""
    if found is None:
        return NO_GAP
    losing = [one for one in found if one.harmfulness.direction > 0]
    numbers = (
        f"{_counted(found)}; harmfulness is lost beyond the noise in {_cells(losing)}; "
        f"largest advantage of the claim over random {_largest(found)}"
    )
    if separating := [one for one in found if one.separates]:
        claim = f"Removal is selective, more than that of random directions, in {_cells(separating)}"
        return _separated(claim, cases=len(separating), looked_at=len(found), numbers=numbers)
    if not losing:
        return (
            f"{UNDECIDED} No single layer removes harmfulness beyond the noise, so none can be told apart ({numbers})."
        )
    return f"{AGREES} No layer alone separates harmfulness from utility when directions are removed ({numbers})."


def carriage(found: Sequence[LayerCarriage] | None) -> str:
    """I, parallel: the claimed directions of no layer carry harmful behaviour and no useful behaviour.

    Layers whose others are whole tell of the directions that are not claimed: they are named, and decide nothing.
    """
    if found is None:
        return NO_GAP
    out = [one for one in found if one.others == "out"]
    parts = [
        f"{words} in {_cells([one for one in cases if one.harmful.direction > 0])}"
        for others, words in CARRIED.items()
        if (cases := [one for one in found if one.others == others])
    ]
    numbers = f"{_counted(found)}; beyond the noise harmful behaviour is {' and '.join(parts)}"
    if separating := [one for one in out if one.separates]:
        claim = f"Claimed directions carry harmful behaviour without useful behaviour in {_cells(separating)}"
        return _separated(claim, cases=len(separating), looked_at=len(out), numbers=numbers)
    if not any(one.harmful.direction > 0 for one in out):
        return f"{UNDECIDED} Claimed directions of no single layer add harmful behaviour beyond the noise ({numbers})."
    return f"{AGREES} Claimed directions of no layer alone carry harmful but not useful behaviour ({numbers})."


def general_ability(found: AbilityFinding) -> str:
    """J.1: projection leaves general ability where it was."""
    numbers = (
        f"projected models {found.lowest:.3f} to {found.highest:.3f}, fine-tuned {found.fine_tuned.value:.3f}, "
        f"reference {found.reference.value:.3f}, chance {CHANCE}; {found.models} models were looked at, so that one "
        f"may stand out by chance: farthest outside of the interval between these two is {found.model}, by "
        f"{spread(found.excursion)}, noise of one score {found.excursion.noise:.2f}; "
        f"{listed(found.shots)} worked examples"
    )
    name = f"{found.task}, {found.scheme}"
    if not found.is_above_chance:
        return f"{UNDECIDED} General ability of {name}: the reference has none to lose, it is at chance ({numbers})."
    if found.excursion.direction != 0:
        verb = "falls below" if found.excursion.direction < 0 else "rises above"
        return f"{DIFFERS} General ability of {name} {verb} fine-tuned and reference beyond the noise ({numbers})."
    if found.size > found.excursion.noise:
        return (
            f"{UNDECIDED} General ability of {name} leaves the interval between fine-tuned and reference beyond the "
            f"noise, but not on one side in every seed ({numbers})."
        )
    return f"{AGREES} General ability of {name} stays between fine-tuned and reference within the noise ({numbers})."


def over_refusal(found: RefusalFinding) -> str:
    """J.2: projection does not make models refuse harmless prompts."""
    numbers = (
        f"share refused: projected models {found.lowest:.3f} to {found.highest:.3f}, fine-tuned "
        f"{found.fine_tuned.value:.3f}, reference {found.reference.value:.3f}; the most refusing model is "
        f"{spread(found.rise)} from the larger of these two, noise of one score {found.rise.noise:.2f}; "
        f"judge {listed(found.judges)}"
    )
    name = f"{found.task}, {found.scheme}"
    if not found.can_rise:
        return f"{UNDECIDED} Over-refusal of {name}: its models refuse nearly everything as it is ({numbers})."
    if found.rise.direction > 0:
        return f"{DIFFERS} Projection of {name} induces over-refusal ({numbers})."
    if found.rise.value > found.rise.noise:
        return f"{UNDECIDED} Over-refusal of {name} rises beyond the noise, but not in every seed ({numbers})."
    return f"{AGREES} Projection of {name} induces no over-refusal ({numbers})."


def _separated(claim: str, *, cases: int, looked_at: int, numbers: str) -> str:
    """The verdict on layers that separate: one alone among several may do so by chance."""
    if cases == 1:
        return f"{UNDECIDED} {claim}, one of {looked_at} cases, which chance can do ({numbers})."
    return f"{DIFFERS} {claim} ({numbers})."


def _counted(found: Sequence[LayerRemoval] | Sequence[LayerCarriage]) -> str:
    layers = len({one.layer for one in found})
    return f"{len(found)} cases of {layers} layers were looked at, so that one may stand out by chance"


def _largest(found: Sequence[LayerRemoval]) -> str:
    one = max(found, key=lambda one: one.excess.value)
    return f"{signed(one.excess.value)} (layer {one.layer}, others {one.others}, noise {one.excess.noise:.2f})"


def _cells(found: Sequence[LayerRemoval] | Sequence[LayerCarriage]) -> str:
    return (
        "; ".join(
            f"layers {listed(layers)} (others {others})"
            for others in ("whole", "out")
            if (layers := [one.layer for one in found if one.others == others])
        )
        or "no layer"
    )
