"""The experiments: what is projected and scored, what is compared.

Where the paper's text and its published code differ, the default is the corrected reading and the published one is
another value of the same field, so that the difference can be measured.
"""

from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag, model_validator

from safety_spaces.study.corpora import Selection
from safety_spaces.study.fields import (
    Depth,
    Different,
    DifferentOrNone,
    Increasing,
    NotNegative,
    Positive,
    Settings,
    Share,
    Shares,
    Word,
    refusal,
)
from safety_spaces.tensors import OWN_BASIS, TOP_K, Rounding, Side, Vectors

Pair = Annotated[tuple[str, str], *Different]
Metric = Literal["utility", "harmfulness", "general_ability", "over_refusal"]
Others = Literal["whole", "out"]
"""What becomes of the update outside the one layer that is projected: it stays whole, or none of it does."""


class Scored(Settings):
    """A task whose projected models are generated from and scored."""

    task: str = Field(description="Role whose update is projected.")
    scheme: Literal["parallel", "orthogonal"] = Field(description="Which part is kept: inside or outside the subspace.")
    metrics: Annotated[tuple[Metric, ...], *Different] = Field(description="What the projected models are scored for.")
    layers: Annotated[tuple[NotNegative, ...], *Different] | None = Field(
        None, description="Layers projected alone, one model each, counted from 0; null projects all tensors at once."
    )
    others: Annotated[tuple[Others, ...], *Different] | None = Field(
        default_factory=lambda given: ("whole", "out") if given.get("layers") else None,
        description="With layers: what becomes of the update of all other tensors, those outside layers included.",
    )

    @model_validator(mode="after")
    def _others_go_with_layers(self) -> "Scored":
        if (self.layers is None) != (self.others is None):
            raise refusal("others", "expected with layers, and only with them: whole, out or both")
        return self


class OwnBasis(Settings):
    """A user's own basis: the subspace that somebody claims, put to the test in the place of top_k."""

    file: str = Field(
        min_length=1,
        description="Safetensors file with orthonormal columns in order for each tensor that it names.",
    )
    side: Side = Field("left", description="Side of the tensors that the columns span a subspace of.")


class Projection(Settings):
    """Task updates projected onto subspaces of the reference update (Sections 3 and 4 of the paper)."""

    side: Side = Field(
        "left",
        description="Side of the matrix the subspace is taken from; residual is the side of the residual stream.",
    )
    rounding: Rounding = Field("floor", description="How fraction times size becomes k; round is published.")
    weights_dtype: Literal["float32", "bfloat16", "float16"] = Field(
        "float32", description="Number format of the model that is scored; float16 is published."
    )
    tied: Literal["once", "twice"] = Field("once", description="How often a tied tensor counts; twice is published.")
    vectors: Vectors = Field("project", description="What becomes of one-dimensional tensors.")
    basis: OwnBasis | None = Field(None, description="A user's own basis, which bases then name first, as file.")
    bases: Annotated[tuple[Literal["file", "top_k", "random_k", "random"], ...], *Different] = Field(
        ("top_k", "random_k", "random"), description="Which directions span the subspace; the claim stands first."
    )
    fractions: Shares = Field(
        (0.01, 0.25, 0.5, 0.75, 0.99), description="Fractions rho of the directions that are kept."
    )
    energy_draws: Positive = Field(5, description="Draws of each random basis whose energies are measured.")
    score_draws: Positive = Field(2, description="Draws of each random basis whose models are scored.")
    scored: Annotated[tuple[Scored, ...], *DifferentOrNone] = Field(
        description="Tasks and schemes whose models are scored; none leaves energies, and scores of the checkpoints."
    )

    @property
    def claim(self) -> Literal["file", "top_k"]:
        """The basis whose directions are said to be special; every other one is a control."""
        return TOP_K if self.basis is None else OWN_BASIS

    @property
    def projected_side(self) -> Side:
        """The side that updates are projected on: that of the user's own basis where there is one."""
        return self.side if self.basis is None else self.basis.side

    @model_validator(mode="before")
    @classmethod
    def _take_side_of_own_basis(cls, content: Any) -> Any:
        match content:
            case {"basis": {"side": side}} if "side" not in content:
                return {**content, "side": side}
        return content

    @model_validator(mode="after")
    def _own_basis_is_the_claim(self) -> "Projection":
        if self.basis is None:
            if OWN_BASIS in self.bases:
                raise refusal(
                    "basis", "missing, though bases name file; write basis: {file: U.safetensors, side: left}"
                )
            return self
        if self.bases[0] != OWN_BASIS:
            raise refusal("bases", "expected file first, the basis under test; write bases: [file, random_k, random]")
        if self.side != (side := self.basis.side):
            raise refusal("side", f"expected {side}, the side of projection.basis, got {self.side}; write side: {side}")
        return self

    @model_validator(mode="after")
    def _no_line_is_scored_twice(self) -> "Projection":
        lines = [(one.task, one.scheme, metric, one.layers is None) for one in self.scored for metric in one.metrics]
        for task, scheme, metric, _ in (line for line in lines if lines.count(line) > 1):
            raise refusal("scored", f"expected {metric} of {task}, {scheme}, once, got it again; join the entries")
        return self

    @model_validator(mode="after")
    def _scored_draws_are_measured(self) -> "Projection":
        if self.score_draws > self.energy_draws:
            raise refusal("score_draws", f"expected at most energy_draws ({self.energy_draws}), got {self.score_draws}")
        return self


class UpdateSpaces(Settings):
    """Overlap of the subspaces of weight updates (Section 5 of the paper)."""

    etas: Shares = Field(description="Energy levels eta at which two subspaces are compared.")
    percentiles: Annotated[tuple[Depth, ...], *Increasing] = Field(
        (0.70, 0.85), description="Depths p of the layers shown: layer floor(p L), counted from 0."
    )
    pairs: Annotated[tuple[Pair, ...], *Different] | None = Field(
        None, description="Updates that are compared, two by two; null takes every two of tasks and reference."
    )


class TokenWindow(Settings):
    """Early tokens of a prompt or of an answer, counted from 0 (Appendix K.2)."""

    of: Literal["prompt", "generated"] = Field(description="Whether tokens of the prompt or of the answer are taken.")
    start: NotNegative = Field(0, description="First token of the window.")
    stop: Positive = Field(description="Token before which the window ends.")
    combine: Literal["stacked", "averaged"] = Field(
        description="Whether every token gives a state, or all tokens of a prompt their mean."
    )

    @model_validator(mode="after")
    def _holds_a_token(self) -> "TokenWindow":
        if self.stop <= self.start:
            raise refusal("stop", f"expected more than start ({self.start}), got {self.stop}")
        return self


TokenPosition = Literal["last_prompt_token", "last_generated_token", "last_column"]


def _position_form(content: Any) -> str:
    return "(window)" if isinstance(content, dict | TokenWindow) else "(token)"


Position = Annotated[
    Annotated[TokenPosition, Tag("(token)")] | Annotated[TokenWindow, Tag("(window)")],
    Discriminator(_position_form),
]
"""One token of each prompt by its name (last_column, padded or not, is the published code's), or an early window."""


class ActivationSpaces(Settings):
    """Overlap of the subspaces of hidden states (Section 6 of the paper)."""

    positions: Annotated[tuple[Position, ...], *Different] = Field(
        ("last_prompt_token",),
        description="Tokens whose states are taken; the first position is the one of the main figures.",
    )
    prompts: Positive = Field(description="Prompts of each set.")
    etas: Shares = Field(description="Energy levels eta at which two subspaces are compared.")
    window: Annotated[tuple[Depth, Share], *Increasing] = Field(
        (0.65, 0.90), description="Depths between which states are compared, the first included."
    )
    checkpoints: Annotated[tuple[str, ...], *Different] = Field(description="Roles whose states are taken.")
    toxigen: Literal["toxic", "unfiltered"] = Field(
        "toxic", description="Rows of ToxiGen that count as harmful; unfiltered is published."
    )
    sets: Annotated[dict[Word, Selection], Field(min_length=2)] = Field(description="Prompt sets by name.")

    @property
    def reads_answers(self) -> bool:
        """Whether a position lies in the answer, so that the model generates before its states are read."""
        return any(
            position.of == "generated" if isinstance(position, TokenWindow) else position == "last_generated_token"
            for position in self.positions
        )

    @model_validator(mode="after")
    def _columns_end_with_the_prompt(self) -> "ActivationSpaces":
        if "last_column" in self.positions and self.reads_answers:
            raise refusal(
                "positions",
                "expected last_column without positions in the answer, since it is the last of the padded prompts; "
                "give one of them a study of its own",
            )
        return self
