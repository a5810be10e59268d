"""The texts of a study: the rows of its data sets, and which of them train a role."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

from safety_spaces.data.datasets import read_rows
from safety_spaces.data.selection import draw_rows, mix, preference_rows, training_rows, unique_prompts, without_prompts
from safety_spaces.data.table import DataSet, Row, find_data_set
from safety_spaces.data.templates import Template, find_template
from safety_spaces.errors import UserError
from safety_spaces.paths import resolve_path
from safety_spaces.store import Layout, digest
from safety_spaces.study import CHAT, SingleCorpus, Study, TemplateName

AsRows = Callable[[list[Row], DataSet], list[dict[str, str]]]
Items = tuple[tuple[str, Any], ...]
"""A mapping that can be hashed."""


@dataclass(frozen=True)
class Texts:
    """What a study reads. `tokenizer` gives the one whose chat template is meant: that of the reference's ancestor."""

    study: Study
    layout: Layout
    tokenizer: Callable[[], Any]

    def path(self, name: str) -> Path | None:
        """Return the file or folder of a data set: the study's own, the one its world wrote, or None for the hub's."""
        if (own := self.study.datasets.get(name)) is not None:
            return resolve_path(own.path)
        return None if self.study.world is None else self.layout.corpora / f"{name}.jsonl"

    def data_set(self, name: str) -> DataSet:
        """Return a data set of the table, or one that the study names a file for; raises UserError for another name."""
        return find_data_set(name, own=self.study.datasets)

    def rows(self, name: str, columns: Sequence[str], where: Mapping[str, Any] | None = None) -> list[Row]:
        """Return columns of the rows that meet a condition, read once a process; UserError when they cannot be had."""
        path, own = self.path(name), self.study.datasets.get(name)
        if self.study.world is not None and own is None and not (path and path.is_file()):
            raise UserError(
                f"{path}: expected a corpus of the small world, found none; run bash scripts/finetune.sh "
                f"{self.layout.study_file}"
            )
        # Its age too: within one process a small world may be written anew.
        age = path.stat().st_mtime_ns if path is not None and path.exists() else None
        names = None if own is None else tuple(own.columns.items())
        return list(_read_once(path, name, tuple(columns), tuple((where or {}).items()), names, age))

    def is_here(self, name: str) -> bool:
        """Say whether a data set is a file or folder of this machine."""
        path = self.path(name)
        return path is not None and path.exists()

    def size(self, name: str, where: Mapping[str, Any] | None = None) -> int | None:
        """Return the number of rows of a data set that meet a condition: at most, where it is not here, if known."""
        if self.is_here(name):
            return len(self.rows(name, (), where))
        world, data_set = self.study.world, self.data_set(name)
        return data_set.most_rows(where or {}) if world is None else world.sizes.get(name, data_set.size)

    def template(self, name: TemplateName) -> Template:
        """Return a template; raises UserError when it is that of the model, which has none."""
        return find_template(name, self.tokenizer() if name == CHAT else None)

    def drawn(self, name: str, seed: int) -> list[Row]:
        """Draw a seed's rows of a corpus of one data set, without prompts of the one that it is disjoint from.

        Raises UserError when the data set is too small.
        """
        single = self.study.single_corpora
        corpus, data_set = single[name], self.data_set(single[name].dataset)
        rows = self.rows(corpus.dataset, data_set.trained, corpus.where)
        if corpus.disjoint_from is not None:
            other = self.data_set(single[corpus.disjoint_from].dataset)
            rows = without_prompts(rows, data_set, unique_prompts(self.drawn(corpus.disjoint_from, seed), other))
        return draw_rows(rows, corpus.rows, seed=corpus.seed, name=f"{name}, seed {seed}")

    def role_rows(self, role: str, seed: int) -> list[dict[str, str]]:
        """Return the rows that train a role, templates applied, each seed's own draw; UserError if too few."""
        recipe = self.study.trained_roles[role]
        as_rows = preference_rows if recipe.method == "dpo" else training_rows
        return self._corpus_rows(
            recipe.corpus, seed, partial(as_rows, template=self.template(recipe.training.template))
        )

    def _corpus_rows(self, name: str, seed: int, as_rows: AsRows) -> list[dict[str, str]]:
        mixed = self.study.mixed_corpora.get(name)
        if mixed is None:
            return as_rows(self.drawn(name, seed), self.data_set(self.study.single_corpora[name].dataset))
        useful, harmful = (self._corpus_rows(part, seed, as_rows) for part in mixed.parts)
        return mix(useful, harmful, mixing=mixed.mixing, harmful_share=mixed.harmful_share)

    def trained_corpora(self) -> dict[str, SingleCorpus]:
        """Return the corpora of one data set that a role is trained on, alone or in a mixture."""
        trained = self.study.trained_corpora
        return {name: corpus for name, corpus in sorted(self.study.single_corpora.items()) if name in trained}

    def facts(self) -> dict[str, dict[str, Any]]:
        """Return what run.json says of every corpus that a role is trained on: source, rows, prompts and digests."""
        facts = {}
        for name, corpus in self.trained_corpora().items():
            drawn = {seed: self.drawn(name, seed) for seed in self.study.seeds}
            rows, data_set, path = drawn[self.study.seeds[0]], self.data_set(corpus.dataset), self.path(corpus.dataset)
            facts[name] = {
                "source": str(data_set.hub) if path is None else path.name,
                "rows": len(rows),
                "unique_prompts": len(unique_prompts(rows, data_set)),
                "seed": corpus.seed,
                "digests": {f"seed {seed}": digest(of) for seed, of in drawn.items()},
            }
        return facts


@lru_cache(maxsize=4)
def _read_once(
    path: Path | None, name: str, columns: tuple[str, ...], where: Items, names: Items | None, _: int | None
) -> list[Row]:
    """Rows of a data set; every role and seed asks for them again, and they may be 400 MB."""
    return read_rows(path, name, columns=columns, where=dict(where), names=None if names is None else dict(names))
