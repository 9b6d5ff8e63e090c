"""The demo's jobs: side by side as one after the other, and killed as if it had not been."""

import io
import os
import signal
import subprocess
import sys
import time
from dataclasses import asdict, replace
from pathlib import Path
from shutil import copytree
from unittest.mock import patch

import pytest
from paths import SUPPORT
from patience import PATIENCE
from rich.console import Console
from watching import Watching

from vidssl.base.errors import Interrupted
from vidssl.base.progress import SILENT
from vidssl.cli.tables import demo_tables
from vidssl.dataset.synthetic import write_clips
from vidssl.stages import demo
from vidssl.workspace.workspace import Workspace

CHECKPOINTS = {"rgb-infonce-long", "rgb-infonce", "flow-infonce", "rgb-coclr"}
# Small enough for seconds: what is tested here is the plumbing, not the learning.
SMALL = {"frames": 4, "size": 32, "batch_size": 4, "queue": 12, "backbone": "tiny"}


def small_clips(workspace: Workspace, options: demo.DemoOptions, progress) -> Path:
    folder = workspace.root / "demo-videos"
    return write_clips(folder, options.clips, options.seed, frames=12, size=(48, 48))


def run(workspace: Path, workers: int, epochs: int, progress=SILENT) -> demo.DemoResult:
    """Runs the demo on a few tiny clips, of which only the first process makes any."""
    settings = (*SMALL.items(), ("epochs", epochs))
    options = demo.DemoOptions(clips=36, workers=workers, device="cpu", settings=settings)
    with patch.object(demo, "make_clips", small_clips):
        return demo.run(Workspace(workspace), options, progress)


@pytest.fixture(scope="module")
def packed(tmp_path_factory) -> Path:
    """A workspace with the demo's pack, on which the tests begin."""
    root = tmp_path_factory.mktemp("demo") / "packed"
    with patch.object(demo, "jobs", lambda workspace, options: []):
        run(root, workers=1, epochs=1)
    return root


def checkpoints(workspace: Path) -> dict[str, str]:
    return {a.name: a.digest for a in Workspace(workspace).artifacts("checkpoint")}


def evaluations(workspace: Path) -> dict[str, str]:
    kinds = ("features", "probe", "retrieval")
    return {a.label: a.digest for kind in kinds for a in Workspace(workspace).artifacts(kind)}


def shown(result: demo.DemoResult) -> list[dict]:
    return [asdict(row) for row in result.rows]


Ran = tuple[Path, demo.DemoResult]


@pytest.fixture(scope="module")
def alone(packed, tmp_path_factory) -> Ran:
    """The demo, one job after the other; read only."""
    root = copytree(packed, tmp_path_factory.mktemp("alone") / "w")
    return root, run(root, workers=1, epochs=2)


@pytest.fixture(scope="module")
def together(packed, tmp_path_factory) -> Ran:
    """The demo, two jobs at a time; read only."""
    root = copytree(packed, tmp_path_factory.mktemp("together") / "w")
    return root, run(root, workers=2, epochs=2)


def test_side_by_side_is_as_one_after_the_other(alone, together):
    (one, by_one), (two, by_two) = alone, together
    assert checkpoints(one).keys() == CHECKPOINTS
    assert checkpoints(one) == checkpoints(two)
    assert evaluations(one) == evaluations(two) and len(evaluations(one)) == 4 + 8 + 8
    assert shown(by_one) == shown(by_two)
    assert by_one.seconds.keys() == by_two.seconds.keys()
    assert [row.features for row in by_two.rows] == [
        "colour histogram", "mean frame", "untrained RGB", "untrained flow",
        "InfoNCE flow", "InfoNCE RGB, 2 epochs", "InfoNCE RGB, 4 epochs",
        "CoCLR RGB, 2 epochs after InfoNCE's 2",
    ]  # fmt: skip
    assert by_two.total > 0 and by_two.findings()
    assert together[1].sheet.read_bytes().startswith(b"\x89PNG")


def test_the_control_trains_as_long_as_the_other_way_to_coclr(alone):
    found = {a.name: a for a in Workspace(alone[0]).artifacts("checkpoint")}
    epochs = {name: artifact.summary["epochs"] for name, artifact in found.items()}
    assert epochs["rgb-infonce-long"] == epochs["rgb-infonce"] + epochs["rgb-coclr"] == 4
    parents = found["rgb-coclr"].parents
    assert parents["student"] == found["rgb-infonce"].digest
    assert parents["partner"] == found["flow-infonce"].digest


def test_on_one_core_the_newest_are_those_to_go_on_with(alone):
    made = [a.name for a in Workspace(alone[0]).artifacts("checkpoint")]
    assert made == ["rgb-infonce", "flow-infonce", "rgb-infonce-long", "rgb-coclr"]


def test_typed_again_it_does_nothing(together, tmp_path):
    root = copytree(together[0], tmp_path / "w")
    before = {a.label: a.digest for a in Workspace(root).scan()[0]}
    watching = Watching()
    again = run(root, workers=2, epochs=2, progress=watching)
    assert shown(again) == shown(together[1])
    for name in CHECKPOINTS:
        assert watching.said.count(f"{name}: finished before, checkpoint/{name}/v001") == 1
    assert {a.label: a.digest for a in Workspace(root).scan()[0]} == before


def test_lines_of_trainings_at_the_same_time_bear_their_names(alone, tmp_path):
    root, watching = copytree(alone[0], tmp_path / "w"), Watching()
    run(root, workers=1, epochs=1, progress=watching)
    begun = [said for said in watching.said if said.startswith("pretrain ")]
    names = ["rgb-infonce", "flow-infonce", "rgb-infonce-long"]
    assert [said.partition(":")[0] for said in begun] == [f"pretrain {name}" for name in names]
    evaluated = [title for title in watching.titles if "embed" in title]
    assert "rgb-infonce-long: embed rgb" in evaluated and "rgb-coclr: embed rgb" in evaluated


def text(result: demo.DemoResult) -> str:
    console = Console(width=120, file=io.StringIO())
    console.print(demo_tables(result, Path("w")))
    return console.file.getvalue()


def test_time_of_an_earlier_call_is_not_counted_as_in_all(alone):
    """The first call made clips; the next one takes them over."""
    _, result = alone
    assert result.gone_on
    assert "s this time" in text(result) and "in all" not in text(result)
    first = replace(result, gone_on=False)
    assert "s in all" in text(first) and "this time" not in text(first)


def test_a_call_in_a_fresh_workspace_goes_on_from_nothing(tmp_path):
    with patch.object(demo, "jobs", lambda workspace, options: []):
        first, again = (run(tmp_path / "w", workers=1, epochs=1) for _ in range(2))
    assert (first.gone_on, again.gone_on) == (False, True)


def test_other_settings_meanwhile_do_not_mix_in(alone, tmp_path):
    """What is evaluated are the checkpoints of these settings, also where others are newer."""
    root = copytree(alone[0], tmp_path / "w")
    assert shown(run(root, workers=1, epochs=1)) != shown(alone[1])
    assert shown(run(root, workers=1, epochs=2)) == shown(alone[1])


# ── killed ───────────────────────────────────────────────────────────────────────────────────

LONG = 16  # epochs


def start(workspace: Path) -> subprocess.Popen:
    script = f"""
import sys
from pathlib import Path
import test_demo
from vidssl.base.errors import Interrupted
try:
    test_demo.run(Path({str(workspace)!r}), 2, {LONG})
except Interrupted as error:
    sys.exit(error.exit_code)
"""
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join([str(SUPPORT), *sys.path]),
        "OMP_NUM_THREADS": "1",
    }
    return subprocess.Popen(
        [sys.executable, "-c", script],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment,
    )  # fmt: skip


def wait_for_steps(process: subprocess.Popen, workspace: Path) -> None:
    """Waits until two trainings have written rows of their logs."""
    deadline = time.monotonic() + PATIENCE
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
    out, _ = process.communicate(timeout=PATIENCE)
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
