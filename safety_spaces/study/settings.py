"""The experiments: what is projected and scored, what is compared.

Where the paper's text and its published code differ, the default is the corrected reading and the published one is
another value of the same field, so that the difference can be measured.
"""

from collections import Counter
from typing import Any, Final, Literal

from pydantic import Field, model_validator

from safety_spaces.study.corpora import Selection
from safety_spaces.study.fields import (
    Depth,
    Different,
    DifferentOrNone,
    Increasing,
    IncreasingOrNone,
    NotNegative,
    Pair,
    Positive,
    Problems,
    Settings,
    Shares,
    Text,
    Window,
    Word,
    part_of,
    refusal,
)
from safety_spaces.study.positions import Position, SingleToken
from safety_spaces.tensors import OWN_BASIS, RANDOM, TOP_K, Basis, Rounding, Side, Vectors

Metric = Literal["utility", "harmfulness", "general_ability", "over_refusal", "utility_margin", "harm_margin"]
OUTCOMES: Final[tuple[Metric, Metric]] = ("utility", "harmfulness")
"""What an edit of an update is to keep, and what it is to remove."""
MARGINS: Final[tuple[Metric, Metric]] = ("utility_margin", "harm_margin")
"""The same two without a judge or a scale that ends: log-likelihoods."""
Scheme = Literal["parallel", "orthogonal"]
Others = Literal["whole", "out"]
"""What becomes of the update outside the one layer that is projected: it stays whole, or none of it does."""


class Scored(Settings):
    """A task whose projected models are generated from and scored."""

    task: str = Field(description="Role whose update is projected.")
    scheme: Scheme = Field(description="Which part is kept: inside or outside the subspace.")
    metrics: Different[Metric] = Field(description="What the projected models are scored for.")
    layers: Different[NotNegative] | None = Field(None, description="Layers projected alone; null is all at once.")
    others: Different[Others] | None = Field(
        default_factory=lambda given: ("whole", "out") if given.get("layers") else None,
        description="With layers: what becomes of the update of all other tensors, those outside layers included.",
    )

    def _problems(self) -> Problems:
        if (self.layers is None) != (self.others is None):
            yield refusal("others", "expected with layers, and only with them: whole, out or both")


class OwnBasis(Settings):
    """A user's own basis: the subspace that somebody claims, put to the test in the place of top_k."""

    file: Text = Field(description="Safetensors file with orthonormal columns, in order, for each tensor in it.")
    side: Side = Field("left", description="Side of the tensors that the columns span a subspace of.")


class Projection(Settings):
    """Task updates projected onto subspaces of the reference update (Sections 3 and 4 of the paper)."""

    side: Side = Field("left", description="Side of the subspace; residual is the side of the residual stream.")
    rounding: Rounding = Field("floor", description="How fraction times size becomes k; round is published.")
    weights_dtype: Literal["float32", "bfloat16", "float16"] = Field(
        "float32", description="Number format of the model that is scored; float16 is published."
    )
    tied: Literal["once", "twice"] = Field("once", description="How often a tied tensor counts; twice is published.")
    vectors: Vectors = Field("project", description="What becomes of one-dimensional tensors.")
    basis: OwnBasis | None = Field(None, description="A user's own basis, which bases then name first, as file.")
    bases: Different[Basis] = Field(
        ("top_k", "random_k", "random"),
        description="Which directions span the subspace: the claim, and its controls, random among them.",
    )
    fractions: Shares = Field((0.01, 0.25, 0.5, 0.75, 0.99), description="Fractions rho of directions that are kept.")
    energy_draws: Positive = Field(5, description="Draws of each random basis whose energies are measured.")
    score_draws: Positive = Field(2, description="Draws of each random basis whose models are scored.")
    scored: DifferentOrNone[Scored] = Field(description="Projections scored; none leaves energies and checkpoints.")
    doses: IncreasingOrNone[float] = Field(
        (), description="Control scaled: reference + alpha x update at these alpha, of tasks scored for both outcomes."
    )
    matched: bool = Field(
        False, description="Control matched, of the same tasks: each tensor's update at the dose of the claim's cell."
    )

    @property
    def claim(self) -> Basis:
        """The basis whose directions are said to be special; every other one is a control."""
        return TOP_K if self.basis is None else OWN_BASIS

    @property
    def dosed_tasks(self) -> dict[str, tuple[Metric, ...]]:
        """The tasks scored for both outcomes in all layers at once, and all that they are scored for."""
        whole = [one for one in self.scored if one.layers is None]
        asked = {one.task: [name for of in whole if of.task == one.task for name in of.metrics] for one in whole}
        return {task: tuple(dict.fromkeys(names)) for task, names in asked.items() if {*OUTCOMES} <= {*names}}

    def schemes(self, task: str) -> tuple[Scheme, ...]:
        """Return the schemes under which a task is scored in all layers at once."""
        return tuple(dict.fromkeys(one.scheme for one in self.scored if one.task == task and one.layers is None))

    @model_validator(mode="before")
    @classmethod
    def _take_side_of_own_basis(cls, content: Any) -> Any:
        match content:
            case {"basis": {"side": side}} if "side" not in content:
                return {**content, "side": side}
        return content

    def _problems(self) -> Problems:
        yield from self._problems_of_bases()
        lines = Counter((one.task, one.scheme, name, one.layers is None) for one in self.scored for name in one.metrics)
        for (task, scheme, metric, _), number in lines.items():
            if number > 1:
                yield refusal("scored", f"expected {metric} of {task}, {scheme}, once, got it again; join the entries")
        if ends := {0.0, 1.0} & {*self.doses}:
            yield refusal("doses", f"expected doses beside {min(ends):g}, which a checkpoint is; leave it out")
        if (most := self.energy_draws) < self.score_draws:
            yield refusal("score_draws", f"expected at most energy_draws ({most}), got {self.score_draws}")

    def _problems_of_bases(self) -> Problems:
        if self.basis is None and OWN_BASIS in self.bases:
            expected = "write basis: {file: U.safetensors, side: left}"
            yield refusal("basis", f"missing, though bases name file; {expected}")
        elif self.basis is not None and self.bases[0] != OWN_BASIS:
            yield refusal("bases", "expected file first, the basis under test; write bases: [file, random_k, random]")
        elif missing := [basis for basis in (self.claim, RANDOM) if basis not in self.bases]:
            yield refusal(
                "bases",
                f"expected {self.claim} and {RANDOM}, which the report holds against each other, got "
                f"{', '.join(self.bases)}; add {' and '.join(missing)}",
            )
        if self.basis is not None and self.side != (side := self.basis.side):
            yield refusal("side", f"expected {side}, the side of projection.basis, got {self.side}; write side: {side}")


class UpdateSpaces(Settings):
    """Overlap of the subspaces of weight updates (Section 5 of the paper)."""

    etas: Shares = Field(description="Energy levels eta at which two subspaces are compared.")
    percentiles: Increasing[Depth] = Field((0.70, 0.85), description="Depths p of the layers floor(p L) shown.")
    pairs: Different[Pair] | None = Field(None, description="Updates compared; null is all of tasks and reference.")


KINDS_OF_SETS = {"useful": 1, "harmful": 2, "refusal": 0}
"""Kind of a prompt set, the first word of its name -> how many sets of it a study has, at least."""


class ActivationSpaces(Settings):
    """Overlap of the subspaces of hidden states (Section 6 of the paper)."""

    positions: Different[Position] = Field(
        (SingleToken.last_prompt_token,), description="Tokens whose states are taken, those of the main figures first."
    )
    prompts: Positive = Field(description="Prompts of each set.")
    etas: Shares = Field(description="Energy levels eta at which two subspaces are compared.")
    window: Window = Field((0.65, 0.90), description="Depths between which states are compared, the first included.")
    checkpoints: Different[str] = Field(description="Roles whose states are taken.")
    toxigen: Literal["toxic", "unfiltered"] = Field("toxic", description="Harmful rows of ToxiGen, or all (published).")
    sets: dict[Word, Selection] = Field(description="Prompt sets by name: useful ..., harmful ... or refusal ...")

    @property
    def reads_answers(self) -> bool:
        """Whether a position lies in the answer, so that the model generates before its states are read."""
        return any(position.reads_answer for position in self.positions)

    def states_compared(self, number: int) -> range:
        """Return the states of the window, of the `number` that a model has: one more than layers."""
        low, high = (part_of(edge, number) for edge in self.window)
        return range(low, high)

    def _problems(self) -> Problems:
        if SingleToken.last_column in self.positions and self.reads_answers:
            yield refusal(
                "positions",
                "expected last_column without positions in the answer, since it is the last of the padded prompts; "
                "give one of them a study of its own",
            )
        kinds = [name.split("_")[0] for name in self.sets]
        if unknown := [name for name, kind in zip(self.sets, kinds, strict=True) if kind not in KINDS_OF_SETS]:
            names = "useful, harmful_1 and harmful_2, or refusal, whatever follows the first word"
            yield refusal("sets", f"expected names like {names}, got {', '.join(unknown)}")
        elif any(kinds.count(kind) < least for kind, least in KINDS_OF_SETS.items()):
            yield refusal("sets", f"expected a useful set and two harmful ones, got {', '.join(self.sets)}; add them")
