"""What the commands share: their arguments, how a user's mistake is reported, and what a stage leaves in run.json."""

import argparse
import errno
import functools
import importlib.metadata
import logging
import os
import re
import sys
import tempfile
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safety_spaces.data.texts import Texts
from safety_spaces.errors import UserError
from safety_spaces.models.roles import Roles
from safety_spaces.paths import ROOT, expanded, is_there
from safety_spaces.record import Stage, read_record, record_stage
from safety_spaces.store import Layout, one_at_a_time, source_digest
from safety_spaces.study import Study, load_study, study_files

DEFAULT_STUDY = ROOT / "configs" / "miniature.yaml"
EXIT_USER_ERROR, EXIT_INTERRUPTED = 2, 130
NOISY_LIBRARIES = ("torchao", "torch.utils._pytree", "huggingface_hub", "httpx2", "matplotlib")
"""They say at every start what kernels they lack here, or of every try that no network was reached."""
DEVICE = re.compile(r"(cpu|cuda|mps|xpu)(:(0|[1-9][0-9]*))?")
"""How a device is called: a command that uses none refuses a name that is none too, without torch."""
VERSIONS = ("torch", "transformers", "trl", "lm-eval", "datasets", "accelerate", "numpy")


@dataclass(frozen=True)
class Command:
    """One call of a script: the study and where its files lie."""

    study: Study
    layout: Layout
    device: str | None
    plan: bool = False
    download: bool = False
    geometry_only: bool = False
    keep_factors: bool = False

    @functools.cached_property
    def roles(self) -> Roles:
        """The models of the study."""
        return Roles(self.study, self.layout)

    @functools.cached_property
    def texts(self) -> Texts:
        """The texts of the study; chat is the template of the model that the reference is, or is trained from."""
        return Texts(self.study, self.layout, functools.partial(_oldest_tokenizer, self.roles))


def _oldest_tokenizer(roles: Roles) -> Any:
    # Costs the import of torch, so only where it is needed.
    from safety_spaces.models.loading import role_tokenizer

    return role_tokenizer(roles, roles.study.lineage("reference")[0], roles.study.seeds[0])


def parse_command(description: str, argv: Sequence[str] | None, *, projects: bool = False) -> Command:
    """Read the arguments that all scripts take, those of the projection if it `projects`, and the study.

    Raises:
        UserError: the study is wrong, there can be no such device, or files cannot lie where they are to lie.
    """
    given = _parser(description, projects=projects).parse_args(argv)
    prepare_libraries(logging.INFO)
    check_device(given.device)
    if given.plan:
        # Before a library of the hub is imported: a plan asks no network.
        os.environ["HF_HUB_OFFLINE"] = "1"
    study = load_study(given.study)
    command = Command(
        study=study,
        layout=Layout(
            given.results, given.runs, study.name, given.study, source_digest(ROOT, study_files(given.study))
        ),
        device=given.device,
        plan=given.plan,
        download=given.download,
        geometry_only=study.evaluation is None or (projects and given.geometry_only),
        keep_factors=projects and given.keep_factors,
    )
    check_places(command)
    return command


def check_device(name: str | None) -> None:
    """Check that a device is called so; whether it is there is asked where it is used.

    Raises:
        UserError: no device is.
    """
    if name is not None and not DEVICE.fullmatch(name):
        raise UserError(f"--device {name}: expected cpu, cuda or a device such as cuda:1; correct it")


def check_places(command: Command) -> None:
    """Check that results and runs can be written before hours of work; a plan and a download write neither.

    Raises:
        UserError: a file lies where a folder is to be, or one cannot be written.
    """
    layout = command.layout
    for option, folder in {"results": layout.results_folder, "runs": layout.runs / layout.study_name}.items():
        check_place(f"--{option}", getattr(layout, option), folder, writes=not (command.plan or command.download))


def check_place(option: str, given: Path, folder: Path, *, writes: bool = True) -> None:
    """Check that a folder is there or can be made, and, if a command `writes`, that files can be written to it.

    Raises:
        UserError: a file lies where a folder is to be, or it cannot be written.
    """
    nearest = next(path for path in (folder.absolute(), *folder.absolute().parents) if is_there(path))
    try:
        if not nearest.is_dir():
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))
        if writes:
            tempfile.TemporaryFile(dir=nearest).close()
    except OSError as error:
        raise UserError(
            f"{option} {given}: expected a folder that can be written, got {nearest} "
            f"({error.strerror}); name another with {option}"
        ) from error


def check_name(command: Command) -> None:
    """Check that the results below a study's name are not those of another file, which they would replace in silence.

    A study may be edited and run again; a copy of it with other settings has a name of its own.

    Raises:
        UserError: they are.
    """
    before = read_record(folder := command.layout.results_folder)
    # Results do not depend on the number of workers.
    settings = command.study.model_dump(mode="json", exclude={"workers"})
    maker, made_by = before.get("study_file", command.layout.study_file.name), before.get("study", {})
    changed = [key for key, value in settings.items() if made_by.get(key) != value]
    if changed and maker != command.layout.study_file.name:
        raise UserError(
            f"{command.layout.study_file}: name: expected a name of its own, got that of {maker}, whose results lie in "
            f"{folder} and whose {', '.join(changed)} differ; give it another name, or write elsewhere with --results"
        )


def _parser(description: str, *, projects: bool) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "study", nargs="?", type=expanded, default=DEFAULT_STUDY, help="study file (default: the miniature)"
    )
    parser.add_argument("--device", help="cpu, cuda, cuda:1 ... (default: CUDA where there is one)")
    parser.add_argument("--runs", type=expanded, default=ROOT / "runs", metavar="DIR", help="folder of large files")
    parser.add_argument(
        "--results", type=expanded, default=ROOT / "results", metavar="DIR", help="folder of tables, figures"
    )
    parser.add_argument("--plan", action="store_true", help="print cells, memory, disk, hours and money; do nothing")
    parser.add_argument("--download", action="store_true", help="fetch models and data sets; do nothing else")
    if projects:
        parser.add_argument("--geometry-only", action="store_true", help="stop after energies and cosines")
        parser.add_argument("--keep-factors", action="store_true", help="leave the factorised updates in the runs")
    return parser


def prepare_libraries(level: int) -> None:
    """Set what libraries read when they are imported; log from a level on, and of libraries only what is wrong."""
    # Threads that wait for one another sleep: spinning beside another busy process they are 20 times slower. Read when
    # torch is imported.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    # Notebooks export a backend of their own, and matplotlib cannot be imported with one that is not installed here.
    os.environ["MPLBACKEND"] = "agg"
    # No library tells anybody that a study is run.
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    # Our own lines only: libraries report every step of every cell at the same level.
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    logging.getLogger("safety_spaces").setLevel(level)
    logging.getLogger("safety_spaces.progress").setLevel(logging.INFO)
    for name in NOISY_LIBRARIES:
        logging.getLogger(name).setLevel(logging.ERROR)


def report_errors(main: Callable[..., int]) -> Callable[..., int]:
    """Turn a UserError, and a file that the system refuses, into lines on stderr and exit code 2, ctrl-C into 130.

    Anything else keeps its traceback.
    """

    @functools.wraps(main)
    def wrapped(argv: Sequence[str] | None = None) -> int:
        try:
            return main(argv)
        except UserError as error:
            problems: Sequence[str] = error.args
        except OSError as error:
            if error.filename is None:
                raise
            # A path may hold line breaks.
            named = " ".join(str(error.filename).splitlines())
            problems = [f"{named}: cannot be read or written ({error.strerror}); allow it, or name another path"]
        except KeyboardInterrupt:
            sys.stderr.write("\nstopped; the same command goes on where it was\n")
            return EXIT_INTERRUPTED
        sys.stderr.writelines(f"error: {problem}\n" for problem in problems)
        return EXIT_USER_ERROR

    return wrapped


def finish(written: Sequence[Path]) -> int:
    """Say the numbers of a command in a short table, and in the last line its files; return the code of success."""
    from safety_spaces.experiments.summary import summary

    sys.stdout.write(summary(written))
    sys.stdout.write(f"wrote {', '.join(map(str, written)) or 'nothing: nothing was left to do here'}\n")
    return 0


def sources_changed(command: Command) -> bool:
    """Say whether any recorded stage was made by other sources than those that are here now."""
    stages = read_record(command.layout.results_folder).get("stages", {})
    return any(stage["sources"] != [command.layout.sources] for stage in stages.values())


def is_recorded(command: Command, name: str) -> bool:
    """Say whether run.json has a stage; a run that is killed after its work does not come to record it."""
    return name in read_record(command.layout.results_folder).get("stages", {})


def record(command: Command, name: str, stage: Stage, *, sources: Iterable[str], **facts: Any) -> None:
    """Record a stage, with the study in full and the device and versions that ran it.

    `sources` are the digests that the stage's results carry: a result found from an earlier run keeps its own.
    """
    study, folder = command.study, command.layout.results_folder
    from safety_spaces.models.device import ready_device

    with one_at_a_time(command.layout.lock):
        record_stage(
            folder,
            name,
            seconds=round(stage.seconds, 1),
            peak_memory_bytes=stage.peak_memory_bytes,
            sources=sorted(set(sources)),
            study=study.model_dump(mode="json"),
            study_file=command.layout.study_file.name,
            seeds=list(study.seeds),
            threads=study.threads,
            device={name: str(ready_device(command.device, threads=command.study.threads))},
            versions={package: importlib.metadata.version(package) for package in VERSIONS},
            **facts,
        )
