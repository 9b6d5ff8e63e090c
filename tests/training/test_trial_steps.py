"""What `--plan` tells of a training run, and that it leaves nothing behind."""

from types import SimpleNamespace

import pytest
import torch
from cli_workspace import vidssl
from methods import BUILDERS, batch
from small_workspace import annotate, make_checkpoint, make_pack

from vidssl.base.cores_and_memory import free_memory
from vidssl.cli.tables import duration, forecast_table, gigabytes
from vidssl.engine.loop import RuntimeConfig, prepare
from vidssl.engine.train_spec import TrainSpec
from vidssl.shards import ShardReader
from vidssl.stages import pretrain
from vidssl.training import trial_steps
from vidssl.training.trial_steps import Forecast
from vidssl.workspace.workspace import Workspace

CPU = torch.device("cpu")
SMALL = [
    "--recipe",
    "tiny",
    "--epochs",
    "3",
    "--batch-size",
    "4",
    "--set",
    "frames=4",
    "--set",
    "size=32",
]
SMALL += ["--set", "size=32", "--set", "queue=8"]
VIDEOS = 12


@pytest.fixture(scope="module")
def workspace(tmp_path_factory) -> Workspace:
    """A pack of two views, labels, and an untrained encoder of each."""
    made = Workspace(tmp_path_factory.mktemp("plan") / "workspace")
    pack = make_pack(made, [n % 3 for n in range(VIDEOS)], ("rgb", "flow"))
    table = annotate(made, pack, splits={"split1": ["train"] * VIDEOS})
    for stream in ("rgb", "flow"):
        make_checkpoint(made, pack, table, stream, "split1")
    return made


@pytest.fixture(autouse=True)
def short(monkeypatch):
    monkeypatch.setattr(trial_steps, "TIMED", 3)


def told(workspace: Workspace, *words: str) -> dict:
    """Asks for a plan as JSON, and holds that nothing came of it."""
    before = {path: path.stat().st_mtime_ns for path in sorted(workspace.root.rglob("*"))}
    found = vidssl(*words, *SMALL, "--plan", "--json", workspace=workspace.root).json
    after = {path: path.stat().st_mtime_ns for path in sorted(workspace.root.rglob("*"))}
    assert after == before
    return found["plan"]


def test_a_plan_of_pretrain_tells_steps_time_memory_and_bytes(workspace):
    plan = told(workspace, "pretrain")
    found = plan["forecast"]
    options = pretrain.PretrainOptions(recipe="tiny", settings=(("queue", 8), ("batch_size", 4)))
    method = pretrain.plan_pretraining(workspace, options).make_method()
    assert found["parameters"] == sum(p.numel() for p in method.parameters())
    assert found["trained"] == found["parameters"] // 2, "the key encoder follows untrained"
    assert (found["steps_per_epoch"], found["epochs"]) == (3, 3)
    assert plan["optimiser_steps"] == 9
    assert (found["processes"], found["batch_per_process"], found["micro_batch"]) == (1, 4, 4)
    assert found["tried"] == 3 and found["samples_per_second"] > 0
    assert found["seconds_per_epoch"] == pytest.approx(12 / found["samples_per_second"])
    assert 0 <= found["data_wait"] <= 1 and not found["measured"] and found["memory"] > 1e6
    # A sample is two clips of 4 frames, which may hold the same frames.
    frame = ShardReader(workspace.resolve("pack", "main").path).frame_bytes("rgb")
    assert 12 * 4 * frame <= found["bytes_per_epoch"] <= 12 * 8 * frame + 1


@pytest.mark.parametrize(
    "words", [["--stream", "rgb", "--k", "2"], ["--method", "cmc"], ["--cycles", "2", "--k", "2"]]
)
def test_a_plan_of_cotrain_is_of_steps_that_train(workspace, words, monkeypatch):
    losses = []

    def train_step(*given):
        outputs = real(*given)
        losses.extend(output.loss for output in outputs)
        return outputs

    real = trial_steps.train_step
    monkeypatch.setattr(trial_steps, "train_step", train_step)
    if "--cycles" in words:
        out = vidssl("cotrain", *words, *SMALL, "--plan", workspace=workspace.root).out
        assert "plan of checkpoint/rgb-coclr" in out
    else:
        frame = ShardReader(workspace.resolve("pack", "main").path).frame_bytes
        read = told(workspace, "cotrain", *words)["forecast"]["bytes_per_epoch"]
        rgb, flow = (12 * 4 * frame(view) for view in ("rgb", "flow"))
        assert read >= rgb + flow, "both views are read"
        if "--k" in words:
            assert read <= 2 * rgb + flow + 1, "of the partner's the last clip alone"
    assert len(losses) == trial_steps.WARM + 3 and all(loss is not None for loss in losses)


def test_a_plan_is_a_table_on_a_terminal(workspace):
    out = vidssl("pretrain", *SMALL, "--plan", workspace=workspace.root).out
    for word in (
        "parameters",
        "batch",
        "memory",
        "estimate",
        "steps",
        "speed",
        "time",
        "to be read",
    ):
        assert word in out


def test_without_memory_no_step_is_tried(workspace, monkeypatch):
    monkeypatch.setattr(trial_steps, "free_memory", lambda: 1000)
    found = told(workspace, "pretrain")["forecast"]
    assert found["tried"] == 0 and found["seconds_per_epoch"] is None
    assert "too little free memory" in found["note"]
    out = vidssl("pretrain", *SMALL, "--plan", workspace=workspace.root).out
    assert "too little free memory" in out and "speed" not in out


def test_a_slow_trial_ends_early(workspace, monkeypatch):
    monkeypatch.setattr(trial_steps, "SECONDS", 0.0)
    found = told(workspace, "pretrain")["forecast"]
    assert found["tried"] == 1 and found["seconds_per_epoch"] > 0


@pytest.mark.parametrize("method", BUILDERS)
def test_memory_estimated_from_few_samples_is_that_of_all(method):
    """Activations grow in proportion to the samples; all else does not."""
    estimates = []
    for few in ((2, 4), (3, 8)):
        built = BUILDERS[method]()
        built.assume_queue_full()
        loader = SimpleNamespace(steps=lambda *_, of=built: iter([batch(0, of, 8)]))
        optimizer = prepare(built, TrainSpec(batch_size=8), RuntimeConfig(CPU))
        trial_steps.FEW, kept = few, trial_steps.FEW
        try:
            estimates.append(trial_steps._estimate(built, optimizer, loader, TrainSpec()))
        finally:
            trial_steps.FEW = kept
    assert estimates[0] == pytest.approx(estimates[1], rel=0.02)


def test_what_autograd_keeps_is_counted_once_and_without_parameters():
    class Loss(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = torch.nn.Linear(10, 20)

        def forward(self, made, step_state):
            hidden = self.layer(made.clips["rgb"]).relu()  # keeps its output
            return SimpleNamespace(loss=(hidden * hidden).sum())  # keeps the same again

    made = SimpleNamespace(clips={"rgb": torch.ones(3, 10)})
    assert trial_steps._kept_for_backward(Loss(), made, None) == 3 * 20 * 4


def test_frames_asked_for_are_counted():
    reader = SimpleNamespace(pictures=lambda *given, **how: [])
    counted = trial_steps.CountedFrames(reader)
    counted.pictures("rgb", 0, [1, 2, 3])
    counted.pictures("rgb", 1, [1])
    assert counted.per_sample("rgb") == 2 and counted.per_sample("flow") == 0


def test_this_machine_has_free_memory():
    assert free_memory() is None or free_memory() > 1e6


def test_units():
    assert [gigabytes(n) for n in (1500, 2.5e6, 2.5e9, 4e12)] == [
        "1.5 kB",
        "2.5 MB",
        "2.5 GB",
        "4 TB",
    ]
    assert [duration(s) for s in (7.0, 119.0, 600.0, 7200.0, 10 * 86400.0)] == [
        "7 s", "119 s", "10 min", "2 h", "10 days",
    ]  # fmt: skip


def test_the_table_of_a_run_that_does_not_fit_says_so():
    from rich.console import Console

    forecast = Forecast(
        1, 1, 4, 16, 8, None, 10**9, True, 5, 2, 0, None, None, None, 100, "too much"
    )
    plan = {"makes": "checkpoint/x", "inputs": {}, "training_videos": 320, "device": "cuda",
            "recipe": {"split": "all", "precision": "bf16"}}  # fmt: skip
    console = Console(width=100)
    with console.capture() as shown:
        console.print(forecast_table(plan, forecast))
    out = shown.get()
    for words in (
        "more than 1 GB",
        "64 videos",
        "2 micro-batches of 8",
        "too much",
        "0.2 kB in all",
    ):
        assert words in out
