"""Independent jobs side by side, each in a process of one thread.

Two threads of one small model wait for each other, and spin while another program has the core; two processes never do.
A job leaves its result on disk before it ends, so what a killed worker costs is its job, and the bytes of a result
depend neither on the number of workers nor on who did it.
"""

import logging
import multiprocessing
import os
import signal
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

from safety_spaces.errors import UserError

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Job:
    """A call that can be sent to another process.

    `after` names jobs that have to be done before. Jobs of one `group` share what is dear to make ready, such as a
    model in memory, so a worker stays with its group while that has jobs. `steps` is its length in a progress bar.
    """

    name: str
    call: partial[Any]
    after: frozenset[str] = frozenset()
    group: str = ""
    steps: int = 1


def run_jobs(jobs: Sequence[Job], *, workers: int, report: Callable[[int], object]) -> None:
    """Do every job, at most `workers` at a time; `report` is told the steps of each job that has ended.

    One worker is this process itself. A worker that is killed is started again, once for each job.

    Raises:
        UserError: a job raised it, or a worker was killed in one job twice.
        ValueError: jobs wait for one another in a circle, or for a job that is not there.
    """
    waiting, number = _in_order(jobs), min(workers, len(jobs))
    if number > 1:
        with _team(number) as team:
            _deal(waiting, team, report)
        return
    for job in waiting:
        job.call()
        report(job.steps)


def _in_order(jobs: Iterable[Job]) -> list[Job]:
    """Order jobs as one worker can do them."""
    left, ordered = list(jobs), []
    while left:
        job = _next_job(left, {done.name for done in ordered}, group="")
        if job is None:
            raise ValueError(
                f"expected jobs that can be done one after the other, got {left[0].name} after {left[0].after}"
            )
        left.remove(job)
        ordered.append(job)
    return ordered


def _next_job(waiting: Iterable[Job], done: set[str], *, group: str) -> Job | None:
    ready = [job for job in waiting if job.after <= done]
    return next((job for job in ready if job.group == group), next(iter(ready), None))


class _Worker:
    """One process at a time, and the job that it does."""

    def __init__(self) -> None:
        self.job: Job | None = None
        self.group = ""
        self.future: Future[Any]
        self._pool = _pool()

    def begin(self, job: Job) -> None:
        self.job, self.group = job, job.group
        self.future = self._pool.submit(job.call)

    def restart(self) -> None:
        self.job = None
        self._pool.shutdown()
        self._pool = _pool()


def _pool() -> ProcessPoolExecutor:
    # A pool of its own for each worker: a pool of several is lost with any of its processes.
    context = multiprocessing.get_context("spawn")
    return ProcessPoolExecutor(1, context, initializer=signal.signal, initargs=(signal.SIGINT, signal.SIG_IGN))


@contextmanager
def _team(number: int) -> Iterator[list[_Worker]]:
    """Start workers; at the end, whatever it is, none is left."""
    os.environ["OMP_NUM_THREADS"] = "1"
    try:
        yield [_Worker() for _ in range(number)]
    finally:
        for process in multiprocessing.active_children():
            process.terminate()


def _deal(waiting: list[Job], team: Sequence[_Worker], report: Callable[[int], object]) -> None:
    """Give each worker that is free the next job that may begin."""
    done: set[str] = set()
    killed: set[str] = set()
    while waiting or any(worker.job for worker in team):
        for worker in team:
            if worker.job is None and (job := _next_job(waiting, done, group=worker.group)) is not None:
                waiting.remove(job)
                worker.begin(job)
        busy = {worker.future: worker for worker in team if worker.job is not None}
        for future in wait(busy, return_when=FIRST_COMPLETED).done:
            worker = busy[future]
            job, worker.job = worker.job, None
            assert job is not None
            try:
                future.result()
            except BrokenProcessPool as error:
                if job.name in killed:
                    raise UserError(
                        f"{job.name}: expected a process that lives to its end, it was killed twice; free memory, or "
                        "write workers: 1 in the study, then run again"
                    ) from error
                logger.warning("warning: %s: its process was killed; it is done again in another one", job.name)
                killed.add(job.name)
                waiting.insert(0, job)
                worker.restart()
            else:
                done.add(job.name)
                report(job.steps)
