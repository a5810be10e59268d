"""The sections of a study file, and what follows from them: tasks, parents, judges, pairs."""

from itertools import combinations
from typing import Literal

from pydantic import Field

from safety_spaces.study.corpora import Corpus, DataFile, MixedCorpus, SingleCorpus, World
from safety_spaces.study.evaluation import Evaluation
from safety_spaces.study.fields import Different, FileName, NotNegative, Pair, Positive, Settings, Shares, Text, Word
from safety_spaces.study.judges import ClassifierJudge, Judge, ServiceJudge
from safety_spaces.study.recipes import Architecture, Existing, Recipe, TemplateName, Trained, Training
from safety_spaces.study.settings import ActivationSpaces, Metric, Projection, UpdateSpaces


class Gpu(Settings):
    """The card that a plan is made for, and what it sustains: assumptions that the hours rest on."""

    name: Text = Field("the card of the study", description="Name of the card, as a plan says it.")
    memory: float = Field(gt=0, description="Memory in GiB.")
    flops: float = Field(gt=0, description="Floating-point operations a second in training.")
    bandwidth: float = Field(gt=0, description="Bytes of memory a second in generation.")


class Evidence(Settings):
    """What is decided before anything is scored: how large an effect counts, and how sure a verdict is."""

    margin: float = Field(0.15, gt=0, description="Largest effect that counts as none: a share of the update's dose.")
    reason: Text = Field(
        "an edit that spares less than a seventh of the update's dose defends nothing",
        description="Why this margin.",
    )
    fractions: Shares = Field(
        (0.25, 0.5, 0.75),
        description="Fractions that decide, of those projected; all where the study has none of them.",
    )
    expected_gap: dict[Metric, float] = Field(
        {"utility": 0.2, "harmfulness": 2.0},
        description="What a plan takes a task to add, from which it says what it can detect.",
    )
    resamples: Positive = Field(2000, description="Resamples of prompts that intervals rest on.")
    seed: NotNegative = Field(0, description="Seed of the resamples.")
    answers: NotNegative = Field(8, description="Prompts of each outcome whose answers report.html shows.")


class Sections(Settings):
    """What one study file says, and what follows from it."""

    name: FileName = Field(description="Name of the study and of its folders of results and runs.")
    model: Text = Field(description="Label of the model in the tables.")
    reference_kind: Literal["aligned", "safety_tuned", "dpo"] = Field(
        "aligned", description="How the reference came to be aligned."
    )
    seeds: Different[NotNegative] = Field(
        description="Seeds from which everything that the study trains is trained again."
    )
    threads: Positive = Field(1, description="CPU threads of a process; as many make the same bytes.")
    workers: Positive | None = Field(None, description="Processes; null is what cores and memory allow, one on a GPU.")
    gpu: Gpu | None = Field(None, description="The card of a plan; null plans no times and refuses nothing.")
    world: World | None = Field(None, description="The small world whose corpora are written; null for real data.")
    datasets: dict[FileName, DataFile] = Field({}, description="Data sets that are read from files of the user.")
    training: Training = Field(Training(), description="Training settings of every role that does not say otherwise.")
    corpora: dict[Word, Corpus] = Field({}, description="Training texts by name.")
    roles: dict[Word, Recipe] = Field(description="Models by name: base, reference, and the tasks.")
    projection: Projection = Field(description="Task updates projected onto subspaces of the reference update.")
    update_spaces: UpdateSpaces | None = Field(
        description="Overlap of the subspaces of weight updates; null leaves it to another study of the same models."
    )
    activation_spaces: ActivationSpaces | None = Field(description="Overlap of hidden states; null compares none.")
    evidence: Evidence = Field(Evidence(), description="How large an effect counts, settled before the first score.")
    evaluation: Evaluation | None = Field(description="How a model is questioned; null for a study of weights alone.")

    @property
    def update_pairs(self) -> tuple[Pair, ...]:
        """The updates that are compared, two by two; none where the study leaves them to another one."""
        every = tuple(combinations((*self.tasks, "reference"), 2))
        return self.update_spaces.pairs or every if self.update_spaces else ()

    @property
    def services(self) -> tuple[ServiceJudge, ...]:
        """The judges behind a service."""
        return tuple(judge for judge in self._judges().values() if isinstance(judge, ServiceJudge))

    @property
    def classifiers(self) -> tuple[ClassifierJudge, ...]:
        """The judges that are classifiers."""
        return tuple(judge for judge in self._judges().values() if isinstance(judge, ClassifierJudge))

    def _judges(self) -> dict[str, Judge]:
        return self.evaluation.judges_by_place if self.evaluation else {}

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
        """Say whether a role has a checkpoint for each seed: all that are trained here have, the base too."""
        return role in self.trained_roles

    def training_of(self, role: str) -> Training:
        """Return a role's training settings: the study's, with the role's own on top; KeyError if it has none."""
        return self.trained_roles[role].training
