"""What a study will take, stage by stage, before any work and any download. Reads no weights and no torch.

What is done already is said and taken off: hours and dollars are of what is left.
"""

import os
from collections.abc import Mapping

from safety_spaces.evaluation.judges import spent
from safety_spaces.evaluation.metrics import Metric, every_metric
from safety_spaces.experiments.card_memory import GIB, card, live_arithmetic, training_arithmetic, trainings_left
from safety_spaces.experiments.command import Command
from safety_spaces.experiments.costs import (
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
from safety_spaces.experiments.downloads import downloads, on_request
from safety_spaces.experiments.remaining import work_left
from safety_spaces.models.folders import is_checkpoint
from safety_spaces.models.hub import is_logged_in
from safety_spaces.models.roles import is_on_hub, study_of
from safety_spaces.models.sizes import Shapes, base_architecture, factor_bytes, model_shapes, parameters
from safety_spaces.study import KEY_VARIABLE, Existing, ServiceJudge

STATE_BYTES = 4
STORED_BYTES = 2
"""A weight as it lies on the hub, in most models."""


def plan(command: Command) -> str:
    """Return the plan of a study as text, one line per stage.

    Raises:
        UserError: the size of the base is not known, or a data set has fewer rows than are asked for.
    """
    study, shapes = command.study, model_shapes(command.roles)
    whole, remaining = counts(command), work_left(command)
    left = counts(command, remaining)
    weights = parameters(shapes)
    lines = [
        f"study {study.name}: {weights:,} parameters, {_number(len(study.seeds), 'seed')}",
        _card(command),
        *_finetune(command, weights),
        _projection(command, shapes, whole, left),
    ]
    if not command.geometry_only:
        lines += _judges(command, whole, left)
    if study.update_spaces is not None:
        done = _done(len(study.seeds), len(remaining.overlaps))
        numbers = {"pair": study.update_pairs, "energy level": study.update_spaces.etas, "seed": study.seeds}
        lines.append(f"update_spaces: {', '.join(_number(len(of), name) for name, of in numbers.items())}{done}")
    if not command.geometry_only and study.activation_spaces is not None:
        lines.append(
            f"activation_spaces: {whole.read:,} prompts through the model{_done(whole.read, left.read)}; "
            f"{whole.states:,} states at every layer{_done(whole.states, left.states)}, "
            f"on disk {size(_states(command, whole))}"
        )
    return "\n".join([*lines, *_downloads(command, weights), _disk(command, shapes, whole)])


def _number(number: int, of: str) -> str:
    return f"{number:,} {of}{'' if number == 1 else 's'}"


def _done(whole: int, left: int) -> str:
    """What is done, said where anything is."""
    return f" ({whole - left:,} done, {left:,} left)" if left < whole else ""


def _card(command: Command) -> str:
    gpu = command.study.gpu
    if gpu is None:
        return "card: the study names none (gpu), so no hours are estimated and no memory is checked"
    named = f"card: {gpu.name}, {gpu.memory:g} GiB ({size(gpu.memory * GIB)})"
    if card(command) is None:
        return f"{named}, but --device {command.device} is asked for, whose hours are not known: none are estimated"
    return f"{named}: hours are estimated for it, by the rates of the study, whatever this machine has"


def _on_card(command: Command) -> str:
    gpu = card(command)
    return "" if gpu is None else f" on {gpu.name}"


def _finetune(command: Command, weights: int) -> list[str]:
    """One line on all checkpoints, and one for each training that is left and differs in what it takes."""
    study, left = command.study, trainings_left(command)
    folders = {command.roles.folder(role, seed): role for seed in study.seeds for role in study.order_of_roles()}
    elsewhere = sorted(role for role, recipe in study.roles.items() if study_of(recipe) is not None)
    on_hub, absent = 0, dict[str, list[str]]()
    for folder, role in folders.items():
        recipe = study.roles[role]
        if not isinstance(recipe, Existing) or is_checkpoint(folder):
            continue
        if is_on_hub(recipe.path):
            on_hub += 1
        else:
            absent.setdefault(command.roles.remedy(recipe), []).append(f"{role} at {folder}")
    to_train = sum(map(len, left.values()))
    hours = {role: _training_hours(command, role, weights) for role in left}
    known = [hour * len(left[role]) for role, hour in hours.items() if hour is not None]
    line = (
        f"finetune: {sum(role not in elsewhere for role in folders.values())} checkpoints of "
        f"{size(weights * weight_bytes(study.training))}, {to_train} still to be made"
        f", {on_hub} to be downloaded"
        + (f"; at most {sum(known):.1f} h{_on_card(command)} (estimated)" if known and len(known) == len(left) else "")
        + (f"; {', '.join(elsewhere)} from another study" if elsewhere else "")
    )
    not_there = [f"  not there ({what_to_do}): {', '.join(models)}" for what_to_do, models in absent.items()]
    return [line, *not_there, *_trainings(command, weights, hours)]


def _training_hours(command: Command, role: str, weights: int) -> float | None:
    gpu, recipe = card(command), command.study.roles[role]
    assert not isinstance(recipe, Existing)
    rows = corpus_rows(command, recipe.corpus)
    if gpu is None or rows is None:
        return None
    return training_hours(recipe.training, recipe.method, weights, rows, gpu.flops)


def _trainings(command: Command, weights: int, hours: Mapping[str, float | None]) -> list[str]:
    lines: dict[str, list[str]] = {}
    for role, longest in hours.items():
        method, training = command.study.roles[role].method, command.study.training_of(role)  # type: ignore[union-attr]
        each = "" if longest is None else f"; at most {longest:.1f} h a seed{_on_card(command)} (estimated)"
        lines.setdefault(f"memory {training_arithmetic(command, method, training, weights)}{each}", []).append(role)
    return [f"  {', '.join(roles)}: {line}" for line, roles in lines.items()]


def _projection(command: Command, shapes: Shapes, whole: Counts, left: Counts) -> str:
    energies = f"projection: {whole.energies:,} energies{_done(whole.energies, left.energies)}"
    factors = f"factors on disk {size(_kept_factors(command, shapes))} a seed, removed at the end unless --keep-factors"
    if command.geometry_only:
        return f"{energies}, no model is asked" + (f"; {factors}" if command.keep_factors else "")
    hours, choices = "", ""
    if questions := whole.asked.get("general_ability"):
        done = _done(questions, left.asked.get("general_ability", 0))
        choices = f", {questions:,} multiple-choice questions{done}, whose hours are not counted"
    if (gpu := card(command)) is not None:
        longest = generation_hours(command, parameters(shapes), base_architecture(command.roles), left, gpu.bandwidth)
        hours = f", at most {longest:.0f} h of generation{_on_card(command)} (estimated)"
    return (
        f"{energies}, {whole.models:,} models{_done(whole.models, left.models)}, "
        f"{whole.scores:,} scores{_done(whole.scores, left.scores)}; "
        f"{whole.generations:,} generations of at most {whole.new_tokens:,} tokens"
        f"{_done(whole.generations, left.generations)}{hours}{choices}; memory {live_arithmetic(command)}; {factors}"
    )


def _kept_factors(command: Command, shapes: Shapes) -> int:
    return 0 if command.geometry_only and not command.keep_factors else factor_bytes(command.roles, shapes)


def _judges(command: Command, whole: Counts, left: Counts) -> list[str]:
    """One line for each judge: of harmfulness, of over-refusal, and each that judge_agreement.py asks too."""
    evaluation = command.study.evaluation
    if evaluation is None:
        return []
    metrics, places = every_metric(command.texts, evaluation), evaluation.judges_by_place
    judged = [metric for metric in metrics.values() if metric.judge and metric.name in whole.judged]
    lines = [
        _judge(command, one.judge_place, whole.judged[one.name], left.judged.get(one.name, 0), one) for one in judged
    ]
    # Of saved responses, whichever are scored already.
    calls, compared = whole.judged["harmfulness"], [place for place in places if ".compared_judges." in place]
    return [*lines, *(_judge(command, place, calls, calls, metrics["harmfulness"]) for place in compared)]


def _judge(command: Command, place: str, calls: int, left: int, metric: Metric) -> str:
    assert command.study.evaluation is not None
    judge = command.study.evaluation.judges_by_place[place]
    who = {metric.judge_place: metric.name, "evaluation.harmfulness.judge": "judge"}.get(place, "judge_agreement")
    line = f"{who}: {calls:,} calls of {judge.name}{_done(calls, left)}"
    if not isinstance(judge, ServiceJudge):
        return line
    dollars = judge_dollars(judge, left, response_tokens=metric.new_tokens)
    short = ", which does not suffice" if dollars > judge.budget else ""
    key = "is set" if os.environ.get(KEY_VARIABLE) else "is not set"
    need = "export it before judging" if judge.base_url is None else f"{judge.base_url} may need none"
    return (
        f"{line}, about {dollars:.2f} US dollars if each is read at once, {judge.attempts * dollars:.2f} if none is "
        f"(estimated), stopped before {judge.budget:.2f}{short} ({spent({place: judge}, command.layout)}); "
        f"{KEY_VARIABLE} {key}{'' if key == 'is set' else f': {need}'}"
    )


def _downloads(command: Command, weights: int) -> list[str]:
    """What is to be downloaded, and for what of it somebody has to be asked first."""
    models, data_sets = downloads(command)
    if command.geometry_only and not trainings_left(command):
        data_sets = []
    roles = [recipe.path for recipe in command.study.roles.values() if isinstance(recipe, Existing)]
    sized = [f"{name} (about {size(weights * STORED_BYTES)})" if name in roles else name for name in models]
    named = [f"models {', '.join(sized)}"] if models else []
    named += [f"data sets {', '.join(data_sets)}"] if data_sets else []
    lines = [f"to be downloaded: {'; '.join(named)}"] if named else []
    if pages := on_request(models, data_sets):
        login = "" if is_logged_in() else ", then log in with `hf auth login`"
        lines.append(f"given out on request: ask for access at {', '.join(pages)}{login}")
    return lines


def _states(command: Command, found: Counts) -> int | None:
    """Bytes of the hidden states; None where the shape of the model is not known."""
    shape = base_architecture(command.roles)
    return None if shape is None else found.states * (shape.layers + 1) * shape.hidden * STATE_BYTES


def _disk(command: Command, shapes: Shapes, whole: Counts) -> str:
    study, weights = command.study, parameters(shapes)
    own = [role for role, recipe in study.roles.items() if not isinstance(recipe, Existing) or is_on_hub(recipe.path)]
    checkpoints = sum(len(study.seeds) if study.is_per_seed(role) else 1 for role in own)
    factors = _kept_factors(command, shapes)
    total = checkpoints * weights * weight_bytes(study.training) + len(study.seeds) * factors
    # A trainer's own state, of which the next one is written before the last one is removed.
    trained = [recipe.training for recipe in study.roles.values() if not isinstance(recipe, Existing)]
    resumable = [training for training in trained if training.save_every]
    total += 2 * weights * max((weight_bytes(one) + optimiser_bytes(one) for one in resumable), default=0)
    return (
        f"results: {command.layout.results_folder}; runs: {command.layout.runs / study.name}, at most "
        f"{size(total + (_states(command, whole) or 0))} of checkpoints, training states, factors and hidden states"
    )
