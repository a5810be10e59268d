"""The report of a study: drawn again only when something that it says has changed."""

from pathlib import Path

from safety_spaces.evidence.tables import FILES
from safety_spaces.record import read_record, update_record
from safety_spaces.store import Layout, digest, file_digests, one_at_a_time
from safety_spaces.study import Study


def report(study: Study, layout: Layout) -> list[Path]:
    """Write README.md and the figures into results/<study>/; return the report, or nothing where it is up to date.

    Raises UserError when a table is missing, edited by hand, or lacks a cell that the study promises.
    """
    folder = layout.results_folder
    facts = read_record(folder)
    before = facts.pop("report", None)
    inputs = digest([facts, file_digests(folder / f"{name}.csv" for name in FILES), layout.sources])
    if before == {"inputs": inputs, "files": _written(folder)}:
        return []
    from safety_spaces.evidence.report import write_report

    changed = any(stage["sources"] != [layout.sources] for stage in facts.get("stages", {}).values())
    write_report(folder, study, sources_changed=changed)
    with one_at_a_time(layout.lock):
        update_record(folder, {"report": {"inputs": inputs, "files": _written(folder)}})
    return [folder / "README.md"]


def _written(folder: Path) -> dict[str, str]:
    return file_digests([folder / "README.md", *folder.glob("*.png")])
