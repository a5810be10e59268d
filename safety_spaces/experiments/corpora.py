"""The corpora of a miniature, written once."""

from safety_spaces.miniature.corpora import write_corpora
from safety_spaces.paths import ROOT
from safety_spaces.store import Cells, Layout, digest, file_digest, file_digests
from safety_spaces.study import Study

WORLD_MARK = "world"


def prepare_corpora(study: Study, layout: Layout) -> dict[str, int]:
    """Write the corpora of a miniature once; return the number of rows of each. A study of real data has none.

    They are written again when the world's settings or its code have changed, or a file is missing or was edited.
    """
    if study.world is None:
        return {}
    code = [file_digest(path) for path in sorted((ROOT / "safety_spaces" / "miniature").glob("*.py"))]
    world = digest([study.world.model_dump(), study.training.template, code])
    # Written last: as long as it is missing the corpora are taken for unfinished.
    mark = Cells(layout.corpora)
    done = mark.get(WORLD_MARK)
    if done is None or done["world"] != world or done["files"] != _written(layout):
        sizes, template = study.world.sizes, study.training.template
        rows = write_corpora(layout.corpora, seed=study.world.seed, sizes=sizes, template=template)
        done = {"world": world, "rows": rows, "files": _written(layout)}
        mark.put(WORLD_MARK, done)
    return {str(name): int(count) for name, count in done["rows"].items()}


def _written(layout: Layout) -> dict[str, str]:
    return file_digests([*layout.corpora.glob("*.jsonl"), layout.rubric])
