"""Independent jobs side by side, each in a process of its own.

Two threads of one small model wait for each other, and spin while another program has the core; two processes never do.
A job leaves its result on disk before it ends, so what a killed worker costs is its job, and the bytes of a result
depend neither on the number of workers nor on who did it.
"""

import functools
import logging
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from tqdm import tqdm

from safety_spaces.errors import UserError
from safety_spaces.experiments.command import Command, prepare_libraries
from safety_spaces.models.folders import weight_files
from safety_spaces.processes import processes
from safety_spaces.progress import progress
from safety_spaces.record import Stage, peak_memory_bytes

logger = logging.getLogger(__name__)

WORKER_BYTES = 2**30
"""Of libraries and activations."""
MODEL_COPIES = 8
"""Copies of stored weights that a worker holds at most: a training in float32 of weights stored in bf16."""


@dataclass(frozen=True)
class Group:
    """Jobs that share what is dear to make ready, such as a model in memory: `make` makes it, once in a worker."""

    name: str
    make: partial[Any] = field(compare=False)


@dataclass(frozen=True)
class Job:
    """A call that can be sent to another process; what its group shares is its first argument.

    `after` names jobs that have to be done before, `steps` is its length in a progress bar.
    """

    name: str
    call: partial[Any]
    group: Group | None = None
    after: frozenset[str] = frozenset()
    steps: int = 1


def do_jobs(command: Command, jobs: Sequence[Job], *, desc: str, stage: Stage) -> dict[str, Any]:
    """Do jobs with the workers of a study, under one progress bar; return what each returned, by its name.

    Raises:
        UserError: a job raised it, or a worker was killed in one job twice.
    """
    workers = number_of_workers(command) if len(jobs) > 1 else 1
    # A single job says itself how far it is.
    with progress(desc=desc, total=sum(job.steps for job in jobs), shown=len(jobs) > 1) as bar:
        done = run_jobs(jobs, workers=workers, report=bar.update)
    stage.workers_memory_bytes = max(stage.workers_memory_bytes, done.peak_memory_bytes)
    return done.results


def number_of_workers(command: Command) -> int:
    """Return how many jobs run side by side: what the study says, else on a CPU as many as cores and memory allow.

    On another device one job at a time has it to itself.
    """
    study = command.study
    if processes().count > 1:
        # A launcher has divided the machine already.
        return 1
    if study.workers is not None:
        return study.workers
    from safety_spaces.models.device import ready_device

    if ready_device(command.device, threads=command.study.threads).type != "cpu":
        return 1
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    base = command.roles.folder("base", study.seeds[0])
    weights = sum(path.stat().st_size for path in weight_files(base) if path.is_file())
    fit = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // (WORKER_BYTES + MODEL_COPIES * weights)
    return max(1, min(cores // study.threads, fit))


@dataclass(frozen=True)
class Done:
    """What each job returned, by its name, and the largest memory of each worker, summed."""

    results: dict[str, Any]
    peak_memory_bytes: int = 0


def run_jobs(jobs: Sequence[Job], *, workers: int, report: Callable[[int], object]) -> Done:
    """Do every job, at most `workers` at a time; `report` is told the steps of each job that has ended.

    One worker is this process itself. A worker stays with its group while that has jobs. One that is killed is started
    again, once for each job.

    Raises:
        UserError: a job raised it, or a worker was killed in one job twice.
        ValueError: jobs wait for one another in a circle, or for a job that is not there.
    """
    waiting, number = _in_order(jobs), min(workers, len(jobs))
    if number > 1:
        with _team(number) as team:
            return _deal(waiting, team, report)
    results = {}
    try:
        for job in waiting:
            results[job.name] = _call(job)
            report(job.steps)
    finally:
        # The next command of this process may have another group of the same name.
        _made.cache_clear()
    return Done(results)


def _in_order(jobs: Iterable[Job]) -> list[Job]:
    """Order jobs as one worker does them."""
    left, ordered = list(jobs), list[Job]()
    while left:
        job = _next_job(left, {job.name for job in ordered}, group=ordered[-1].group if ordered else None)
        if job is None:
            raise ValueError(f"expected jobs that can be done one after the other, got {left[0].name} after another")
        left.remove(job)
        ordered.append(job)
    return ordered


def _next_job(
    waiting: Iterable[Job], done: Iterable[str], *, group: Group | None, taken: Sequence[Group | None] = ()
) -> Job | None:
    """Choose a job of the worker's group, else of a group that no other worker has made ready, else any."""
    ready = [job for job in waiting if job.after.issubset(done)]
    return min(ready, key=lambda job: (job.group != group, job.group in taken), default=None)


class _Worker:
    """One process at a time, and the job that it does."""

    def __init__(self) -> None:
        self.job: Job | None = None
        self.group: Group | None = None
        self.future: Future[tuple[Any, int]]
        self.peak_memory_bytes = 0
        self.pool = _pool()

    def begin(self, job: Job) -> None:
        self.job, self.group = job, job.group
        self.future = self.pool.submit(_measured_call, job)

    def restart(self) -> None:
        self.pool.shutdown()
        self.pool = _pool()


def _pool() -> ProcessPoolExecutor:
    # A pool for each worker: a pool of several is lost with any one of its processes.
    return ProcessPoolExecutor(1, multiprocessing.get_context("spawn"), initializer=_prepare)


def _prepare() -> None:
    """Make a worker ready."""
    # Ctrl-C reaches every process of a terminal; the first one ends the others.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # Its own lock would be a semaphore of the system, which a worker that is ended leaves behind with a warning.
    tqdm.set_lock(threading.RLock())
    prepare_libraries(logging.WARNING)


@contextmanager
def _team(number: int) -> Iterator[list[_Worker]]:
    """Start workers; at the end, whatever it is, none is left."""
    team: list[_Worker] = []
    try:
        team += [_Worker() for _ in range(number)]
        yield team
    finally:
        # Before the pools, which would wait for what is under way.
        for process in multiprocessing.active_children():
            process.terminate()
        for worker in team:
            worker.pool.shutdown()


def _deal(waiting: list[Job], team: Sequence[_Worker], report: Callable[[int], object]) -> Done:
    """Give each worker that is free the next job that may begin."""
    results: dict[str, Any] = {}
    killed: set[str] = set()
    while waiting or any(worker.job for worker in team):
        for worker in team:
            taken = [other.group for other in team]
            job = None if worker.job else _next_job(waiting, results, group=worker.group, taken=taken)
            if job is not None:
                waiting.remove(job)
                worker.begin(job)
        busy = {worker.future: worker for worker in team if worker.job is not None}
        for future in wait(busy, return_when=FIRST_COMPLETED).done:
            worker = busy[future]
            done, worker.job = worker.job, None
            assert done is not None
            try:
                results[done.name], peak = future.result()
            except BrokenProcessPool as error:
                _note_death(done, killed, error)
                waiting.insert(0, done)
                worker.restart()
            else:
                worker.peak_memory_bytes = max(worker.peak_memory_bytes, peak)
                report(done.steps)
    return Done(results, sum(worker.peak_memory_bytes for worker in team))


def _note_death(job: Job, killed: set[str], error: BrokenProcessPool) -> None:
    if job.name in killed:
        raise UserError(
            f"{job.name}: expected a process that lives to its end, it was killed twice; free memory, or write "
            "workers: 1 in the study, then run again"
        ) from error
    killed.add(job.name)
    logger.warning("warning: %s: its process was killed; it is done again in another one", job.name)


def _measured_call(job: Job) -> tuple[Any, int]:
    return _call(job), peak_memory_bytes()


def _call(job: Job) -> Any:
    return job.call() if job.group is None else job.call(_made(job.group))


@functools.lru_cache(maxsize=1)
def _made(group: Group) -> Any:
    return group.make()
