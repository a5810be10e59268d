"""The models of a study: where each role's checkpoint lies, whether it is there, and what identifies it. No torch."""

import functools
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from safety_spaces.errors import UserError
from safety_spaces.models import folders
from safety_spaces.models.hub import cached_model, fetch_model, is_hub_id
from safety_spaces.models.tensor_files import file_flaw
from safety_spaces.paths import is_there, resolve_path
from safety_spaces.store import Layout, digest, file_digest, read_json
from safety_spaces.study import Architecture, Existing, Recipe, Study

OF_A_RUN = re.compile(r"runs/([^/]+)/seed-\d+/checkpoints/[^/]+/?")
"""A path that names a checkpoint of another study."""
RECIPE_FILE = "recipe.json"
"""Beside the weights of a trained role: what they were trained from, and what the training did."""
CONFIG_NAMES = {
    "vocabulary": "vocab_size", "hidden": "hidden_size", "layers": "num_hidden_layers", "heads": "num_attention_heads",
    "key_value_heads": "num_key_value_heads", "intermediate": "intermediate_size",
    "positions": "max_position_embeddings", "tied": "tie_word_embeddings",
}  # fmt: skip
"""What config.json calls the fields of an architecture but for its family, model_type."""


@dataclass(frozen=True)
class Roles:
    """The checkpoints of a study by role and seed; one that is given is used in place."""

    study: Study
    layout: Layout

    def folder(self, role: str, seed: int) -> Path:
        """Return the folder of a role's checkpoint, finished or not, of another study below --runs; fetches nothing."""
        given = self.study.given_roles.get(role)
        if given is None:
            return self.layout.checkpoint(role, seed)
        if study_of(given) is not None:
            return self.layout.runs.joinpath(*Path(given.path).parts[1:])
        cached = cached_model(given.path, given.revision) if is_on_hub(given.path, given.revision) else None
        return cached or resolve_path(given.path)

    def finished(self, role: str, seed: int) -> Path:
        """Return a finished checkpoint's folder, fetched if need be; UserError if missing or of other settings."""
        given = self.study.given_roles.get(role)
        folder = self.folder(role, seed)
        if given is not None and is_on_hub(given.path, given.revision):
            folder = given_folder(given.path, given.revision)
        remedy = self.remedy(self.study.roles[role])
        folders.check_checkpoint(folder, expected=f"the finished checkpoint {role}", otherwise=remedy)
        if given is None:
            check_recipe(folder, self.recipe_settings(role))
        return folder

    def adapted(self, role: str, seed: int) -> str | None:
        """Return the role whose weights a LoRA folder adds to, else None; raises UserError for a base, or no folder."""
        given = self.study.given_roles.get(role)
        if given is None or not folders.is_adapter(folder := self.finished(role, seed)):
            return None
        if role == "base":
            raise UserError(
                f"{folder}: expected whole weights as base, got a LoRA folder; name the model that it adds to"
            )
        return given.adapter_of or ("base" if role == "reference" else "reference")

    def whole(self, role: str, seed: int) -> str:
        """Return the role whose folder holds the whole model that a role's weights are or, as LoRA folders, add to."""
        while (parent := self.adapted(role, seed)) is not None:
            role = parent
        return role

    def identity(self, role: str, seed: int) -> str:
        """Return the digest of a checkpoint's content, of a LoRA folder with its parent's; UserError if quantised."""
        folder = self.finished(role, seed).resolve()
        check_weights(folder)
        own, parent = folder_identity(folder), self.adapted(role, seed)
        return own if parent is None else digest([own, self.identity(parent, seed)])

    @property
    def architecture(self) -> Architecture | None:
        """The shape of the base: the study's, else what its folder says; None for a family that we do not know."""
        if (described := self.study.roles["base"].architecture) is not None:
            return described
        config = read_json(self.folder("base", self.study.seeds[0]) / folders.CONFIG) or {}
        said = {ours: config[theirs] for ours, theirs in CONFIG_NAMES.items() if config.get(theirs) is not None}
        defaults = {"key_value_heads": said.get("heads"), "tied": False}
        try:
            return Architecture.model_validate({"family": config.get("model_type"), **defaults, **said})
        except ValidationError:
            return None

    def recipe_settings(self, role: str) -> dict[str, Any]:
        """Return the settings of a study that determine a trained checkpoint; its rows and its parent are data."""
        recipe = self.study.trained_roles[role]
        return {
            # The numbers do not depend on these two.
            "training": recipe.training.model_dump(exclude={"gradient_checkpointing", "save_every"}),
            "method": recipe.method,
            "beta": recipe.beta,
            "architecture": recipe.architecture and recipe.architecture.model_dump(),
        }

    def check_given(self) -> None:
        """Raise UserError unless the folders and basis that a study names are there; another study's may come later."""
        for role, recipe in self.study.given_roles.items():
            if not (study_of(recipe) or is_on_hub(recipe.path, recipe.revision)):
                self.finished(role, self.study.seeds[0])
        for judge in self.study.classifiers:
            if not is_on_hub(judge.name, judge.revision):
                folder, expected = resolve_path(judge.name), "the classifier of a judge"
                folders.check_checkpoint(folder, expected=expected, otherwise="correct its name")
        basis = self.study.projection.basis
        if basis is not None and file_flaw(path := basis_file(basis.file)) is not None:
            raise UserError(
                f"projection.basis.file: expected a whole safetensors file, got {path}; write it with safetensors again"
            )

    def remedy(self, recipe: Recipe) -> str:
        """Return what to do about a checkpoint that is not there, as an error says it."""
        if not isinstance(recipe, Existing):
            return f"run bash scripts/finetune.sh {self.layout.study_file}"
        if (other := study_of(recipe)) is not None:
            return f"run the study {other} first"
        is_id = is_hub_id(recipe.path) and not is_there(resolve_path(recipe.path))
        hub = f", or run hf download {recipe.path} if the hub has it in safetensors" if is_id else ""
        return f"correct its path in the study{hub}"

    @property
    def own_basis(self) -> str | None:
        """Digest of the user's own basis, None where the study has none; raises UserError when it is not there."""
        basis = self.study.projection.basis
        return None if basis is None else file_digest(basis_file(basis.file))


def study_of(recipe: Recipe) -> str | None:
    """Return the name of the other study whose run a recipe takes its checkpoint from, if it does."""
    found = OF_A_RUN.fullmatch(recipe.path) if isinstance(recipe, Existing) else None
    return found and found[1]


def is_on_hub(path: str, revision: str | None = None) -> bool:
    """Say whether a path of a study has the form of a hub id, and nothing here has its name.

    Where its first part is a folder here, it is a mistake in a path, unless the cache has such a model.
    """
    if not is_hub_id(path) or is_there(resolve_path(path)):
        return False
    return not is_there(resolve_path(path.split("/")[0])) or cached_model(path, revision) is not None


def given_folder(path: str, revision: str | None) -> Path:
    """Return the folder of a path of a study, of a model of the hub the cache's; UserError when it cannot be had."""
    if not is_on_hub(path, revision):
        return resolve_path(path)
    cached = cached_model(path, revision)
    return cached if cached is not None and folders.is_checkpoint(cached) else fetch_model(path, revision)


def basis_file(file: str) -> Path:
    """Return the path of a user's own basis; raises UserError when its file is not there."""
    if not (path := resolve_path(file)).is_file():
        raise UserError(
            f"projection.basis.file: expected a file at {path}, found none; write it with safetensors, or correct "
            "its path"
        )
    return path


def check_recipe(folder: Path, recipe: dict[str, Any]) -> None:
    """Check that a checkpoint was trained from a recipe, or from the part of it that is given; else raise UserError."""
    before = training_notes(folder)
    if changed := [key for key, value in recipe.items() if before.get(key) != value]:
        raise UserError(
            f"{folder}: expected a checkpoint trained from this study, its {', '.join(changed)} differ; "
            "move the folder away to train it again, or give the study another name"
        )


def state_folder(final: Path) -> Path:
    """Return where the states of a checkpoint's training lie: beside it, as long as it is not finished."""
    return final.with_name(f"{final.name}.state")


def training_notes(folder: Path) -> dict[str, Any]:
    """Return recipe.json of a trained checkpoint, empty where there is none or no whole one."""
    return read_json(folder / RECIPE_FILE) or {}


# Read once per process, since a run never changes a finished checkpoint.
check_weights = functools.cache(folders.check_not_quantised)
folder_identity = functools.cache(folders.checkpoint_identity)
