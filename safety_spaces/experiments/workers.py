"""Independent jobs side by side, each in a process of its own, and jobs that two of them do together.

Two threads of one small model wait for each other, and spin while another program has the core; two processes never do.
A job leaves its result on disk before it ends, so what a killed worker costs is its job, and the bytes of a result
depend neither on the number of workers nor on who did it.
"""

import functools
import logging
import multiprocessing
import os
import signal
import socket
import threading
from collections.abc import Callable, Collection, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from tqdm import tqdm

from safety_spaces.errors import UserError
from safety_spaces.libraries import prepare_libraries
from safety_spaces.models.folders import weight_files
from safety_spaces.models.roles import Roles
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

    `after` names jobs that have to be done before, `steps` is its length in a progress bar. Jobs that are `near` each
    other are best done by one worker, one after the other. Up to `processes` workers can make the call together, in the
    environment of a launcher; the first one's result counts.
    """

    name: str
    call: partial[Any]
    group: Group | None = None
    near: str = ""
    after: frozenset[str] = frozenset()
    steps: int = 1
    processes: int = 1


def do_jobs(roles: Roles, jobs: Sequence[Job], *, device: str | None, desc: str, stage: Stage) -> dict[str, Any]:
    """Do jobs with the workers of a study, under one progress bar; return what each returned, by its name.

    Raises UserError when a job raised it, or a worker was killed in one job twice.
    """
    workers = number_of_workers(roles, device) if sum(job.processes for job in jobs) > 1 else 1
    # A single job of this process says itself how far it is.
    with progress(desc=desc, total=sum(job.steps for job in jobs), shown=len(jobs) > 1 or workers > 1) as bar:
        results, peak = run_jobs(jobs, workers=workers, report=bar.update)
    stage.workers_memory_bytes = max(stage.workers_memory_bytes, peak)
    return results


def number_of_workers(roles: Roles, device: str | None) -> int:
    """Return how many jobs run side by side: what the study says, else on a CPU as many as cores and memory allow.

    On another device one job at a time has it to itself.
    """
    study = roles.study
    if processes().count > 1:
        # A launcher has divided the machine already.
        return 1
    if study.workers is not None:
        return study.workers
    from safety_spaces.models.device import ready_device

    if ready_device(device, threads=study.threads).type != "cpu":
        return 1
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    base = roles.folder("base", study.seeds[0])
    weights = sum(path.stat().st_size for path in weight_files(base) if path.is_file())
    fit = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // (WORKER_BYTES + MODEL_COPIES * weights)
    return max(1, min(cores // study.threads, fit))


def run_jobs(jobs: Sequence[Job], *, workers: int, report: Callable[[int], object]) -> tuple[dict[str, Any], int]:
    """Do every job with at most `workers` processes; `report` is told the steps of each job that has ended.

    Returns what each job returned, by its name, and the largest memory of each worker, summed. One worker is this
    process itself. A worker stays with its group while that has jobs. One that is killed is started again, once for
    each job. Raises UserError when a job raised it, or a worker was killed in one job twice; ValueError when jobs wait
    for one another in a circle, or for a job that is not there.
    """
    waiting, number = _in_order(jobs), min(workers, sum(job.processes for job in jobs))
    crew, results = [_Worker() for _ in range(number)] if number > 1 else [], {}
    try:
        if crew:
            return _deal(waiting, crew, report), sum(worker.peak_memory_bytes for worker in crew)
        for job in waiting:
            results[job.name] = _call(job)
            report(job.steps)
        return results, 0
    finally:
        for worker in crew:
            worker.kill()
        # The next command of this process may have another group of the same name.
        _made.cache_clear()


def _in_order(jobs: Sequence[Job]) -> list[Job]:
    """Order jobs as one worker does them."""
    ordered = list[Job]()
    while left := [job for job in jobs if job not in ordered]:
        if not (ready := _ready(left, [job.name for job in ordered])):
            raise ValueError(f"expected jobs that can be done one after the other, got {left[0].name} after another")
        ordered.append(_next_job(ready, last=ordered[-1] if ordered else None))
    return ordered


def _ready(waiting: Sequence[Job], done: Collection[str]) -> list[Job]:
    return [job for job in waiting if job.after.issubset(done)]


def _next_job(ready: Sequence[Job], *, last: Job | None, others: Collection[Job | None] = ()) -> Job:
    """Choose a job like the worker's last one, else one that no other worker has made ready for, else any."""
    groups, places = [job.group for job in others if job], [job.near for job in others if job]

    def distance(job: Job) -> tuple[bool, ...]:
        is_ready = last is not None and job.group == last.group
        follows = last is not None and is_ready and job.near == last.near
        return not is_ready, job.group in groups, not follows, job.near in places

    return min(ready, key=distance)


class _Worker:
    """One process at a time, and what it has made ready."""

    def __init__(self) -> None:
        self.last: Job | None = None
        self.peak_memory_bytes = 0
        self.start()

    def start(self) -> None:
        # A pool for each worker: a pool of several is lost with any one of its processes.
        self.pool = ProcessPoolExecutor(1, multiprocessing.get_context("spawn"), initializer=_prepare)

    def kill(self) -> None:
        # From Python 3.14 on kill_workers().
        for process in (self.pool._processes or {}).values():
            process.kill()
        self.pool.shutdown()


def _prepare() -> None:
    """Make a worker ready."""
    # Ctrl-C reaches every process of a terminal; the first one ends the others.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    # Its own lock would be a semaphore of the system, which a worker that is ended leaves behind with a warning.
    tqdm.set_lock(threading.RLock())
    prepare_libraries(logging.WARNING)


def _end_with_parent() -> None:
    """End a worker whose first process was killed: it would go on beside the run that takes its place."""
    if (parent := multiprocessing.parent_process()) is not None:
        parent.join()
        os._exit(1)


class _Team:
    """The workers that do one job: one, or as many as can do it together."""

    def __init__(self, job: Job, members: Sequence[_Worker]) -> None:
        self.job, self.members = job, members
        with socket.create_server(("127.0.0.1", 0)) as found:
            port = found.getsockname()[1]
        self.futures: list[Future[tuple[Any, int]]] = []
        for number, worker in enumerate(members):
            worker.last = job
            self.futures.append(worker.pool.submit(_measured_call, job, number, len(members), port))

    def error(self) -> BaseException | None:
        """Return the cause of a failure, a killed process before all: the others merely lose who has failed."""
        raised = [error for future in self.futures if future.done() and (error := future.exception()) is not None]
        ranked = (BrokenProcessPool, UserError, BaseException)
        return next((error for kind in ranked for error in raised if isinstance(error, kind)), None)

    def has_ended(self) -> bool:
        """Say whether all are done, or one was killed: the others may wait for it for ever."""
        return all(future.done() for future in self.futures) or isinstance(self.error(), BrokenProcessPool)

    def result(self) -> Any:
        """Return what the first returned; raises the cause of a failure."""
        if (error := self.error()) is not None:
            raise error
        for worker, future in zip(self.members, self.futures, strict=True):
            worker.peak_memory_bytes = max(worker.peak_memory_bytes, future.result()[1])
        return self.futures[0].result()[0]


def _deal(waiting: list[Job], crew: Sequence[_Worker], report: Callable[[int], object]) -> dict[str, Any]:
    """Give the workers that are free the jobs that may begin; those too many help with one that can be shared."""
    results: dict[str, Any] = {}
    killed, free, teams = set[str](), list(crew), list[_Team]()
    while waiting or teams:
        while free and (ready := _ready(waiting, results)):
            job = _next_job(ready, last=free[0].last, others=[worker.last for worker in crew if worker is not free[0]])
            members = min(job.processes, 1 + max(0, len(free) - len(ready)))
            waiting.remove(job)
            teams.append(_Team(job, free[:members]))
            del free[:members]
        wait([future for team in teams for future in team.futures if not future.done()], return_when=FIRST_COMPLETED)
        for team in [team for team in teams if team.has_ended()]:
            teams.remove(team)
            free += team.members
            try:
                results[team.job.name] = team.result()
            except BrokenProcessPool as error:
                if team.job.name in killed:
                    raise UserError(
                        f"{team.job.name}: expected a process that lives to its end, it was killed twice; free memory, "
                        "or write workers: 1 in the study, then run again"
                    ) from error
                logger.warning("warning: %s: its process was killed; it is done again in another one", team.job.name)
                killed.add(team.job.name)
                waiting.insert(0, team.job)
                for worker in team.members:
                    worker.kill()
                    worker.start()
            else:
                report(team.job.steps)
    return results


def _measured_call(job: Job, number: int, count: int, port: int) -> tuple[Any, int]:
    if count == 1:
        return _call(job), peak_memory_bytes()
    from safety_spaces.training.together import member

    with member(number, of=count, port=port):
        return _call(job), peak_memory_bytes()


def _call(job: Job) -> Any:
    return job.call() if job.group is None else job.call(_made(job.group))


@functools.lru_cache(maxsize=1)
def _made(group: Group) -> Any:
    return group.make()
