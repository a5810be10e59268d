"""The plan as a person reads it, stage by stage, before any work and any download. Reads no weights and no torch.

What is done already is said and taken off: hours and dollars are of what is left.
"""

import math
import os
from collections.abc import Iterator

from safety_spaces.evaluation.judges import spent
from safety_spaces.evaluation.metrics import every_metric
from safety_spaces.evidence.paper import contrast_error, detectable
from safety_spaces.experiments.plan.card import GIB, Planned
from safety_spaces.experiments.plan.costs import (
    Counts,
    corpus_rows,
    counts,
    generation_hours,
    judge_dollars,
    optimiser_bytes,
    size,
    training_hours,
    weight_bytes,
)
from safety_spaces.experiments.plan.downloads import missing_data_sets, missing_models, on_request
from safety_spaces.experiments.plan.sizes import factor_bytes
from safety_spaces.experiments.plan.work import whole_work
from safety_spaces.models.folders import is_checkpoint
from safety_spaces.models.roles import is_on_hub, study_of
from safety_spaces.study import KEY_VARIABLE, OUTCOMES, Judge, ServiceJudge

STATE_BYTES = 4
MIDDLE = {"utility": 0.5, "harmfulness": 3.0}
"""Of the scales, where scores vary most."""
STORED_BYTES = 2
"""A weight as it lies on the hub, in most models."""


def plan(planned: Planned) -> Iterator[str]:
    """Yield the plan of a study, one line per stage.

    Raises UserError when the size of the base is not known, or a data set has fewer rows than are asked for.
    """
    study = planned.study
    whole = counts(planned.texts, whole_work(study, geometry_only=planned.geometry_only))
    left = counts(planned.texts, planned.left)
    yield f"study {study.name}: {planned.weights:,} parameters, {_number(len(study.seeds), 'seed')}"
    yield _card(planned)
    yield from _finetune(planned)
    yield _projection(planned, whole, left)
    if not planned.geometry_only:
        yield from _judges(planned, whole, left)
        yield from _detectable(planned)
    if study.update_spaces is not None:
        numbers = {"pair": study.update_pairs, "energy level": study.update_spaces.etas, "seed": study.seeds}
        done = _done(len(study.seeds), len(planned.left.overlaps))
        yield f"update_spaces: {', '.join(_number(len(of), name) for name, of in numbers.items())}{done}"
    if not planned.geometry_only and study.activation_spaces is not None:
        yield (
            f"activation_spaces: {whole.read:,} prompts through the model{_done(whole.read, left.read)}; "
            f"{whole.states:,} states at every layer{_done(whole.states, left.states)}, "
            f"on disk {size(_state_bytes(planned, whole))}"
        )
    yield from _downloads(planned)
    yield _disk(planned, whole)


def _number(number: int, of: str) -> str:
    return f"{number:,} {of}{'' if number == 1 else 's'}"


def _done(whole: int, left: int) -> str:
    return f" ({whole - left:,} done, {left:,} left)" if left < whole else ""


def _card(planned: Planned) -> str:
    gpu = planned.study.gpu
    if gpu is None:
        return "card: the study names none (gpu), so no hours are estimated and no memory is checked"
    named = f"card: {gpu.name}, {gpu.memory:g} GiB ({size(gpu.memory * GIB)})"
    if planned.gpu is None:
        return f"{named}, but --device {planned.device} is asked for, whose hours are not known: none are estimated"
    return f"{named}: hours are estimated for it, by the rates of the study, whatever this machine has"


def _finetune(planned: Planned) -> Iterator[str]:
    """One line on all checkpoints, one for those that are not there, one for each training that is left."""
    study, roles, left = planned.study, planned.roles, planned.trainings
    folders = {roles.folder(role, seed): role for seed in study.seeds for role in study.order_of_roles()}
    elsewhere = sorted(role for role, recipe in study.roles.items() if study_of(recipe) is not None)
    on_hub, absent = 0, dict[str, list[str]]()
    for folder, role in folders.items():
        if role not in study.given_roles or is_checkpoint(folder):
            continue
        if is_on_hub(study.given_roles[role].path):
            on_hub += 1
        else:
            absent.setdefault(roles.remedy(study.roles[role]), []).append(f"{role} at {folder}")
    hours = {role: _training_hours(planned, role) for role in left}
    known = [hour * len(left[role]) for role, hour in hours.items() if hour is not None]
    on_card = f" on {planned.gpu.name}" if planned.gpu else ""
    yield (
        f"finetune: {sum(role not in elsewhere for role in folders.values())} checkpoints of "
        f"{size(planned.weights * weight_bytes(study.training))}, {sum(map(len, left.values()))} still to be made"
        f", {on_hub} to be downloaded"
        + (f"; at most {sum(known):.1f} h{on_card} (estimated)" if known and len(known) == len(left) else "")
        + (f"; {', '.join(elsewhere)} from another study" if elsewhere else "")
    )
    yield from (f"  not there ({what_to_do}): {', '.join(models)}" for what_to_do, models in absent.items())
    lines: dict[str, list[str]] = {}
    for role, longest in hours.items():
        each = "" if longest is None else f"; at most {longest:.1f} h a seed{on_card} (estimated)"
        _, memory = planned.training_memory(study.trained_roles[role].method, study.training_of(role))
        lines.setdefault(f"memory {memory}{each}", []).append(role)
    yield from (f"  {', '.join(alike)}: {line}" for line, alike in lines.items())


def _training_hours(planned: Planned, role: str) -> float | None:
    gpu, recipe = planned.gpu, planned.study.trained_roles[role]
    rows = corpus_rows(planned.texts, recipe.corpus)
    if gpu is None or rows is None:
        return None
    return training_hours(recipe.training, recipe.method, planned.weights, rows, gpu.flops)


def _projection(planned: Planned, whole: Counts, left: Counts) -> str:
    energies = f"projection: {whole.energies:,} energies{_done(whole.energies, left.energies)}"
    kept = size(_kept_factors(planned))
    factors = f"factors on disk {kept} a seed, removed at the end unless --keep-factors"
    if planned.geometry_only:
        return f"{energies}, no model is asked" + (f"; {factors}" if planned.keep_factors else "")
    hours, choices = "", ""
    if questions := whole.asked.get("general_ability"):
        done = _done(questions, left.asked.get("general_ability", 0))
        choices = f", {questions:,} multiple-choice questions{done}, whose hours are not counted"
    if (gpu := planned.gpu) is not None:
        longest = generation_hours(planned.study, planned.weights, planned.architecture, left.new_tokens, gpu.bandwidth)
        hours = f", at most {longest:.0f} h of generation on {gpu.name} (estimated)"
    return (
        f"{energies}, {whole.models:,} models{_done(whole.models, left.models)}, "
        f"{whole.scores:,} scores{_done(whole.scores, left.scores)}; "
        f"{whole.generations:,} generations of at most {whole.new_tokens:,} tokens"
        f"{_done(whole.generations, left.generations)}{hours}{choices}; memory {planned.live_arithmetic()}; {factors}"
    )


def _detectable(planned: Planned) -> Iterator[str]:
    """What a verdict about weights can find, of one set of checkpoints: over prompts alone, scores at mid-scale."""
    study, texts = planned.study, planned.texts
    if study.evaluation is None or not (study.projection.dosed_tasks and study.projection.doses):
        return
    metrics, gaps = every_metric(texts, study.evaluation), study.evidence.expected_gap
    prompts = {name: metrics[name].prompts() for name in OUTCOMES}
    if all(prompts.values()) and {*OUTCOMES} <= {*gaps}:
        errors = (contrast_error(n, gaps[n], MIDDLE[n], prompts[n]) for n in OUTCOMES)
        least, said = detectable() * math.hypot(*errors), " and ".join(f"{name} by {gaps[name]:g}" for name in OUTCOMES)
        yield (
            f"verdict: about {least:.2f} of the update's dose is found with 90 % power on one set of checkpoints, if "
            f"the task raises {said} (margin {study.evidence.margin:g}; "
            f"{' and '.join(f'{prompts[name]:,}' for name in OUTCOMES)} prompts that stand alone)"
        )


def _kept_factors(planned: Planned) -> int:
    if planned.geometry_only and not planned.keep_factors:
        return 0
    return factor_bytes(planned.roles, planned.shapes)


def _judges(planned: Planned, whole: Counts, left: Counts) -> Iterator[str]:
    """One line for the judge of each metric, and for each that judge_agreement.py asks too."""
    evaluation = planned.study.evaluation
    assert evaluation is not None
    for metric in every_metric(planned.texts, evaluation).values():
        if metric.judge is not None and (calls := whole.judged.get(metric.name)):
            who, remaining = "judge" if metric.is_main else metric.name, left.judged.get(metric.name, 0)
            yield _judge(planned, who, metric.judge, calls, remaining, metric.new_tokens)
    calls, tokens = whole.judged["harmfulness"], evaluation.harmfulness.max_new_tokens
    for judge in evaluation.harmfulness.compared_judges:
        yield _judge(planned, "judge_agreement", judge, calls, calls, tokens)


def _judge(planned: Planned, who: str, judge: Judge, calls: int, left: int, response_tokens: int) -> str:
    line = f"{who}: {calls:,} calls of {judge.name}{_done(calls, left)}"
    if not isinstance(judge, ServiceJudge):
        return line
    dollars = judge_dollars(judge, left, response_tokens=response_tokens)
    short = ", which does not suffice" if dollars > judge.budget else ""
    need = "export it before judging" if judge.base_url is None else f"{judge.base_url} may need none"
    key = "is set" if os.environ.get(KEY_VARIABLE) else f"is not set: {need}"
    so_far = spent([judge], planned.study, planned.roles.layout)
    return (
        f"{line}, about {dollars:.2f} US dollars if each is read at once, {judge.attempts * dollars:.2f} if none is "
        f"(estimated), stopped before {judge.budget:.2f}{short} ({so_far}); "
        f"{KEY_VARIABLE} {key}"
    )


def _downloads(planned: Planned) -> Iterator[str]:
    """What is to be downloaded, and for what of it somebody has to be asked first."""
    models, data_sets = missing_models(planned.study), missing_data_sets(planned.texts)
    if planned.geometry_only and not planned.trainings:
        data_sets = []
    roles = {recipe.path for recipe in planned.study.given_roles.values()}
    weights = f" (about {size(planned.weights * STORED_BYTES)})"
    named = {"models": [f"{name}{weights if name in roles else ''}" for name in models], "data sets": data_sets}
    if parts := [f"{kind} {', '.join(of)}" for kind, of in named.items() if of]:
        yield f"to be downloaded: {'; '.join(parts)}"
    if pages := on_request(models, data_sets):
        from huggingface_hub import get_token

        login = "" if get_token() else ", then log in with `hf auth login`"
        yield f"given out on request: ask for access at {', '.join(pages)}{login}"


def _state_bytes(planned: Planned, found: Counts) -> int | None:
    """Bytes of the hidden states; None where the shape of the model is not known."""
    shape = planned.architecture
    return None if shape is None else found.states * (shape.layers + 1) * shape.hidden * STATE_BYTES


def _disk(planned: Planned, whole: Counts) -> str:
    study, layout, weights = planned.study, planned.roles.layout, planned.weights
    given = [role for role, recipe in study.given_roles.items() if is_on_hub(recipe.path)]
    checkpoints = sum(len(study.seeds) if study.is_per_seed(role) else 1 for role in (*study.trained_roles, *given))
    total = checkpoints * weights * weight_bytes(study.training) + len(study.seeds) * _kept_factors(planned)
    # A trainer's own state, of which the next one is written before the last one is removed.
    resumable = [training for role in study.trained_roles if (training := study.training_of(role)).save_every]
    total += 2 * weights * max((weight_bytes(one) + optimiser_bytes(one) for one in resumable), default=0)
    size_of_all = size(total + (_state_bytes(planned, whole) or 0))
    return (
        f"results: {layout.results_folder}; runs: {layout.runs / study.name}, at most "
        f"{size_of_all} of checkpoints, training states, factors and hidden states"
    )
