"""A whole study, and what holds between its sections: every name that one section uses is defined by another."""

from collections.abc import Collection, Mapping
from graphlib import CycleError, TopologicalSorter
from itertools import combinations
from typing import Any, Literal

from pydantic import Field, ValidationError, model_validator

from safety_spaces.study.corpora import Corpus, DataFile, MixedCorpus, SingleCorpus, World
from safety_spaces.study.evaluation import Evaluation
from safety_spaces.study.fields import (
    Different,
    FileName,
    NotNegative,
    Pair,
    Positive,
    Problems,
    Settings,
    Word,
    Wrong,
    refusal,
    unknown_name,
)
from safety_spaces.study.judges import ClassifierJudge, Judge, RubricJudge, ServiceJudge
from safety_spaces.study.recipes import (
    CHAT,
    Architecture,
    Existing,
    Recipe,
    TemplateName,
    Trained,
    Training,
)
from safety_spaces.study.settings import ActivationSpaces, Projection, UpdateSpaces


class Gpu(Settings):
    """The card that a plan is made for, and what it sustains: assumptions that the hours rest on."""

    name: str = Field("the card of the study", min_length=1, description="Name of the card, as a plan says it.")
    memory: float = Field(gt=0, description="Memory in GiB.")
    flops: float = Field(gt=0, description="Floating-point operations a second in training.")
    bandwidth: float = Field(gt=0, description="Bytes of memory a second in generation.")


class Study(Settings):
    """What one study file says."""

    name: FileName = Field(description="Name of the study and of its folders of results and runs.")
    model: str = Field(min_length=1, description="Label of the model in the tables.")
    reference_kind: Literal["aligned", "safety_tuned", "dpo"] = Field(
        "aligned", description="How the reference came to be aligned."
    )
    seeds: Different[NotNegative] = Field(description="Seeds from which the reference and the tasks are trained again.")
    threads: Positive = Field(
        1, description="CPU threads of a process; results are the same bytes for the same number."
    )
    workers: Positive | None = Field(
        None, description="Processes side by side; null is as many as cores and memory allow, and one on a GPU."
    )
    gpu: Gpu | None = Field(
        None, description="The card that a plan is made for; null plans no times and refuses nothing."
    )
    world: World | None = Field(None, description="The small world whose corpora are written; null for real data.")
    datasets: dict[FileName, DataFile] = Field({}, description="Data sets that are read from files of the user.")
    training: Training = Field(Training(), description="Training settings of every role that does not say otherwise.")
    corpora: dict[Word, Corpus] = Field({}, description="Training texts by name.")
    roles: dict[Word, Recipe] = Field(description="Models by name: base, reference, and the tasks.")
    projection: Projection = Field(description="Task updates projected onto subspaces of the reference update.")
    update_spaces: UpdateSpaces | None = Field(
        description="Overlap of the subspaces of weight updates; null leaves it to another study of the same models."
    )
    activation_spaces: ActivationSpaces | None = Field(
        description="Overlap of the subspaces of hidden states; null compares none."
    )
    evaluation: Evaluation | None = Field(description="How a model is questioned; null for a study of weights alone.")

    @property
    def update_pairs(self) -> tuple[Pair, ...]:
        """The updates that are compared, two by two; none where the study leaves them to another one."""
        every = tuple(combinations((*self.tasks, "reference"), 2))
        return self.update_spaces.pairs or every if self.update_spaces else ()

    @property
    def judges(self) -> tuple[Judge, ...]:
        """Every judge of the study; none where it asks no model."""
        return tuple(self.evaluation.judges_by_place.values()) if self.evaluation else ()

    @property
    def services(self) -> tuple[ServiceJudge, ...]:
        """The judges behind a service."""
        return tuple(judge for judge in self.judges if isinstance(judge, ServiceJudge))

    @property
    def classifiers(self) -> tuple[ClassifierJudge, ...]:
        """The judges that are classifiers."""
        return tuple(judge for judge in self.judges if isinstance(judge, ClassifierJudge))

    @property
    def prompt_template(self) -> TemplateName:
        """The template that harmful and harmless prompts and prompt sets are put in."""
        return "none" if self.evaluation and self.evaluation.template == "none" else self.training.template

    @property
    def single_corpora(self) -> dict[str, SingleCorpus]:
        """The corpora of one data set."""
        return {name: corpus for name, corpus in self.corpora.items() if isinstance(corpus, SingleCorpus)}

    @property
    def mixed_corpora(self) -> dict[str, MixedCorpus]:
        """The contaminated corpora."""
        return {name: corpus for name, corpus in self.corpora.items() if isinstance(corpus, MixedCorpus)}

    @property
    def given_roles(self) -> dict[str, Existing]:
        """The roles whose checkpoints are used in place."""
        return {role: recipe for role, recipe in self.roles.items() if isinstance(recipe, Existing)}

    @property
    def trained_roles(self) -> dict[str, Trained]:
        """The roles that are trained here."""
        return {role: recipe for role, recipe in self.roles.items() if not isinstance(recipe, Existing)}

    @property
    def trained_corpora(self) -> frozenset[str]:
        """The corpora that a role is trained on, alone or in a mixture."""
        known = [recipe.corpus for recipe in self.trained_roles.values() if recipe.corpus in self.corpora]
        return frozenset(known).union(*(self.corpora[name].parts for name in known))

    @property
    def tasks(self) -> tuple[str, ...]:
        """The roles that are fine-tuned from the reference, here or, where a role is given by its path, elsewhere."""
        others = (role for role in self.roles if role not in ("base", "reference"))
        return tuple(role for role in others if self.parent(role) in ("reference", None))

    @property
    def architecture(self) -> Architecture | None:
        """The shape of the models, where the study says it."""
        return self.roles["base"].architecture

    def parent(self, role: str) -> str | None:
        """Return the role that a role is fine-tuned from, None for a model that is given or pretrained."""
        return self.roles[role].parent

    def lineage(self, role: str) -> tuple[str, ...]:
        """Return the roles that lead to a role, the oldest first and the role itself last."""
        parent = self.parent(role)
        return (*self.lineage(parent), role) if parent else (role,)

    def order_of_roles(self) -> tuple[str, ...]:
        """Return all roles, parents before their children, else as the file orders them."""
        return tuple(sorted(self.roles, key=lambda role: len(self.lineage(role))))

    def is_per_seed(self, role: str) -> bool:
        """Say whether a role has a checkpoint for each seed: all that are trained here have, but for the one base."""
        return role != "base" and role in self.trained_roles

    def training_of(self, role: str) -> Training:
        """Return a role's training settings: the study's, with the role's own on top; KeyError if it has none."""
        return self.trained_roles[role].training

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
        roles = wrong["roles"].content if "roles" in wrong else self.roles
        of_parents = [] if "roles" in wrong else [*self._problems_of_parents()]
        unsure = {*wrong, "lineage"} if of_parents or "roles" in wrong else {*wrong}
        if not (isinstance(roles, dict) and {"base", "reference"} <= roles.keys()):
            unsure.add("names of roles")
            roles = {}
        # Which roles are tasks follows from their parents; until these are right, any may be one.
        tasks = {*roles} - {"base", "reference"} if "lineage" in unsure else self.tasks
        for sections, problems in (
            ({"name"}, self._problems_of_name()),
            ({"corpora"}, self._problems_of_corpora()),
            ({"corpora", "roles", "datasets", "world"}, self._problems_of_sizes()),
            ({"roles"}, self._problems_of_adapters()),
            ({"roles", "corpora"}, self._problems_of_trained_roles()),
            ({"roles"}, iter(of_parents)),
            ({"roles", "seeds"}, self._problems_of_seeds()),
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
            if other is not None and other not in self.roles:
                yield from unknown_name(key, other, self.roles, "role")
            # One step, so that no circle arises: a task adds to the reference or the base, the reference to the base.
            elif other is not None and (role == "base" or other not in {"base", "reference"} - {role}):
                yield refusal(key, f"expected base or reference, got {other}")

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
        for place, judge in self.evaluation.judges_by_place.items() if self.evaluation else ():
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
        layers = self.architecture.layers if self.architecture else None
        for scored in self.projection.scored if layers else ():
            if beyond := sorted({*(scored.layers or ())} - {*range(layers)}):
                known = f"layers from 0 to {layers - 1}"
                yield refusal("projection.scored", f"expected {known}, got {beyond[0]}; correct layers")

    def _problems_of_window(self) -> Problems:
        states, shape = self.activation_spaces, self.architecture
        if states is not None and shape is not None and not states.states_compared(shape.layers + 1):
            came = " to ".join(f"{depth:g}" for depth in states.window)
            expected = f"expected depths that hold one of the {shape.layers + 1} states"
            yield refusal("activation_spaces.window", f"{expected}, got {came}; widen it")


def _with_training(recipe: Any, shared: dict[str, Any]) -> Any:
    own = recipe.get("training", {}) if isinstance(recipe, dict) and "method" in recipe else None
    return {**recipe, "training": {**shared, **own}} if isinstance(own, dict) else recipe
