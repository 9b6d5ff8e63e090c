"""The demo's jobs: side by side as one after the other, and killed as if it had not been."""

import os
import signal
import subprocess
import sys
import time
from dataclasses import asdict
from pathlib import Path
from shutil import copytree

import pytest

from vidssl.artifacts import Workspace
from vidssl.errors import Interrupted
from vidssl.stages import demo
from vidssl.synthetic import write_clips

CHECKPOINTS = {"rgb-infonce-long", "rgb-infonce", "flow-infonce", "rgb-coclr"}
# Small enough for seconds: what is tested here is the plumbing, not the learning.
SMALL = {"frames": 4, "size": 32, "batch_size": 4, "queue": 8, "backbone": "tiny"}


def small_clips(workspace: Workspace, options: demo.DemoOptions, progress) -> Path:
    folder = workspace.root / "demo-videos"
    return write_clips(folder, options.clips, options.seed, frames=12, size=(48, 48))


def run(workspace: Path, workers: int, epochs: int) -> demo.DemoResult:
    """Runs the demo on a few tiny clips, of which only the first process makes any."""
    demo.make_clips = small_clips
    settings = (*SMALL.items(), ("epochs", epochs))
    options = demo.DemoOptions(clips=36, workers=workers, device="cpu", settings=settings)
    return demo.run(Workspace(workspace), options)


@pytest.fixture(autouse=True)
def the_demo_as_it_was():
    before = demo.make_clips
    yield
    demo.make_clips = before


@pytest.fixture(scope="module")
def packed(tmp_path_factory) -> Path:
    """A workspace with the demo's pack, on which the tests begin."""
    root = tmp_path_factory.mktemp("demo") / "packed"
    before, demo.jobs = demo.jobs, lambda workspace, options: []
    try:
        run(root, workers=1, epochs=1)
    finally:
        demo.jobs = before
    return root


def checkpoints(workspace: Path) -> dict[str, str]:
    return {a.name: a.digest for a in Workspace(workspace).artifacts("checkpoint")}


def evaluations(workspace: Path) -> dict[str, str]:
    kinds = ("features", "probe", "retrieval")
    return {a.label: a.digest for kind in kinds for a in Workspace(workspace).artifacts(kind)}


def test_side_by_side_is_as_one_after_the_other(packed, tmp_path):
    results = {}
    for workers in (1, 2):
        copytree(packed, tmp_path / str(workers))
        results[workers] = run(tmp_path / str(workers), workers, epochs=2)
    one, two = tmp_path / "1", tmp_path / "2"
    assert checkpoints(one).keys() == CHECKPOINTS
    assert checkpoints(one) == checkpoints(two)
    assert evaluations(one) == evaluations(two) and len(evaluations(one)) == 4 + 8 + 8
    alone, together = ([asdict(row) for row in result.rows] for result in results.values())
    assert alone == together
    names = [row["features"] for row in alone]
    assert names == [
        "colour histogram", "mean frame", "untrained RGB", "untrained flow",
        "InfoNCE RGB, as long", "InfoNCE RGB", "InfoNCE flow", "CoCLR RGB",
    ]  # fmt: skip
    assert results[2].seconds.keys() == results[1].seconds.keys()
    assert results[2].total > 0 and results[2].findings()


def test_the_control_trains_as_long_as_the_other_way_to_coclr(packed, tmp_path):
    copytree(packed, tmp_path / "w")
    run(tmp_path / "w", workers=2, epochs=2)
    found = {a.name: a for a in Workspace(tmp_path / "w").artifacts("checkpoint")}
    epochs = {name: artifact.summary["epochs"] for name, artifact in found.items()}
    way = epochs["rgb-infonce"] + epochs["rgb-coclr"]
    assert epochs["rgb-infonce-long"] == way == 4
    parents = found["rgb-coclr"].parents
    assert parents["student"] == found["rgb-infonce"].digest
    assert parents["partner"] == found["flow-infonce"].digest


def test_typed_again_it_does_nothing(packed, tmp_path):
    copytree(packed, tmp_path / "w")
    first = run(tmp_path / "w", workers=2, epochs=1)
    before = {a.label: a.digest for a in Workspace(tmp_path / "w").scan()[0]}
    second = run(tmp_path / "w", workers=2, epochs=1)
    assert {a.label: a.digest for a in Workspace(tmp_path / "w").scan()[0]} == before
    assert [asdict(row) for row in first.rows] == [asdict(row) for row in second.rows]


def test_other_settings_meanwhile_do_not_mix_in(packed, tmp_path):
    """What is evaluated are the checkpoints of these settings, also where others are newer."""
    copytree(packed, tmp_path / "w")
    first = run(tmp_path / "w", workers=1, epochs=1)
    run(tmp_path / "w", workers=1, epochs=2)
    again = run(tmp_path / "w", workers=1, epochs=1)
    assert [asdict(row) for row in first.rows] == [asdict(row) for row in again.rows]


# ── killed ───────────────────────────────────────────────────────────────────────────────────

LONG = 16  # epochs


def start(workspace: Path) -> subprocess.Popen:
    script = f"""
import sys
from pathlib import Path
import test_demo
from vidssl.errors import Interrupted
try:
    test_demo.run(Path({str(workspace)!r}), 2, {LONG})
except Interrupted as error:
    sys.exit(error.exit_code)
"""
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), *sys.path]),
        "OMP_NUM_THREADS": "1",
    }
    return subprocess.Popen(
        [sys.executable, "-c", script],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment,
    )  # fmt: skip


def wait_for_steps(process: subprocess.Popen, workspace: Path) -> None:
    """Waits until two trainings have written rows of their logs."""
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        assert process.poll() is None, process.communicate()[0]
        logs = list(workspace.glob("checkpoint/*/.run-*/log.jsonl"))
        if sum(log.read_text().count("\n") > 2 for log in logs) == 2:
            return
        time.sleep(0.02)
    raise AssertionError("training wrote no log in two minutes")


@pytest.fixture(scope="module")
def whole(packed, tmp_path_factory) -> Path:
    """A workspace in which the long demo ran through."""
    root = tmp_path_factory.mktemp("whole") / "w"
    copytree(packed, root)
    run(root, workers=1, epochs=LONG)
    return root


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_killed_it_goes_on_to_the_same_weights(packed, whole, tmp_path, number):
    copytree(packed, tmp_path / "w")
    process = start(tmp_path / "w")
    wait_for_steps(process, tmp_path / "w")
    process.send_signal(number)
    out, _ = process.communicate(timeout=60)
    assert process.returncode == (143 if number == signal.SIGTERM else -9), out
    assert "Traceback" not in out
    assert bool(list(tmp_path.glob("w/checkpoint/*/.run-*/resume.pt"))) == (
        number == signal.SIGTERM
    )
    run(tmp_path / "w", workers=2, epochs=LONG)
    assert checkpoints(tmp_path / "w") == checkpoints(whole)
    assert evaluations(tmp_path / "w") == evaluations(whole)


def test_an_interruption_says_so(packed, tmp_path, monkeypatch):
    """In one process as well: what a job raises, the demo raises."""

    def stopped(*arguments):
        raise Interrupted("stopped", signal.SIGTERM)

    copytree(packed, tmp_path / "w")
    monkeypatch.setattr(demo.pretrain, "run", stopped)
    with pytest.raises(Interrupted, match="stopped"):
        run(tmp_path / "w", workers=1, epochs=1)
