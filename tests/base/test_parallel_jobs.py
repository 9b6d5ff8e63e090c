"""Jobs at the same time: in their order, with each other's results, and stopped without loss."""

import os
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pytest
from paths import SUPPORT
from patience import PATIENCE
from watching import Watching

from vidssl.base.errors import Interrupted, MissingInput, UsageError, VidsslError
from vidssl.base.files import atomic_write
from vidssl.base.parallel_jobs import STOPPING, Job, run_jobs
from vidssl.base.progress import SILENT
from vidssl.base.signals import stop_requests


def add(progress, *earlier):
    return 1 + sum(earlier)


def note(folder: Path, name: str, progress, *earlier):
    """Notes when a job begins and ends."""
    with (folder / "log").open("a") as log:
        log.write(f"{name} begins\n")
    time.sleep(0.1)
    with (folder / "log").open("a") as log:
        log.write(f"{name} ends\n")
    return os.getpid()


def meet(folder: Path, name: str, progress, *earlier):
    """Ends only when two jobs are at work at the same time."""
    (folder / name).touch()
    wait_for(lambda: len(list(folder.iterdir())) == 2)


def wait_for(condition) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def fail(error: Exception, progress, *earlier):
    raise error


def die(progress, *earlier):
    os.kill(os.getpid(), signal.SIGKILL)


def say(progress, *earlier):
    progress.say("hello")
    with progress.task("count", 3, "step") as task:
        for _ in range(3):
            task.advance()


def until_stopped(folder: Path, name: str, progress, *earlier):
    """Works until it is asked to stop, and then saves."""
    with stop_requests() as stop:
        atomic_write(folder / f"{name} began", str(os.getpid()).encode())
        while not stop:
            time.sleep(0.02)
    time.sleep(0.3)
    (folder / f"{name} saved").touch()
    raise Interrupted("saved")


class Telling(Watching):
    """Prints what is said, and how many jobs had saved by then."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.folder = folder

    def say(self, text: str) -> None:
        print(f"{text} ({len(list(self.folder.glob('* saved')))} saved)", flush=True)


def forever(folder: Path, processes: int = 2) -> None:
    """Two jobs that end only when they are asked to."""
    jobs = [Job(name, partial(until_stopped, folder, name)) for name in ("one", "other")]
    run_jobs(jobs, processes, Telling(folder))


@pytest.mark.parametrize("processes", [1, 2, 5])
def test_results_go_to_those_that_come_after(processes):
    jobs = [
        Job("a", add),
        Job("b", add, ("a",)),
        Job("c", add),
        Job("d", add, ("b", "c", "a")),
    ]
    done = run_jobs(jobs, processes, SILENT)
    assert list(done) == ["a", "b", "c", "d"]
    assert [job.result for job in done.values()] == [1, 2, 1, 5]
    assert all(job.seconds >= 0 for job in done.values())


def test_two_are_at_work_at_the_same_time(tmp_path):
    run_jobs([Job(name, partial(meet, tmp_path, name)) for name in "ab"], 2, SILENT)


@pytest.mark.parametrize("processes", [1, 2])
def test_the_first_that_can_begins_and_processes_are_used_again(tmp_path, processes):
    order = {"long": (), "a": (), "b": ("a",), "c": (), "d": ("c", "b")}
    jobs = [Job(name, partial(note, tmp_path, name), after) for name, after in order.items()]
    done = run_jobs(jobs, processes, SILENT)
    log = (tmp_path / "log").read_text().splitlines()
    for name, after in order.items():
        for earlier in after:
            assert log.index(f"{earlier} ends") < log.index(f"{name} begins")
    pids = {job.result for job in done.values()}
    assert len(pids) == processes and (os.getpid() in pids) == (processes == 1)
    if processes == 1:
        assert log == [f"{name} {what}" for name in order for what in ("begins", "ends")]


@pytest.mark.parametrize("processes", [1, 2])
def test_progress_is_shown_here(processes):
    watching = Watching()
    run_jobs([Job("say", say)], processes, watching)
    assert watching.said == ["hello"] and watching.titles == ["count"]
    assert (watching.total, watching.came) == (3, 3)


@pytest.mark.parametrize(
    "error", [UsageError("no such thing"), MissingInput("no pack"), VidsslError("no")]
)
def test_an_error_for_the_user_comes_as_it_was(error):
    with pytest.raises(VidsslError) as raised:
        run_jobs([Job("bad", partial(fail, error)), Job("good", add)], 2, SILENT)
    assert str(raised.value) == str(error) and raised.value.exit_code == error.exit_code


def test_another_error_comes_with_its_traceback():
    with pytest.raises(RuntimeError, match=r"(?s)in fail.*KeyError: 'x'"):
        run_jobs([Job("bad", partial(fail, KeyError("x")))], 2, SILENT)


def test_a_process_that_dies_is_named_with_its_job():
    said = r"“deadly” has ended \(SIGKILL\); the same command goes on"
    with pytest.raises(VidsslError, match=said):
        run_jobs([Job("deadly", die), Job("good", add)], 2, SILENT)


def test_when_one_fails_the_others_save_first(tmp_path):
    def both() -> list[Job]:
        begun = partial(meet_then_fail, tmp_path)
        return [Job("one", partial(until_stopped, tmp_path, "one")), Job("bad", begun)]

    watching = Watching()
    with pytest.raises(VidsslError, match="after the other began"):
        run_jobs(both(), 2, watching)
    assert watching.said == [STOPPING]
    assert (tmp_path / "one saved").exists()


def meet_then_fail(folder: Path, progress, *earlier):
    wait_for((folder / "one began").exists)
    raise VidsslError("after the other began")


# ── signals ──────────────────────────────────────────────────────────────────────────────────


def start(folder: Path) -> subprocess.Popen:
    """Begins two endless jobs in a process of its own, as a shell would: in a group of its own."""
    script = f"""
import sys
from pathlib import Path
import test_parallel_jobs
from vidssl.base.errors import Interrupted
try:
    test_parallel_jobs.forever(Path({str(folder)!r}))
except Interrupted as error:
    print(error)
    sys.exit(error.exit_code)
"""
    process = subprocess.Popen(
        [sys.executable, "-c", script],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True,
        env=os.environ | {"PYTHONPATH": os.pathsep.join([str(SUPPORT), *sys.path])},
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )  # fmt: skip
    wait_for(lambda: len(list(folder.glob("* began"))) == 2 or process.poll() is not None)
    return process


def is_there(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


@pytest.mark.parametrize(
    "number, to_all", [(signal.SIGINT, True), (signal.SIGTERM, False), (signal.SIGINT, False)]
)
def test_a_signal_lets_all_jobs_save(tmp_path, number, to_all):
    """A terminal's Ctrl-C goes to every process, `kill` to one."""
    process = start(tmp_path)
    (os.killpg if to_all else os.kill)(process.pid, number)
    out, _ = process.communicate(timeout=PATIENCE)
    assert process.returncode == 128 + number, out
    assert out.splitlines() == [
        "stopping: saving what is done … (0 saved)",
        "interrupted; all is saved, the same command goes on from here",
    ]
    assert {path.name for path in tmp_path.glob("* saved")} == {"one saved", "other saved"}


def test_killed_it_leaves_no_process_behind(tmp_path):
    process = start(tmp_path)
    workers = [int(path.read_text()) for path in tmp_path.glob("* began")]
    process.kill()
    process.communicate(timeout=PATIENCE)
    wait_for(lambda: not any(map(is_there, workers)))
    assert not list(tmp_path.glob("* saved"))
