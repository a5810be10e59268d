"""How far the numbers of the paper are from those of this study, and whether they stand in the same order."""

from collections.abc import Sequence

from safety_spaces.evidence.findings.paper import Line, Order, PaperFinding
from safety_spaces.evidence.sentences.wording import signed


def paper_numbers(found: PaperFinding) -> str:
    """How far the numbers of the paper are, metric by metric, where both stand on one scale."""
    by_metric: dict[str, list[Line]] = {}
    for line in found.lines:
        by_metric.setdefault(line.metric, []).append(line)
    return " ".join(_distance(metric, lines) for metric, lines in by_metric.items())


def paper_order(found: PaperFinding) -> str:
    """Whether the models of a task, the projected ones and the fine-tuned one, are ordered as in the paper."""
    if not found.orders:
        return "No projected model of the paper was scored here, so there is no order to compare."
    parts = "; ".join(f"{one.metric} of {one.task} {_correlation(one)} (n = {one.n})" for one in found.orders)
    return (
        f"Rank correlation with the paper over the models of a task, projected and fine-tuned: {parts}. Scores follow "
        "the fraction in most studies, so a high one says little about the bases."
    )


def _distance(metric: str, lines: Sequence[Line]) -> str:
    differences = {line: line.difference for line in lines if line.difference is not None}
    if not differences:
        return f"{metric.capitalize()} is not judged by the rubric of the paper: its order alone is compared."
    inside = sum(line.inside is True for line in differences)
    mean = sum(differences.values()) / len(differences)
    farthest = max(differences, key=lambda line: abs(differences[line]))
    name = farthest.task if farthest.fraction is None else f"{farthest.task}, {farthest.basis}, {farthest.fraction:g}"
    return (
        f"{metric.capitalize()}: the number of the paper lies inside the interval in {inside} of {len(differences)} "
        f"lines; here minus paper is {signed(mean, digits=3)} on average and "
        f"{signed(differences[farthest], digits=3)} where it is largest ({name})."
    )


def _correlation(one: Order) -> str:
    return "undefined" if one.correlation is None else signed(one.correlation)
