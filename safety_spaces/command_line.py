"""What the scripts share: their arguments, how a user's mistake is reported, and what a command says at its end."""

import argparse
import errno
import functools
import logging
import os
import re
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safety_spaces.data.texts import Texts
from safety_spaces.errors import UserError
from safety_spaces.experiments.checks import check_inputs
from safety_spaces.libraries import prepare_libraries
from safety_spaces.models.roles import Roles
from safety_spaces.paths import ROOT, expanded, is_there
from safety_spaces.record import read_record
from safety_spaces.store import Layout, source_digest
from safety_spaces.study import Study, load_study, study_files

DEFAULT_STUDY = ROOT / "configs" / "miniature.yaml"
EXIT_USER_ERROR, EXIT_INTERRUPTED = 2, 130
DEVICE = re.compile(r"(cpu|cuda|mps|xpu)(:(0|[1-9][0-9]*))?")
"""How a device is called: a command that uses none refuses a name that is none too, without torch."""


@dataclass(frozen=True)
class Arguments:
    """What a script was called with: the study, where its files lie, and the options."""

    study: Study
    layout: Layout
    device: str | None
    plan: bool = False
    download: bool = False
    geometry_only: bool = False
    keep_factors: bool = False

    @property
    def roles(self) -> Roles:
        """The models of the study."""
        return Roles(self.study, self.layout)

    @property
    def texts(self) -> Texts:
        """The texts of the study."""
        return Texts(self.study, self.layout, self._chat_tokenizer)

    def _chat_tokenizer(self) -> Any:
        """The tokenizer whose chat template a study means: of the model that the reference is, or is trained from."""
        # Costs the import of torch, so only where it is needed.
        from safety_spaces.models.loading import role_tokenizer

        return role_tokenizer(self.roles, self.study.lineage("reference")[0], self.study.seeds[0])


def parse_arguments(description: str, argv: Sequence[str] | None, *, projects: bool = False) -> Arguments:
    """Read the arguments that all scripts take, those of the projection if it `projects`, and the study.

    Raises UserError when the study is wrong, there can be no such device, or files cannot lie where they are to lie.
    """
    given = _parser(description, projects=projects).parse_args(argv)
    prepare_libraries(logging.INFO)
    check_device(given.device)
    if given.plan:
        # Before a library of the hub is imported: a plan asks no network.
        os.environ["HF_HUB_OFFLINE"] = "1"
    study = load_study(given.study)
    sources = source_digest(ROOT, study_files(given.study))
    layout = Layout(given.results, given.runs, study.name, given.study, sources)
    writes = not (given.plan or given.download)
    check_place("--results", given.results, layout.results_folder, writes=writes)
    check_place("--runs", given.runs, layout.runs / study.name, writes=writes)
    return Arguments(
        study,
        layout,
        device=given.device,
        plan=given.plan,
        download=given.download,
        geometry_only=study.evaluation is None or (projects and given.geometry_only),
        keep_factors=projects and given.keep_factors,
    )


def _parser(description: str, *, projects: bool) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add(
        "study",
        nargs="?",
        type=expanded,
        default=DEFAULT_STUDY,
        help="study file (default: the miniature)",
    )
    add("--device", help="cpu, cuda, cuda:1 ... (default: CUDA where there is one)")
    add("--runs", type=expanded, default=ROOT / "runs", metavar="DIR", help="folder of large files")
    add("--results", type=expanded, default=ROOT / "results", metavar="DIR", help="folder of tables, figures")
    add("--plan", action="store_true", help="print cells, memory, disk, hours and money; do nothing")
    add("--download", action="store_true", help="fetch models and data sets; do nothing else")
    if projects:
        add("--geometry-only", action="store_true", help="stop after energies and cosines")
        add("--keep-factors", action="store_true", help="leave the factorised updates in the runs")
    return parser


def check_device(name: str | None) -> None:
    """Check that a device is called so, else raise UserError; whether it is there is asked where it is used."""
    if name is not None and not DEVICE.fullmatch(name):
        raise UserError(f"--device {name}: expected cpu, cuda or a device such as cuda:1; correct it")


def check_place(option: str, given: Path, folder: Path, *, writes: bool = True) -> None:
    """Check that a folder is there or can be made, and, if a command `writes`, that files can be written to it.

    Raises UserError when a file lies where a folder is to be, or it cannot be written.
    """
    nearest = next(path for path in (folder.absolute(), *folder.absolute().parents) if is_there(path))
    try:
        if not nearest.is_dir():
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))
        if writes:
            tempfile.TemporaryFile(dir=nearest).close()
    except OSError as error:
        came = f"{nearest} ({error.strerror}); name another with {option}"
        raise UserError(f"{option} {given}: expected a folder that can be written, got {came}") from error


def check_name(study: Study, layout: Layout) -> None:
    """Check that the results below a study's name are not those of another file, which they would replace in silence.

    A study may be edited and run again; a copy of it with other settings has a name of its own, else UserError.
    """
    before = read_record(folder := layout.results_folder)
    # Results do not depend on the number of workers.
    settings = study.model_dump(mode="json", exclude={"workers"})
    maker, made_by = before.get("study_file", layout.study_file.name), before.get("study", {})
    changed = [key for key, value in settings.items() if made_by.get(key) != value]
    if changed and maker != layout.study_file.name:
        raise UserError(
            f"{layout.study_file}: name: expected a name of its own, got that of {maker}, whose results lie in "
            f"{folder} and whose {', '.join(changed)} differ; give it another name, or write elsewhere with --results"
        )


def is_preview(arguments: Arguments, *, needs_data: bool = True, needs_models: bool = True) -> bool:
    """Do what --plan or --download ask for in place of the work; say whether one of them was given.

    What the study names outside of itself is looked at first, also for work that `needs_data` or `needs_models`.
    Raises UserError when something is not there, results are those of another study of this name, a training cannot fit
    on the card that the study names, or something cannot be downloaded.
    """
    check_name(arguments.study, arguments.layout)
    plans, downloads = arguments.plan, arguments.download
    if needs_models or plans or downloads:
        arguments.roles.check_given()
    if needs_data or downloads or (plans and not arguments.geometry_only):
        check_inputs(arguments.roles, arguments.texts)
    if plans:
        from safety_spaces.experiments.plan.card import Planned, check_memory
        from safety_spaces.experiments.plan.text import plan

        planned = Planned(
            arguments.roles, arguments.texts, arguments.device, arguments.geometry_only, arguments.keep_factors
        )
        sys.stdout.write("".join(f"{line}\n" for line in plan(planned)))
        check_memory(planned)
    elif downloads:
        from safety_spaces.experiments.plan.downloads import download

        download(arguments.texts)
    return plans or downloads


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


def finish(written: Sequence[Path], study: Study) -> int:
    """Say the numbers of a command in a short table, and in the last line its files; return the code of success."""
    from safety_spaces.experiments.summary import summary

    sys.stdout.write(summary(written, study))
    sys.stdout.write(f"wrote {', '.join(map(str, written)) or 'nothing: nothing was left to do here'}\n")
    return 0
