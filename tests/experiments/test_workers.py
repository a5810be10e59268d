"""Jobs of several processes: each done once, after those that it waits for, whoever is killed on the way."""

import os
import signal
import subprocess
import sys
import threading
import time
from functools import partial
from pathlib import Path

import psutil
import pytest
from tqdm import tqdm

from safety_spaces.errors import UserError
from safety_spaces.experiments.workers import Group, Job, run_jobs
from safety_spaces.processes import processes
from tests.pico import ROOT


def write(folder: Path, name: str, needs: tuple[str, ...] = ()) -> None:
    assert all((folder / need).exists() for need in needs), "begun too early"
    (folder / name).write_text(str(os.getpid()))


def killed_once(folder: Path, name: str) -> None:
    if not (folder / "killed").exists():
        (folder / "killed").touch()
        os.kill(os.getpid(), signal.SIGKILL)
    write(folder, name)


def killed_always() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def refused() -> None:
    raise UserError("expected bread, got stone; ask again")


def use_and_fail(shared: str) -> None:
    raise UserError(f"shared {shared}")


def broken() -> None:
    raise ZeroDivisionError("a fault of ours")


def job(folder: Path, name: str, *needs: str, steps: int = 1) -> Job:
    return Job(name, partial(write, folder, name, needs), after=frozenset(needs), steps=steps)


def chain(folder: Path) -> list[Job]:
    """Two tasks after each of two references after one base, given in the wrong order."""
    tasks = [job(folder, f"task-{seed}-{name}", f"reference-{seed}") for seed in "01" for name in "ab"]
    return [*tasks, *(job(folder, f"reference-{seed}", "base", steps=3) for seed in "01"), job(folder, "base", steps=5)]


@pytest.mark.parametrize("workers", [1, 2, 3])
def test_every_job_is_done_after_those_it_waits_for_and_reported(tmp_path, workers):
    reported = []
    run_jobs(chain(tmp_path), workers=workers, report=reported.append)
    assert {path.name for path in tmp_path.iterdir()} == {of.name for of in chain(tmp_path)}
    assert sum(reported) == 5 + 2 * 3 + 4
    own = {path.read_text() for path in tmp_path.iterdir()} == {str(os.getpid())}
    assert own == (workers == 1)


def make(folder: Path, name: str) -> str:
    (folder / f"{name}-made-{os.getpid()}").touch()
    return name


def use(folder: Path, made: str) -> tuple[str, int]:
    return made, os.getpid()


@pytest.mark.parametrize(("workers", "made"), [(1, 2), (2, 2), (3, 3)])
def test_what_a_group_shares_is_made_once_in_a_worker(tmp_path, workers, made):
    groups = [Group(name, partial(make, tmp_path, name)) for name in "ab"]
    jobs = [Job(f"{of.name}{number}", partial(use, tmp_path), of) for number in range(4) for of in groups]
    results, _ = run_jobs(jobs, workers=workers, report=lambda _: None)
    assert {name: of for name, (of, _) in results.items()} == {job.name: job.name[0] for job in jobs}
    assert made <= len(list(tmp_path.iterdir())) <= max(2, 2 * workers - 1)
    assert len({process for _, process in results.values()}) == workers


def test_a_killed_worker_costs_its_job_and_is_started_again(tmp_path, caplog):
    jobs = [*chain(tmp_path), Job("unlucky", partial(killed_once, tmp_path, "unlucky"))]
    run_jobs(jobs, workers=2, report=lambda _: None)
    assert (tmp_path / "unlucky").exists()
    assert len(list(tmp_path.iterdir())) == len(jobs) + 1
    assert [record.message for record in caplog.records] == [
        "warning: unlucky: its process was killed; it is done again in another one"
    ]


def test_a_job_whose_process_is_killed_twice_ends_the_run(tmp_path):
    jobs = [Job("greedy", partial(killed_always)), job(tmp_path, "modest")]
    with pytest.raises(UserError, match=r"^greedy: expected a process that lives to its end, it was killed twice"):
        run_jobs(jobs, workers=2, report=lambda _: None)


@pytest.mark.parametrize(("call", "error"), [(refused, UserError), (broken, ZeroDivisionError)])
@pytest.mark.parametrize("workers", [1, 2])
def test_what_a_job_raises_is_raised(tmp_path, call, error, workers):
    with pytest.raises(error, match=r"expected bread|a fault of ours"):
        run_jobs([Job("bad", partial(call)), job(tmp_path, "later", "bad")], workers=workers, report=lambda _: None)
    assert not (tmp_path / "later").exists()


def test_what_a_group_shared_is_not_kept_after_a_failure(tmp_path):
    for name in "ab":
        jobs = [Job("bad", partial(use_and_fail), Group("seed 0", partial(str, name)))]
        with pytest.raises(UserError, match=f"shared {name}"):
            run_jobs(jobs, workers=1, report=lambda _: None)


@pytest.mark.parametrize("needs", [("nobody",), ("itself",)])
def test_jobs_that_can_never_begin_are_refused(tmp_path, needs):
    with pytest.raises(ValueError, match="expected jobs that can be done one after the other, got itself"):
        run_jobs([job(tmp_path, "itself", *needs)], workers=2, report=lambda _: None)


def number_together() -> int:
    return processes().count


def shared(name: str, *needs: str) -> Job:
    return Job(name, partial(number_together), after=frozenset(needs), processes=2)


@pytest.mark.parametrize(("workers", "number"), [(1, 1), (2, 2)])
def test_workers_without_a_job_of_their_own_help_with_one_that_can_be_shared(workers, number):
    jobs = [shared("base"), *(shared(name, "base") for name in "ab"), shared("last", *"ab"), job_of_one("last")]
    results, _ = run_jobs(jobs, workers=workers, report=lambda _: None)
    assert results == {"base": number, **dict.fromkeys("ab", 1), "last": number, "alone": 1}


def job_of_one(*needs: str) -> Job:
    return Job("alone", partial(number_together), after=frozenset(needs))


def second_killed_once(folder: Path) -> int:
    again = (folder / "killed").exists()
    if processes().index == 1:
        killed_once(folder, "second")
    elif not again:
        # As a process that waits for one that is gone.
        time.sleep(600)
    return processes().count


@pytest.mark.slow
def test_a_member_that_is_killed_costs_the_job_which_is_begun_again(tmp_path, caplog):
    results, _ = run_jobs(
        [Job("both", partial(second_killed_once, tmp_path), processes=2)], workers=2, report=lambda _: None
    )
    assert results == {"both": 2}
    assert [record.message for record in caplog.records] == [
        "warning: both: its process was killed; it is done again in another one"
    ]


def refused_by(index: int) -> None:
    if processes().index == index:
        time.sleep(1)
        refused()
    raise SystemExit(2)


@pytest.mark.slow
@pytest.mark.parametrize("index", [0, 1])
def test_what_a_member_raises_for_the_user_is_raised(index):
    with pytest.raises(UserError, match="expected bread"):
        run_jobs([Job("both", partial(refused_by, index), processes=2)], workers=2, report=lambda _: None)


def drawing(folder: Path) -> None:
    with tqdm(total=2) as bar:
        bar.update()
        killed_once(folder, "drawn")


def test_a_worker_that_drew_a_bar_and_is_killed_leaves_nothing_to_warn_of(tmp_path):
    script = (
        "from functools import partial; from pathlib import Path; import sys\n"
        "from safety_spaces.experiments.workers import Job, run_jobs\n"
        "from tests.experiments.test_workers import drawing, write\n"
        "if __name__ == '__main__':\n"
        "    folder = Path(sys.argv[1])\n"
        "    jobs = [Job('drawn', partial(drawing, folder)), Job('other', partial(write, folder, 'other'))]\n"
        "    run_jobs(jobs, workers=2, report=lambda _: None)\n"
    )
    (tmp_path / "script.py").write_text(script)
    done = subprocess.run(
        [sys.executable, str(tmp_path / "script.py"), str(tmp_path)], capture_output=True, text=True, check=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert (tmp_path / "drawn").exists()
    assert "leaked" not in done.stderr


def wait_for_ever(folder: Path, name: str) -> None:
    write(folder, name)
    threading.Event().wait()


@pytest.mark.slow
@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL])
def test_workers_end_with_the_process_that_started_them(tmp_path, how):
    """Or they would go on beside the run that takes its place, and write into the same folders."""
    code = (
        "from functools import partial; from pathlib import Path\n"
        "from safety_spaces.experiments.workers import Job, run_jobs\n"
        "from tests.experiments.test_workers import wait_for_ever\n"
        f"jobs = [Job(name, partial(wait_for_ever, Path({str(tmp_path)!r}), name)) for name in ('a', 'b')]\n"
        "if __name__ == '__main__': run_jobs(jobs, workers=2, report=print)\n"
    )
    (tmp_path / "run.py").write_text(code)
    first = subprocess.Popen(
        [sys.executable, str(tmp_path / "run.py")],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stderr=subprocess.DEVNULL,
    )
    begun = [tmp_path / name for name in ("a", "b")]
    while first.poll() is None and not all(path.exists() and path.read_text() for path in begun):
        time.sleep(0.05)
    workers = [psutil.Process(int(path.read_text())) for path in begun]
    first.send_signal(how)
    first.wait()
    _, alive = psutil.wait_procs(workers, timeout=60)
    assert not alive
