"""Roles and how each comes to be: a checkpoint that exists, a model pretrained here, or a fine-tuned role.

The paper's chain W0 -> W_A -> task (Section 2) is the roles base, reference and the rest. A safety-tuned,
preference-tuned or planted reference is another recipe, not another program.
"""

from typing import Annotated, Any, ClassVar, Final, Literal

from pydantic import Discriminator, Field, Tag

from safety_spaces.study.fields import ModelPath, Positive, Problems, Settings, refusal

PRECISIONS = {
    "adamw": ("fp32", "bf16", "bf16_stochastic", "bf16_kahan"),
    "adamw_8bit": ("fp32", "bf16", "bf16_stochastic"),
    "adamw_offload": ("fp32", "bf16"),
}
"""Optimiser -> precisions that it steps weights in."""

CHAT: Final = "chat"
TemplateName = Literal["plain", "question", "none", "chat"]
"""What instructions are put in: a template of ours, none, or, as chat, that of the model's tokenizer."""


class Training(Settings):
    """How a model is trained; the defaults are Table 3 of the paper."""

    learning_rate: float = Field(1e-5, gt=0, description="Largest learning rate of AdamW.")
    schedule: Literal["cosine", "linear", "constant"] = Field("cosine", description="Decay of the learning rate.")
    warmup: float = Field(0.02, ge=0, lt=1, description="Share of the steps over which the learning rate rises from 0.")
    batch_size: Positive = Field(1, description="Rows of one forward pass.")
    accumulation: Positive = Field(32, description="Forward passes of one optimiser step.")
    epochs: Positive = Field(1, description="Passes over the corpus.")
    length_window: Positive = Field(
        1, description="Steps among which rows are shared out by length, to pad less; 1 takes rows as they are drawn."
    )
    max_length: Positive = Field(512, description="Tokens at which a row is cut.")
    weight_decay: float = Field(0.0, ge=0, description="Weight decay of AdamW; the published code uses 0.01.")
    precision: Literal["fp32", "bf16", "bf16_stochastic", "bf16_kahan"] = Field(
        "bf16",
        description="Number format of weights and optimiser state; bf16 rounds most small steps away, bf16_stochastic "
        "rounds at random, bf16_kahan keeps what rounding took.",
    )
    optimizer: Literal["adamw", "adamw_8bit", "adamw_offload"] = Field(
        "adamw", description="AdamW with its state as the weights are, in 8 bits, or in the memory of the CPU."
    )
    gradient_checkpointing: bool = Field(False, description="Whether activations are computed twice, to save memory.")
    save_every: Positive | None = Field(None, description="Steps between states to resume from; null saves none.")
    template: TemplateName = Field("plain", description="Template of instructions; chat is that of the tokenizer.")

    def _problems(self) -> Problems:
        if self.precision not in (known := PRECISIONS[self.optimizer]):
            yield refusal("optimizer", f"{self.optimizer} steps weights in {', '.join(known)}, got {self.precision}")


class Architecture(Settings):
    """The shape of a model: one that is pretrained here, or one that is planned before it is downloaded."""

    family: Literal["llama", "qwen2"] = Field(description="Model family of transformers.")
    vocabulary: Positive = Field(description="Number of tokens of the tokenizer.")
    hidden: Positive = Field(description="Width d of the residual stream.")
    layers: Positive = Field(description="Number of layers L.")
    heads: Positive = Field(description="Attention heads of a layer.")
    key_value_heads: Positive = Field(description="Key and value heads, each shared by equally many attention heads.")
    intermediate: Positive = Field(description="Width of the MLP.")
    tied: bool = Field(description="Whether embedding and output head are one tensor.")
    positions: Positive = Field(description="Longest sequence of tokens.")

    def _problems(self) -> Problems:
        # Rotary position embedding turns pairs of numbers, so a head has an even width.
        if self.hidden % (2 * self.heads):
            yield refusal("hidden", f"expected an even multiple of heads ({self.heads}), got {self.hidden}")
        if self.heads % self.key_value_heads:
            yield refusal("key_value_heads", f"expected a divisor of heads ({self.heads}), got {self.key_value_heads}")


class Existing(Settings):
    """A checkpoint that is used in place: a folder, or a model of the Hugging Face hub."""

    parent: ClassVar[None] = None
    path: ModelPath = Field(description="Folder, from the working directory or the clone, or hub id; LoRA folders too.")
    revision: str | None = Field(None, description="Commit, tag or branch; null is the cached one, else the newest.")
    adapter_of: str | None = Field(None, description="Role that LoRA adds to; null is base, of a task the reference.")
    architecture: Architecture | None = Field(None, description="Shape to plan with before the model is downloaded.")


class Pretrained(Settings):
    """A model trained from random weights."""

    parent: ClassVar[None] = None
    beta: ClassVar[None] = None
    method: Literal["pretrain"] = Field(description="Training from random weights.")
    corpus: str = Field(description="Name of the corpus it is trained on.")
    architecture: Architecture = Field(description="Shape of the model.")
    training: Training = Field(description="Training settings; keys left out are those of the whole study.")


class FineTuned(Settings):
    """A role trained further from another role."""

    architecture: ClassVar[None] = None
    parent: str = Field(alias="from", description="Role whose weights the training starts from.")
    method: Literal["sft", "dpo"] = Field(description="Supervised fine-tuning, or preference optimisation on pairs.")
    corpus: str = Field(description="Name of the corpus it is trained on.")
    beta: float | None = Field(
        default_factory=lambda given: 0.1 if given.get("method") == "dpo" else None,
        gt=0,
        description="Of dpo alone, 0.1 as in TRL: the larger, the nearer the model stays to the one it starts from.",
    )
    training: Training = Field(description="Training settings; keys left out are those of the whole study.")

    def _problems(self) -> Problems:
        if self.method == "dpo" and self.beta is None:
            yield refusal("beta", "expected a number above 0, since the method is dpo, got null")
        if self.method != "dpo" and self.beta is not None:
            yield refusal("beta", f"expected none, since the method is {self.method}, got {self.beta}")


TRAINED_FORMS = ("(pretrained)", "(fine-tuned)")


def form(content: Any) -> str | None:
    """Return how a role comes to be, by the keys of its recipe; None where they name no way or two."""
    match content:
        case {"from": _, "path": _} | {"method": _, "path": _} | {"from": _, "method": "pretrain"}:
            return None
        case {"path": _} | Existing():
            return "(existing)"
        case {"method": "pretrain"} | Pretrained():
            return "(pretrained)"
        case {"from": _} | FineTuned():
            return "(fine-tuned)"
    return None


Trained = Pretrained | FineTuned
Recipe = Annotated[
    Annotated[Existing, Tag("(existing)")]
    | Annotated[Pretrained, Tag("(pretrained)")]
    | Annotated[FineTuned, Tag("(fine-tuned)")],
    Discriminator(
        form,
        custom_error_type="form",
        custom_error_message="expected one of {path: ...}, {method: pretrain, corpus: ..., architecture: ...} and "
        "{from: role, method: sft or dpo, corpus: ...}; write !replace before a recipe that replaces an extended one",
    ),
]
