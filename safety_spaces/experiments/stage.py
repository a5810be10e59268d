"""The protocol of a stage: do what is missing, see whether all is there, record it in run.json, write the tables."""

import importlib.metadata
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, TypeVar

from safety_spaces.evidence.tables import COLUMNS, table_file
from safety_spaces.models.roles import Roles
from safety_spaces.processes import all_found
from safety_spaces.record import Stage, read_record, record_stage, write_table
from safety_spaces.store import Cells, Layout, one_at_a_time

VERSIONS = ("torch", "transformers", "trl", "lm-eval", "datasets", "accelerate", "numpy")

Item = TypeVar("Item")


@dataclass(frozen=True)
class Wanted(Generic[Item]):
    """The results that a stage is made of: each item's seed and the key that its result is found by."""

    roles: Roles
    keys: Mapping[Item, tuple[int, str]]

    def find(self, item: Item) -> dict[str, Any] | None:
        """Return a result, from any seed's folder: what all seeds share has one key."""
        own, key = self.keys[item]
        seeds = dict.fromkeys((own, *self.roles.study.seeds))
        results = (Cells(self.roles.layout.cells(seed)).get(key) for seed in seeds)
        return next((result for result in results if result is not None), None)

    def missing(self) -> list[Item]:
        """Return the items without a result."""
        return [item for item in self.keys if self.find(item) is None]

    def found(self) -> dict[Item, dict[str, Any]] | None:
        """Return every result; None, and the log says so, as long as other processes still make some."""
        return all_found({item: self.find(item) for item in self.keys})

    def put(self, item: Item, result: Mapping[str, Any]) -> None:
        """Store a result."""
        seed, key = self.keys[item]
        Cells(self.roles.layout.cells(seed)).put(key, result)


@dataclass(frozen=True)
class Tables:
    """What a stage writes at its end, and what it records beside its cost."""

    rows: Mapping[str, Iterable[Mapping[str, Any]]]
    sources: Iterable[str]
    facts: Mapping[str, Any] = field(default_factory=dict)


def run_stage(
    name: str,
    roles: Roles,
    *,
    device: str | None,
    work: Callable[[Stage], bool],
    tables: Callable[[], Tables | None],
) -> list[Path]:
    """Do the work of a stage, and once nothing is missing record it and write its tables; return the files written.

    `work` says whether anything was left to do; `tables` gives None as long as other processes still work. The last
    process writes.
    """
    with Stage() as stage:
        worked = work(stage)
    if (made := tables()) is None:
        return []
    layout = roles.layout
    files = {layout.results_folder / table_file(table): (COLUMNS[table], rows) for table, rows in made.rows.items()}
    with one_at_a_time(layout.lock):
        if worked or not is_recorded(layout, name):
            record(roles, name, stage, device=device, sources=made.sources, **made.facts)
        for path, (columns, rows) in files.items():
            write_table(path, columns, rows)
    return list(files)


def is_recorded(layout: Layout, name: str) -> bool:
    """Say whether run.json has a stage; a run that is killed after its work does not come to record it."""
    return name in read_record(layout.results_folder).get("stages", {})


def record(roles: Roles, name: str, stage: Stage, *, device: str | None, sources: Iterable[str], **facts: Any) -> None:
    """Record a stage, with the study in full and the device and versions that ran it.

    `sources` are the digests that the stage's results carry: a result found from an earlier run keeps its own.
    """
    from safety_spaces.models.device import ready_device

    study, layout = roles.study, roles.layout
    with one_at_a_time(layout.lock):
        record_stage(
            layout.results_folder,
            name,
            seconds=round(stage.seconds, 1),
            peak_memory_bytes=stage.peak_memory_bytes,
            sources=sorted(set(sources)),
            study=study.model_dump(mode="json"),
            study_file=layout.study_file.name,
            seeds=list(study.seeds),
            threads=study.threads,
            device={name: str(ready_device(device, threads=study.threads))},
            versions={package: importlib.metadata.version(package) for package in VERSIONS},
            **facts,
        )
