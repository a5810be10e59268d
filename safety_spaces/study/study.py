"""A whole study, and what holds between its sections: every name that one section uses is defined by another."""

import math
from collections.abc import Collection, Mapping, Set
from graphlib import CycleError, TopologicalSorter
from typing import Any

from pydantic import TypeAdapter, ValidationError, model_validator

from safety_spaces.study.corpora import Corpus, SingleCorpus
from safety_spaces.study.fields import Problems, Settings, Wrong, refusal, unknown_name
from safety_spaces.study.judges import RubricJudge
from safety_spaces.study.recipes import CHAT, TRAINED_FORMS, Existing, Recipe, Training, form
from safety_spaces.study.sections import Sections


class Study(Sections):
    """What one study file says, right in itself: whatever does not hold between sections is refused."""

    @model_validator(mode="before")
    @classmethod
    def _hand_training_to_roles(cls, content: Any) -> Any:
        match content:
            case {"roles": dict(roles)}:
                try:
                    shared = Training.model_validate(content.get("training", {})).model_dump()
                except ValidationError:
                    # What is wrong with it is said once, and not of each role.
                    shared = {}
                return {**content, "roles": {role: _with_training(recipe, shared) for role, recipe in roles.items()}}
        return content

    def _problems_beside(self, wrong: Mapping[str, Wrong]) -> Problems:
        study, unsure = self, {*wrong}
        for section, entry, stand_in in (
            ("roles", Recipe, Existing(path="unread")),
            ("corpora", Corpus, SingleCorpus(dataset="unread")),
        ):
            if section in wrong and isinstance(content := wrong[section].content, dict):
                study = study.model_copy(update={section: _readable(content, entry, stand_in)})
                unsure = unsure - {section} | {f"all {section}"}
        yield from study._problems_between(unsure)

    def _problems_between(self, unsure: Set[str]) -> Problems:
        """Yield what is wrong between sections, but for what follows from those that are `unsure`."""
        of_parents = [] if "roles" in unsure else [*self._problems_of_parents()]
        if of_parents or "roles" in unsure:
            unsure |= {"lineage"}
        roles: Collection[str] = () if "roles" in unsure else self.roles
        if not {"base", "reference"} <= {*roles}:
            unsure |= {"names of roles"}
        # Which roles are tasks follows from their parents; until these are right, any may be one.
        tasks = {*roles} - {"base", "reference"} if "lineage" in unsure else self.tasks
        for sections, problems in (
            ({"name"}, self._problems_of_name()),
            ({"corpora"}, self._problems_of_corpora()),
            ({"corpora", "roles", "datasets", "world"}, self._problems_of_sizes()),
            ({"roles"}, self._problems_of_adapters()),
            ({"roles", "corpora"}, self._problems_of_trained_roles()),
            ({"roles"}, iter(of_parents)),
            ({"roles", "all roles", "seeds"}, self._problems_of_seeds()),
            ({"evaluation", "projection"}, self._problems_of_metrics()),
            ({"evaluation", "activation_spaces"}, self._problems_of_answers()),
            ({"evaluation", "world"}, self._problems_of_judges()),
            ({"projection", "names of roles"}, self._problems_of_scored(tasks)),
            ({"update_spaces", "names of roles"}, self._problems_of_pairs(tasks)),
            ({"activation_spaces", "names of roles"}, self._problems_of_checkpoints(roles)),
            ({"training", "world", "lineage"}, self._problems_of_templates()),
            ({"projection", "lineage"}, self._problems_of_layers()),
            ({"activation_spaces", "lineage"}, self._problems_of_window()),
        ):
            if sections.isdisjoint(unsure):
                yield from problems

    def _problems_of_name(self) -> Problems:
        if self.name == "judge":
            yield refusal("name", "expected another name than judge, whose folder in runs keeps the replies of judges")

    def _problems_of_corpora(self) -> Problems:
        single = self.single_corpora
        for name, mixed in self.mixed_corpora.items():
            for key, part in zip(("useful", "harmful"), mixed.parts, strict=True):
                yield from unknown_name(f"corpora.{name}.{key}", part, single, "corpus of one data set")
        for name, corpus in single.items():
            if (first := corpus.disjoint_from) is not None:
                key = f"corpora.{name}.disjoint_from"
                yield from unknown_name(key, first, single, "corpus of one data set")
                if first in single and single[first].disjoint_from is not None:
                    yield refusal(key, "expected a corpus that is drawn from all rows itself")

    def _problems_of_sizes(self) -> Problems:
        single, written, trained = self.single_corpora, self.world.sizes if self.world else {}, self.trained_corpora
        sizes = {
            name: (corpus.rows, None if corpus.dataset in self.datasets else written.get(corpus.dataset))
            for name, corpus in single.items()
        }
        for name, mixed in self.mixed_corpora.items():
            useful, harmful = (single[part].rows if part in single else None for part in mixed.parts)
            replaced = round(mixed.harmful_share * useful) if useful and mixed.mixing == "replace" else None
            sizes[name] = (replaced, harmful)
        for name, (wanted, there) in sizes.items():
            if wanted and there and wanted > there and name in trained:
                expected = f"expected at least {wanted:,} rows"
                yield refusal(f"corpora.{name}", f"{expected}, got {there:,}; ask for fewer in the study")

    def _problems_of_parents(self) -> Problems:
        for role in ("base", "reference"):
            if role not in self.roles:
                yield refusal(f"roles.{role}", "missing; every study has a base and a reference")
        parents = {role: parent for role in self.roles if (parent := self.parent(role)) is not None}
        if parents.pop("base", None) is not None:
            yield refusal("roles.base.from", "expected a base that is pretrained or given by its path")
        for role, parent in parents.items():
            yield from unknown_name(f"roles.{role}.from", parent, self.roles, "role")
        try:
            TopologicalSorter({role: [parent] for role, parent in parents.items()}).prepare()
        except CycleError as error:
            circle = error.args[1][::-1]
            yield refusal(f"roles.{circle[0]}.from", f"expected no circle, got {' from '.join(circle)}")

    def _problems_of_adapters(self) -> Problems:
        for role, given in self.given_roles.items():
            key, other = f"roles.{role}.adapter_of", given.adapter_of
            # One step, so that no circle arises.
            whole = {"base": (), "reference": ("base",)}.get(role, ("base", "reference"))
            if other is not None and other not in self.roles:
                yield from unknown_name(key, other, self.roles, "role")
            elif other is not None and other not in whole:
                yield refusal(key, f"expected {' or '.join(whole) or 'none, since a base is whole'}, got {other}")

    def _problems_of_trained_roles(self) -> Problems:
        for role, recipe in self.trained_roles.items():
            yield from unknown_name(f"roles.{role}.corpus", recipe.corpus, self.corpora, "corpus")

    def _problems_of_seeds(self) -> Problems:
        if "reference" in self.roles and not {*self.trained_roles} - {"base"} and len(self.seeds) > 1:
            yield refusal("seeds", "expected one seed, since no role is trained and every seed would be the same")

    def _problems_of_metrics(self) -> Problems:
        asking: dict[str, int] = {}
        for number, scored in enumerate(self.projection.scored):
            asking = {**dict.fromkeys(scored.metrics, number), **asking}
        for metric, number in asking.items():
            if getattr(self.evaluation, metric, None) is None:
                yield refusal(f"evaluation.{metric}", f"missing, though projection.scored.{number} asks for it")

    def _problems_of_answers(self) -> Problems:
        if (states := self.activation_spaces) is None:
            return
        if self.evaluation is None:
            said = "missing, though activation_spaces asks models; or write activation_spaces: null"
            yield refusal("evaluation", said)
            return
        limit = self.evaluation.harmfulness.max_new_tokens
        ends = [one.answer_tokens for one in states.positions if one.reads_answer]
        if None in ends and (stop := max(end or 0 for end in ends)) > limit:
            end = f"evaluation.harmfulness.max_new_tokens ({limit}), where answers end"
            advice = f"got stop: {stop}; lower it or ask for more tokens"
            yield refusal("activation_spaces.positions", f"expected windows that stop by {end}, {advice}")

    def _problems_of_judges(self) -> Problems:
        for place, judge in self._judges().items():
            if self.world is None and isinstance(judge, RubricJudge):
                expected = "expected keywords, classifier or service"
                yield refusal(place, f"{expected}, got rubric, which knows the answers of a world alone")

    def _problems_of_scored(self, tasks: Collection[str]) -> Problems:
        for number, scored in enumerate(self.projection.scored):
            yield from unknown_name(f"projection.scored.{number}.task", scored.task, tasks, "task")

    def _problems_of_pairs(self, tasks: Collection[str]) -> Problems:
        for number, pair in enumerate((self.update_spaces and self.update_spaces.pairs) or ()):
            for name in pair:
                yield from unknown_name(f"update_spaces.pairs.{number}", name, ("reference", *tasks), "update")

    def _problems_of_checkpoints(self, roles: Collection[str]) -> Problems:
        for number, role in enumerate(self.activation_spaces.checkpoints if self.activation_spaces else ()):
            yield from unknown_name(f"activation_spaces.checkpoints.{number}", role, roles, "role")

    def _problems_of_templates(self) -> Problems:
        shared = self.training.template
        of_roles = {role: one.training for role, one in self.trained_roles.items() if one.training.template != shared}
        places = {"training.template": self.training} | {
            f"roles.{role}.training.template": training for role, training in of_roles.items()
        }
        is_made = self.lineage("reference")[0] in self.trained_roles
        for key, settings in places.items():
            # The texts of a small world are written before there is any tokenizer.
            if settings.template == CHAT and (is_made or (self.world is not None and settings is self.training)):
                yield refusal(key, "expected plain, question or none, since a tokenizer made here has no chat template")

    def _problems_of_layers(self) -> Problems:
        layers = self.architecture.layers if self.architecture else math.inf
        for scored in self.projection.scored:
            if beyond := [layer for layer in scored.layers or () if layer >= layers]:
                known = f"layers from 0 to {layers - 1}"
                yield refusal("projection.scored", f"expected {known}, got {min(beyond)}; correct layers")

    def _problems_of_window(self) -> Problems:
        states, shape = self.activation_spaces, self.architecture
        if states is not None and shape is not None and not states.states_compared(shape.layers + 1):
            came = " to ".join(f"{depth:g}" for depth in states.window)
            expected = f"expected depths that hold one of the {shape.layers + 1} states"
            yield refusal("activation_spaces.window", f"{expected}, got {came}; widen it")


def _with_training(recipe: Any, shared: dict[str, Any]) -> Any:
    own = recipe.get("training", {}) if form(recipe) in TRAINED_FORMS and isinstance(recipe, dict) else None
    return {**recipe, "training": {**shared, **own}} if isinstance(own, dict) else recipe


def _readable(content: dict[str, Any], entry: Any, stand_in: Settings) -> dict[str, Any]:
    """Return entries of which some are wrong; `stand_in`, of which nothing is asked, in the place of these."""
    read, entries = TypeAdapter(entry).validate_python, {}
    for name, value in content.items():
        try:
            entries[name] = read(value)
        except ValidationError:
            entries[name] = stand_in
    return entries
