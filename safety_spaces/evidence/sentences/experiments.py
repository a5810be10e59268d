"""Experiments 2 and 3 in words: what the projections and the overlap of updates say about the paper's claims."""

from collections.abc import Sequence

from safety_spaces.evidence.findings.overlap import SAFETY_PAIR, UpdateFinding
from safety_spaces.evidence.findings.premises import Premises
from safety_spaces.evidence.findings.projection import EnergyFinding, OrthogonalFinding, ParallelFinding
from safety_spaces.evidence.sentences.wording import AGREES, DIFFERS, DIRECTIONS, UNDECIDED, every_seed, signed, spread
from safety_spaces.tensors import RANDOM


def seeds(numbers: Sequence[int]) -> str:
    """Over how many trainings the numbers are means, and when a contrast counts."""
    if len(numbers) == 1:
        return (
            f"All numbers are of one seed ({numbers[0]}): whether another training would agree is not known.\n"
            "A contrast counts where it exceeds the noise, which is the half-width of the interval of one score; "
            "intervals are 95 % over prompts."
        )
    return (
        f"Numbers are means over {len(numbers)} seeds ({', '.join(map(str, numbers))}); intervals are 95 % over "
        "prompts, ranges are the lowest and the highest seed.\n"
        "A contrast counts only where every seed agrees in sign and the mean exceeds the noise, which is the "
        "half-width of the interval of one score."
    )


def premises(found: Premises) -> str:
    """Whether the models are such that the experiments can speak."""
    failed = [target.wording for target in found.targets if not target.holds]
    failed += [f"{g.metric} of {g.task}, {g.scheme}, is graded" for g in found.graded if not g.holds]
    if not failed:
        return "All premises hold: alignment and fine-tuning did what the experiments presuppose."
    return f"Read the experiments with care: {len(failed)} premises fail ({'; '.join(failed)})."


def energy(found: Sequence[EnergyFinding]) -> str:
    """Section 3: energy is uniform, the same in the claim as in random subspaces."""
    parts = "; ".join(
        f"of the {one.task} update {one.claim} keeps {one.kept[one.claim]:.2f} at fraction {one.fraction:g} and random "
        f"{one.kept[RANDOM]:.2f} (closed form {one.expected[RANDOM]:.2f}), "
        f"and over all fractions they part by at most {signed(one.largest_gap)}"
        for one in found
    )
    if all(one.uniform for one in found):
        return f"{AGREES} Energy is spread evenly: {parts}."
    return f"{DIFFERS} Energy is not spread evenly: {parts}."


def parallel(found: Sequence[ParallelFinding]) -> str:
    """Section 3: the claim is more expressive than random, for the useful and for the harmful task alike."""
    claimed = DIRECTIONS[found[0].claim]
    directions = [one.advantage.direction for one in found]
    parts = "; ".join(_advantage(one) for one in found)
    if all(direction > 0 for direction in directions):
        return f"{AGREES} The {claimed} carry more behaviour than random ones, useful and harmful alike: {parts}."
    if any(direction < 0 for direction in directions):
        return f"{DIFFERS} Random directions carry more behaviour than the {claimed} somewhere: {parts}."
    if any(direction > 0 for direction in directions):
        return f"{UNDECIDED} The {claimed} carry more behaviour in part of the cases only: {parts}."
    return f"{UNDECIDED} No case tells the {claimed} from random ones: {parts}."


def orthogonal(found: OrthogonalFinding) -> str:
    """Section 4: removing the claimed directions costs utility as fast as it lowers harmfulness."""
    if found.selectivity is None or found.excess is None:
        gaps = " and ".join(f"{metric} {spread(gap)}" for metric, gap in found.gaps.items())
        return (
            f"{UNDECIDED} Contaminated fine-tuning did not raise both scores {every_seed(found.gaps['utility'].seeds)} "
            f"({gaps}): nothing to remove."
        )
    claimed, excess, directions = found.selectivity[found.claim], found.excess, DIRECTIONS[found.claim]
    numbers = (
        f"averaged over fractions the share of harmfulness removed exceeds that of utility by {spread(claimed)} "
        f"with {found.claim} and {spread(found.selectivity[RANDOM])} with random (noise {claimed.noise:.2f})"
    )
    if claimed.direction > 0 and excess.direction > 0:
        return f"{DIFFERS} Removing the {directions} is selective, more than removing random ones: {numbers}."
    if claimed.direction > 0:
        return (
            f"{AGREES} Harmfulness falls faster than utility, but not demonstrably more with the {directions} than "
            f"with random ones, which gives the {directions} no part of their own: {numbers}."
        )
    if claimed.direction < 0:
        return f"{AGREES} Removing the {directions} costs more utility than harmfulness: {numbers}."
    if abs(claimed.value) > claimed.noise:
        return f"{UNDECIDED} The seeds do not agree on which score falls faster: {numbers}."
    return f"{AGREES} Removal is proportional within the noise, not selective: {numbers}."


def updates(found: UpdateFinding) -> str:
    """Section 5: all updates overlap above chance, and the harmful-reference pair is not the closest."""
    chance = "all pairs overlap above chance" if found.all_above_chance else "not every pair overlaps above chance"
    where = (
        "in the one seed" if found.seeds == 1 else f"on average and in {found.agreeing_seeds} of {found.seeds} seeds"
    )
    if found.strongest is None:
        return f"{UNDECIDED} One pair of updates alone is compared, so none is closest; {chance}."
    closest = f"{found.strongest} is the closest pair {where}, and {chance}"
    if found.agreeing_seeds < found.seeds:
        return f"{UNDECIDED} The seeds do not agree on the closest pair: {closest}."
    if set(found.strongest.split("-")) == SAFETY_PAIR:
        return f"{DIFFERS} A shared safety subspace would look like this: {closest}."
    if not found.all_above_chance:
        return f"{DIFFERS} The updates do not all share structure, though none is a safety subspace: {closest}."
    return f"{AGREES} The updates share structure that is not about safety: {closest}."


def _advantage(one: ParallelFinding) -> str:
    share = "" if one.share is None else f", {100 * one.share:+.0f} % of the gap to fine-tuned"
    return f"{one.metric} of {one.task} {spread(one.advantage)}{share} (noise {one.advantage.noise:.2f})"
