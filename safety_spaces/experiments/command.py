"""What the commands share: their arguments, how a user's mistake is reported, and what a stage leaves in run.json."""

import argparse
import functools
import importlib.metadata
import logging
import os
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safety_spaces.errors import UserError
from safety_spaces.record import Stage, read_record, record_stage
from safety_spaces.store import Layout, file_digest, one_at_a_time, source_digest
from safety_spaces.study import Study, load_study, study_files

ROOT = Path(__file__).resolve().parents[2]
DEFAULT_STUDY = ROOT / "configs" / "miniature.yaml"
EXIT_USER_ERROR = 2
NOISY_LIBRARIES = ("torchao", "torch.utils._pytree", "huggingface_hub", "httpx2")
"""They say at every start what kernels they lack here, or of every try that no network was reached."""
VERSIONS = ("torch", "transformers", "trl", "lm-eval", "datasets", "accelerate", "numpy", "safety-spaces")


@dataclass(frozen=True)
class Command:
    """One call of a script: the study and where its files lie."""

    study: Study
    study_path: Path
    layout: Layout
    device: str | None
    plan: bool = False
    download: bool = False
    geometry_only: bool = False
    keep_factors: bool = False

    @functools.cached_property
    def sources(self) -> str:
        """Digest of everything that makes results: code, study file, pinned requirements."""
        return source_digest(ROOT, study_files(self.study_path))

    @functools.cached_property
    def own_basis(self) -> str | None:
        """Digest of the user's own basis, None where the study has none.

        Raises:
            UserError: its file is not there.
        """
        basis = self.study.projection.basis
        if basis is None:
            return None
        if not (path := resolve_path(basis.file)).is_file():
            raise UserError(
                f"projection.basis.file: expected a file at {path}, found none; write it with safetensors, or correct "
                "its path"
            )
        return file_digest(path)


def parse_command(description: str, argv: Sequence[str] | None, *, projects: bool = False) -> Command:
    """Read the arguments that all scripts take, those of the projection if it `projects`, and the study.

    Raises:
        UserError: the study is wrong.
    """
    given = _parser(description, projects=projects).parse_args(argv)
    quieten_libraries(logging.INFO)
    study = load_study(given.study)
    return Command(
        study=study,
        study_path=given.study,
        layout=Layout(given.results, given.runs, study.name),
        device=given.device,
        plan=given.plan,
        download=given.download,
        geometry_only=projects and given.geometry_only,
        keep_factors=projects and given.keep_factors,
    )


def _parser(description: str, *, projects: bool) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "study", nargs="?", type=Path, default=DEFAULT_STUDY, help="study file (default: the miniature)"
    )
    parser.add_argument("--device", help="cpu, cuda, cuda:1 ... (default: CUDA where there is one)")
    parser.add_argument("--runs", type=Path, default=ROOT / "runs", metavar="DIR", help="folder of large files")
    parser.add_argument(
        "--results", type=Path, default=ROOT / "results", metavar="DIR", help="folder of tables, figures"
    )
    parser.add_argument("--plan", action="store_true", help="print cells, memory, disk, hours and money; do nothing")
    parser.add_argument("--download", action="store_true", help="fetch models and data sets; do nothing else")
    if projects:
        parser.add_argument("--geometry-only", action="store_true", help="stop after energies and cosines")
        parser.add_argument("--keep-factors", action="store_true", help="leave the factorised updates in the runs")
    return parser


def quieten_libraries(level: int) -> None:
    """Log what this project says from a level on, and of its libraries only what is wrong."""
    # No library tells anybody that a study is run.
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    # Our own lines only: libraries report every step of every cell at the same level.
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    logging.getLogger("safety_spaces").setLevel(level)
    logging.getLogger("safety_spaces.progress").setLevel(logging.INFO)
    for name in NOISY_LIBRARIES:
        logging.getLogger(name).setLevel(logging.ERROR)


def report_errors(main: Callable[..., int]) -> Callable[..., int]:
    """Turn a UserError into one line on stderr and exit code 2; anything else keeps its traceback."""

    @functools.wraps(main)
    def wrapped(argv: Sequence[str] | None = None) -> int:
        try:
            return main(argv)
        except UserError as error:
            sys.stderr.write(f"error: {error}\n")
            return EXIT_USER_ERROR

    return wrapped


def finish(written: Sequence[Path]) -> int:
    """Say in the last line which files a command wrote; return the exit code of success."""
    sys.stdout.write(f"wrote {', '.join(map(str, written)) or 'nothing: nothing was left to do here'}\n")
    return 0


def sources_changed(command: Command) -> bool:
    """Say whether any recorded stage was made by other sources than those that are here now."""
    stages = read_record(command.layout.results_folder).get("stages", {})
    return any(stage["sources"] != [command.sources] for stage in stages.values())


def is_recorded(command: Command, name: str) -> bool:
    """Say whether run.json has a stage; a run that is killed after its work does not come to record it."""
    return name in read_record(command.layout.results_folder).get("stages", {})


def record(command: Command, name: str, stage: Stage, *, sources: Iterable[str], **facts: Any) -> None:
    """Record a stage, with the study in full and the device and versions that ran it.

    `sources` are the digests that the stage's results carry: a result found from an earlier run keeps its own.
    """
    study, folder = command.study, command.layout.results_folder
    from safety_spaces.experiments.device import ready_device

    with one_at_a_time(command.layout.lock):
        record_stage(
            folder,
            name,
            seconds=round(stage.seconds, 1),
            peak_memory_bytes=stage.peak_memory_bytes,
            sources=sorted(set(sources)),
            study=study.model_dump(mode="json"),
            seeds=list(study.seeds),
            threads=study.threads,
            device={name: str(ready_device(command))},
            versions={package: importlib.metadata.version(package) for package in VERSIONS},
            **facts,
        )


def resolve_path(path: str) -> Path:
    """Return a path of a study file: from the working directory where it exists, else from the root of the clone."""
    return Path(path) if Path(path).exists() else ROOT / path
