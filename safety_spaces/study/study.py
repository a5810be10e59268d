"""A whole study, and what holds between its sections: every name that one section uses is defined by another."""

from collections.abc import Iterable
from itertools import combinations
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from safety_spaces.study.corpora import Corpus, DataFile, MixedCorpus, World
from safety_spaces.study.evaluation import Evaluation
from safety_spaces.study.fields import Different, FileName, NotNegative, Positive, Settings, Word, known_names, refusal
from safety_spaces.study.judges import Judge
from safety_spaces.study.recipes import Existing, FineTuned, Recipe, Training
from safety_spaces.study.settings import ActivationSpaces, Pair, Projection, UpdateSpaces


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
    seeds: Annotated[tuple[NotNegative, ...], *Different] = Field(
        description="Seeds from which the reference and the tasks are trained again."
    )
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
        if self.update_spaces is None:
            return ()
        return self.update_spaces.pairs or tuple(combinations((*self.tasks, "reference"), 2))

    @property
    def judges(self) -> tuple[Judge, ...]:
        """Every judge of the study; none where it asks no model."""
        return tuple(self.evaluation.judges_by_place.values()) if self.evaluation else ()

    @property
    def tasks(self) -> tuple[str, ...]:
        """The roles that are fine-tuned from the reference, here or, where a role is given by its path, elsewhere."""
        others = (role for role in self.roles if role not in ("base", "reference"))
        return tuple(role for role in others if self.parent(role) in ("reference", None))

    def parent(self, role: str) -> str | None:
        """Return the role that a role is fine-tuned from, None for a model that is given or pretrained."""
        recipe = self.roles[role]
        return recipe.parent if isinstance(recipe, FineTuned) else None

    def lineage(self, role: str) -> tuple[str, ...]:
        """Return the roles that lead to a role, the oldest first and the role itself last."""
        parent = self.parent(role)
        return (*self.lineage(parent), role) if parent else (role,)

    def order_of_roles(self) -> tuple[str, ...]:
        """Return all roles, parents before their children, else as the file orders them."""
        return tuple(sorted(self.roles, key=lambda role: len(self.lineage(role))))

    def is_per_seed(self, role: str) -> bool:
        """Say whether a role has a checkpoint for each seed: all that are trained here have, but for the one base."""
        return role != "base" and not isinstance(self.roles[role], Existing)

    def training_of(self, role: str) -> Training:
        """Return a role's training settings: the study's, with the role's own on top.

        Raises:
            KeyError: the role does not exist, or is given by its path and not trained.
        """
        recipe = self.roles[role]
        if isinstance(recipe, Existing):
            raise KeyError(f"{role} is not trained")
        return recipe.training

    @model_validator(mode="before")
    @classmethod
    def _hand_training_to_roles(cls, content: Any) -> Any:
        match content:
            case {"training": dict(shared), "roles": dict(roles)}:
                return {**content, "roles": {role: _with_training(recipe, shared) for role, recipe in roles.items()}}
        return content

    @model_validator(mode="after")
    def _names_are_defined(self) -> "Study":
        if self.name == "judge":
            raise refusal("name", "expected another name than judge, whose folder in runs keeps the replies of judges")
        for role in ("base", "reference"):
            if role not in self.roles:
                raise refusal(f"roles.{role}", "missing; every study has a base and a reference")
        self._check_recipes()
        self._check_mixtures()
        for number, scored in enumerate(self.projection.scored):
            _check_known(f"projection.scored.{number}.task", scored.task, self.tasks, "task")
            for metric in scored.metrics:
                if getattr(self.evaluation, metric, None) is None:
                    raise refusal(f"evaluation.{metric}", f"missing, though projection.scored.{number} asks for it")
        for number, pair in enumerate(self.update_pairs):
            for name in pair:
                _check_known(f"update_spaces.pairs.{number}", name, ("reference", *self.tasks), "update")
        if self.activation_spaces is not None and self.evaluation is None:
            raise refusal(
                "evaluation", "missing, though activation_spaces asks models; or write activation_spaces: null"
            )
        for number, role in enumerate(self.activation_spaces.checkpoints if self.activation_spaces else ()):
            _check_known(f"activation_spaces.checkpoints.{number}", role, self.roles, "role")
        return self

    def _check_recipes(self) -> None:
        if self.parent("base"):
            raise refusal("roles.base.from", "expected a base that is pretrained or given by its path")
        for role, recipe in self.roles.items():
            if isinstance(recipe, Existing):
                self._check_adapter(role, recipe)
                continue
            _check_known(f"roles.{role}.corpus", recipe.corpus, self.corpora, "corpus")
            if isinstance(recipe, FineTuned):
                _check_known(f"roles.{role}.from", recipe.parent, self.roles, "role")
        for role in self.roles:
            self._check_acyclic(role)
        trained = [role for role, recipe in self.roles.items() if not isinstance(recipe, Existing) and role != "base"]
        if not trained and len(self.seeds) > 1:
            raise refusal("seeds", "expected one seed, since no role is trained and every seed would be the same")

    def _check_adapter(self, role: str, recipe: Existing) -> None:
        if recipe.adapter_of is None:
            return
        _check_known(f"roles.{role}.adapter_of", recipe.adapter_of, self.roles, "role")
        # One step, so that no circle can arise: a task adds to the reference or the base, the reference to the base.
        if recipe.adapter_of not in {"base", "reference"} - {role} or role == "base":
            raise refusal(f"roles.{role}.adapter_of", f"expected base or reference, got {recipe.adapter_of}")

    def _check_acyclic(self, role: str) -> None:
        chain = [role]
        while parent := self.parent(chain[-1]):
            if parent in chain:
                raise refusal(f"roles.{role}.from", f"expected no circle, got {' from '.join([*chain, parent])}")
            chain.append(parent)

    def _check_mixtures(self) -> None:
        single = [name for name, corpus in self.corpora.items() if not isinstance(corpus, MixedCorpus)]
        for name, corpus in self.corpora.items():
            if isinstance(corpus, MixedCorpus):
                _check_known(f"corpora.{name}.useful", corpus.useful, single, "corpus of one data set")
                _check_known(f"corpora.{name}.harmful", corpus.harmful, single, "corpus of one data set")
            elif corpus.disjoint_from is not None:
                _check_known(f"corpora.{name}.disjoint_from", corpus.disjoint_from, single, "corpus of one data set")
                if self.corpora[corpus.disjoint_from].disjoint_from is not None:  # type: ignore[union-attr]
                    raise refusal(
                        f"corpora.{name}.disjoint_from", "expected a corpus that is drawn from all rows itself"
                    )


def _with_training(recipe: Any, shared: dict[str, Any]) -> Any:
    match recipe:
        case {"method": _, "training": dict(own)}:
            return {**recipe, "training": {**shared, **own}}
        case {"method": _} if "training" not in recipe:
            return {**recipe, "training": shared}
    return recipe


def _check_known(key: str, name: str, known: Iterable[str], kind: str) -> None:
    if name not in (names := list(known)):
        raise refusal(key, f"no {kind} is named {name!r}; {known_names(name, names)}")
