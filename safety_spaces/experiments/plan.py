"""What a study will take, stage by stage, before any work and any download. Reads no weights and no torch."""

from safety_spaces.errors import UserError
from safety_spaces.experiments.checkpoints import checkpoint_folder, study_of
from safety_spaces.experiments.command import Command
from safety_spaces.experiments.costs import (
    Counts,
    activation_bytes,
    corpus_rows,
    counts,
    generation_hours,
    judge_dollars,
    live_bytes,
    optimiser_bytes,
    training_bytes,
    training_hours,
    weight_bytes,
)
from safety_spaces.experiments.sizes import Shapes, base_architecture, factor_bytes, model_shapes, parameters
from safety_spaces.folders import is_checkpoint
from safety_spaces.study import Existing, Judge, ServiceJudge, Study, Training

GIB = 2**30
STATE_BYTES = 4


def plan(command: Command) -> str:
    """Return the plan of a study as text, one line per stage.

    Raises:
        UserError: the size of the base is not known.
    """
    study, shapes, found = command.study, model_shapes(command), counts(command)
    weights = parameters(shapes)
    lines = [
        f"study {study.name}: {weights:,} parameters, {len(study.seeds)} seeds",
        _finetune(command, weights),
        *_trainings(command, weights),
        _projection(command, shapes, found),
        *_judges(command, found),
        *_updates(study),
        *_activation_spaces(command, found),
        _disk(command, shapes, found),
    ]
    return "\n".join(lines)


def check_memory(command: Command) -> None:
    """Check that every training, and the live model, fit on the card that the study is planned for.

    Raises:
        UserError: one does not; what it needs and which settings need less.
    """
    study = command.study
    if study.gpu is None:
        return
    shapes, available = model_shapes(command), study.gpu.memory * GIB
    for role, (method, training) in _trained(study).items():
        if _training_memory(command, method, training, parameters(shapes)) > available:
            raise UserError(
                f"roles.{role}: expected a training that fits into {study.gpu.memory:g} GiB ({_size(available)}), got "
                f"{_arithmetic(command, method, training, parameters(shapes))}; set training.optimizer to "
                "adamw_8bit or adamw_offload, training.gradient_checkpointing to true, or gpu.memory to what there is"
            )
    # A study of weights alone loads no live model.
    if study.questioning and sum(live_bytes(command, shapes, base_architecture(command)).values()) > available:
        raise UserError(
            f"projection: expected a live model that fits into {study.gpu.memory:g} GiB, got {_live(command, shapes)}; "
            "lower evaluation.batch_size, set projection.weights_dtype to bfloat16, or gpu.memory to what there is"
        )


def _trained(study: Study) -> dict[str, tuple[str, Training]]:
    return {
        role: (recipe.method, recipe.training)
        for role, recipe in study.roles.items()
        if not isinstance(recipe, Existing)
    }


def _finetune(command: Command, weights: int) -> str:
    study = command.study
    elsewhere = {role for role, recipe in study.roles.items() if study_of(recipe) is not None}
    given = {role for role, recipe in study.roles.items() if isinstance(recipe, Existing)} - elsewhere
    every = [(role, seed) for seed in study.seeds for role in study.order_of_roles()]
    folders = {checkpoint_folder(command, role, seed): role for role, seed in every if role not in elsewhere}
    missing = [role for folder, role in folders.items() if not is_checkpoint(folder)]
    downloads = sum(role in given for role in missing)
    return (
        f"finetune: {len(folders)} checkpoints of {_size(weights * weight_bytes(study.training))}, "
        f"{len(missing) - downloads} still to be made, {downloads} to be downloaded"
        + (f"; {', '.join(sorted(elsewhere))} from another study" if elsewhere else "")
    )


def _trainings(command: Command, weights: int) -> list[str]:
    """One line for each training that differs in what it takes: memory as arithmetic, hours where a card is named."""
    study = command.study
    lines: dict[str, list[str]] = {}
    for role, (method, training) in _trained(study).items():
        hours, rows = "", corpus_rows(command, study.roles[role].corpus)  # type: ignore[union-attr]
        if study.gpu is not None and rows is not None:
            longest = training_hours(training, method, weights, rows, study.gpu.flops)
            hours = f"; at most {longest:.1f} h a seed (estimated)"
        lines.setdefault(f"memory {_arithmetic(command, method, training, weights)}{hours}", []).append(role)
    return [f"  {', '.join(roles)}: {line}" for line, roles in lines.items()]


def _arithmetic(command: Command, method: str, training: Training, weights: int) -> str:
    parts = " + ".join(f"{number} {name}" for name, number in training_bytes(training, method).items())
    activations = _activations(command, method, training)
    counted = f"about {_size(activations)} of activations" if activations else "activations not counted"
    total = _size(_training_memory(command, method, training, weights))
    how = f"{training.optimizer} in {training.precision}"
    return f"{total}: ({parts}) bytes x {weights:,} parameters, {how}, {counted}"


def _training_memory(command: Command, method: str, training: Training, weights: int) -> int:
    return sum(training_bytes(training, method).values()) * weights + _activations(command, method, training)


def _activations(command: Command, method: str, training: Training) -> int:
    shape = base_architecture(command)
    return 0 if shape is None else activation_bytes(training, method, shape)


def _projection(command: Command, shapes: Shapes, found: Counts) -> str:
    study = command.study
    factors = _kept_factors(command, shapes)
    hours, choices = "", ""
    if "general_ability" in found.asked:
        choices = f", {found.asked['general_ability']:,} multiple-choice questions"
    if study.gpu is not None:
        shape, bandwidth = base_architecture(command), study.gpu.bandwidth
        longest = generation_hours(command, parameters(shapes), shape, found, bandwidth)
        hours = f", at most {longest:.0f} h of generation (estimated)"
    return (
        f"projection: {found.energies:,} energies, {found.models:,} models, {found.scores:,} scores; "
        f"{found.generations:,} generations of at most {found.new_tokens:,} tokens{hours}{choices}; "
        f"memory {_live(command, shapes)}; "
        f"factors on disk {_size(factors)} a seed, removed at the end unless --keep-factors"
    )


def _kept_factors(command: Command, shapes: Shapes) -> int:
    return 0 if command.geometry_only and not command.keep_factors else factor_bytes(command, shapes)


def _live(command: Command, shapes: Shapes) -> str:
    parts = live_bytes(command, shapes, base_architecture(command))
    return " + ".join(f"{_size(number)} {name}" for name, number in parts.items()) + " for the live model"


def _judges(command: Command, found: Counts) -> list[str]:
    """One line for each judge: of harmfulness, of over-refusal, and each that judge_agreement.py asks too."""
    evaluation = command.study.questioning
    if evaluation is None:
        return []
    harmfulness, over_refusal = evaluation.harmfulness, evaluation.over_refusal
    calls, tokens = found.asked["harmfulness"], harmfulness.max_new_tokens
    lines = [_judge("judge", harmfulness.judge, calls, tokens)]
    if over_refusal is not None and "over_refusal" in found.asked:
        asked = found.asked["over_refusal"]
        lines.append(_judge("over_refusal", over_refusal.judge, asked, over_refusal.max_new_tokens))
    return [*lines, *(_judge("judge_agreement", judge, calls, tokens) for judge in harmfulness.compared_judges)]


def _judge(who: str, judge: Judge, calls: int, response_tokens: int) -> str:
    line = f"{who}: {calls:,} calls of {judge.name}"
    if not isinstance(judge, ServiceJudge):
        return line
    dollars = judge_dollars(judge, calls, response_tokens=response_tokens)
    return (
        f"{line}, about {dollars:.2f} US dollars if each is read at once, {judge.attempts * dollars:.2f} if none is "
        f"(estimated), stopped before {judge.budget:.2f}"
    )


def _updates(study: Study) -> list[str]:
    settings = study.update_spaces
    if settings is None:
        return []
    return [
        f"update_spaces: {len(study.update_pairs)} pairs, {len(settings.etas)} energy levels, {len(study.seeds)} seeds"
    ]


def _activation_spaces(command: Command, found: Counts) -> list[str]:
    if command.study.compared_states is None:
        return []
    return [
        f"activation_spaces: {found.read:,} prompts through the model; {found.states:,} states at every layer, "
        f"on disk {_size(_states(command, found))}"
    ]


def _states(command: Command, found: Counts) -> int | None:
    """Bytes of the hidden states; None where the shape of the model is not known."""
    shape = base_architecture(command)
    return None if shape is None else found.states * (shape.layers + 1) * shape.hidden * STATE_BYTES


def _disk(command: Command, shapes: Shapes, found: Counts) -> str:
    study, weights = command.study, parameters(shapes)
    own = [role for role, recipe in study.roles.items() if study_of(recipe) is None]
    checkpoints = sum(len(study.seeds) if study.is_per_seed(role) else 1 for role in own)
    factors = _kept_factors(command, shapes)
    total = checkpoints * weights * weight_bytes(study.training) + len(study.seeds) * factors
    # A trainer's own state, of which the next one is written before the last one is removed.
    resumable = [training for _, training in _trained(study).values() if training.save_every]
    total += 2 * weights * max((weight_bytes(one) + optimiser_bytes(one) for one in resumable), default=0)
    return (
        f"results: {command.layout.results_folder}; runs: {command.layout.runs / study.name}, at most "
        f"{_size(total + (_states(command, found) or 0))} of checkpoints, training states, factors and hidden states"
    )


def _size(number: int | float | None) -> str:
    if number is None:
        return "not counted"
    for unit in ("B", "KB", "MB", "GB"):
        if number < 1000:
            return f"{number:.3g} {unit}"
        number /= 1000
    return f"{number:.3g} TB"
