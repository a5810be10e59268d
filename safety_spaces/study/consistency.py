"""What holds between the sections of a study: each name that one uses another one defines, and nothing asks in vain.

What follows from the study file alone is found here, before any work; each function yields all that is wrong.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence

from pydantic_core import PydanticCustomError

from safety_spaces.study.corpora import Corpus, MixedCorpus, SingleCorpus, World
from safety_spaces.study.evaluation import Evaluation
from safety_spaces.study.fields import refusal, unknown_name
from safety_spaces.study.judges import RubricJudge
from safety_spaces.study.recipes import CHAT, Architecture, Existing, Recipe, Trained, Training
from safety_spaces.study.settings import ActivationSpaces, Pair, Projection

Problems = Iterator[PydanticCustomError]


def problems_of_corpora(corpora: Mapping[str, Corpus], written: Mapping[str, int]) -> Problems:
    """Yield unknown parts of corpora, and corpora of more rows than there are; `written` are those of the world."""
    single = {name: corpus for name, corpus in corpora.items() if isinstance(corpus, SingleCorpus)}
    for name, corpus in corpora.items():
        if isinstance(corpus, MixedCorpus):
            for part, other in zip(("useful", "harmful"), corpus.parts, strict=True):
                yield from unknown_name(f"corpora.{name}.{part}", other, single, "corpus of one data set")
            useful, harmful = (single[part].rows if part in single else None for part in corpus.parts)
            wanted = round(corpus.harmful_share * useful) if useful and corpus.mixing == "replace" else 0
            yield from _too_few(name, wanted, harmful)
            continue
        yield from _too_few(name, corpus.rows or 0, written.get(corpus.dataset))
        if (first := corpus.disjoint_from) is not None:
            yield from unknown_name(f"corpora.{name}.disjoint_from", first, single, "corpus of one data set")
            if first in single and single[first].disjoint_from is not None:
                yield refusal(f"corpora.{name}.disjoint_from", "expected a corpus that is drawn from all rows itself")


def _too_few(name: str, wanted: int, there: int | None) -> Problems:
    if there is not None and wanted > there:
        yield refusal(
            f"corpora.{name}", f"expected at least {wanted:,} rows, got {there:,}; ask for fewer in the study"
        )


def problems_of_roles(roles: Mapping[str, Recipe], corpora: Collection[str], seeds: Sequence[int]) -> Problems:
    """Yield what is missing or unknown in the roles, and circles of them."""
    for role in ("base", "reference"):
        if role not in roles:
            yield refusal(f"roles.{role}", "missing; every study has a base and a reference")
    if "base" in roles and roles["base"].parent is not None:
        yield refusal("roles.base.from", "expected a base that is pretrained or given by its path")
    for role, recipe in roles.items():
        if isinstance(recipe, Existing):
            yield from _problems_of_adapter(role, recipe.adapter_of, roles)
            continue
        yield from unknown_name(f"roles.{role}.corpus", recipe.corpus, corpora, "corpus")
        if recipe.parent is not None:
            yield from unknown_name(f"roles.{role}.from", recipe.parent, roles, "role")
    # What leads to a base that has a parent is said already.
    seen = {"base"}
    for role in roles:
        chain = [role]
        while (parent := roles[chain[-1]].parent) is not None and parent in roles and parent not in (*chain, *seen):
            chain.append(parent)
        if parent in chain and parent not in seen:
            yield refusal(f"roles.{role}.from", f"expected no circle, got {' from '.join([*chain, parent])}")
        seen |= {*chain}
    trained = [role for role, recipe in roles.items() if not isinstance(recipe, Existing) and role != "base"]
    if "reference" in roles and not trained and len(seeds) > 1:
        yield refusal("seeds", "expected one seed, since no role is trained and every seed would be the same")


def _problems_of_adapter(role: str, adds_to: str | None, roles: Collection[str]) -> Problems:
    if adds_to is None:
        return
    key = f"roles.{role}.adapter_of"
    if adds_to not in roles:
        yield from unknown_name(key, adds_to, roles, "role")
    # One step, so that no circle can arise: a task adds to the reference or the base, the reference to the base.
    elif adds_to not in {"base", "reference"} - {role} or role == "base":
        yield refusal(key, f"expected base or reference, got {adds_to}")


def problems_of_questions(
    evaluation: Evaluation | None, projection: Projection, states: ActivationSpaces | None, world: World | None
) -> Problems:
    """Yield what models are to be asked and cannot be."""
    asking: dict[str, int] = {}
    for number, one in enumerate(projection.scored):
        asking = {**dict.fromkeys(one.metrics, number), **asking}
    for metric, number in asking.items():
        if getattr(evaluation, metric, None) is None:
            yield refusal(f"evaluation.{metric}", f"missing, though projection.scored.{number} asks for it")
    if evaluation is None:
        if states is not None:
            yield refusal(
                "evaluation", "missing, though activation_spaces asks models; or write activation_spaces: null"
            )
        return
    for place, judge in evaluation.judges_by_place.items():
        if isinstance(judge, RubricJudge) and world is None:
            yield refusal(
                place, "expected keywords, classifier or service, got rubric, which knows the answers of a world alone"
            )
    limit = evaluation.harmfulness.max_new_tokens
    ends = [one.answer_tokens for one in (states.positions if states else ()) if one.reads_answer]
    stop = max((end for end in ends if end is not None), default=0)
    if None in ends and stop > limit:
        yield refusal(
            "activation_spaces.positions",
            f"expected windows that stop by evaluation.harmfulness.max_new_tokens ({limit}), where answers end, got "
            f"stop: {stop}; lower it or ask for more tokens",
        )


def problems_of_tasks(
    tasks: Sequence[str],
    roles: Collection[str],
    projection: Projection,
    pairs: Sequence[Pair],
    states: ActivationSpaces | None,
) -> Problems:
    """Yield the models that are projected or compared and are none of the study's."""
    for number, scored in enumerate(projection.scored):
        yield from unknown_name(f"projection.scored.{number}.task", scored.task, tasks, "task")
    for number, pair in enumerate(pairs):
        for name in pair:
            yield from unknown_name(f"update_spaces.pairs.{number}", name, ("reference", *tasks), "update")
    for number, role in enumerate(states.checkpoints if states else ()):
        yield from unknown_name(f"activation_spaces.checkpoints.{number}", role, roles, "role")


def problems_of_templates(
    training: Training, trained: Mapping[str, Trained], oldest: str, world: World | None
) -> Problems:
    """Yield where the chat template of a tokenizer is asked for that is made here; `oldest` is the role that has it."""
    found = {
        "training.template": training,
        **{f"roles.{role}.training.template": trained[role].training for role in trained},
    }
    for key, settings in found.items():
        # The texts of a small world are written before there is any tokenizer.
        if settings.template == CHAT and (oldest in trained or (world is not None and settings is training)):
            yield refusal(key, "expected plain, question or none, since a tokenizer made here has no chat template")


def problems_of_depth(shape: Architecture, projection: Projection, states: ActivationSpaces | None) -> Problems:
    """Yield the layers, and the window of layers, that a model of this shape does not have."""
    for scored in projection.scored:
        if beyond := sorted({*(scored.layers or ())} - {*range(shape.layers)}):
            expected = f"expected layers from 0 to {shape.layers - 1}"
            yield refusal("projection.scored", f"{expected}, got {beyond[0]}; correct layers")
    if states is not None and not states.states_compared(shape.layers + 1):
        low, high = states.window
        yield refusal(
            "activation_spaces.window",
            f"expected depths that hold one of the {shape.layers + 1} states, got {low:g} to {high:g}; widen it",
        )
