"""Training stops where a loss, a weight or a statistic is no finite number, and says where."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from methods import BUILDERS, batch
from stubs import FixedBatches
from watching import Watching

from vidssl.base.errors import VidsslError
from vidssl.clips.batch import ClipBatch
from vidssl.engine.loop import RuntimeConfig, fit
from vidssl.engine.resume import DIVERGED_FILE, RESUME_FILE
from vidssl.engine.train_spec import TrainSpec
from vidssl.methods import Method

CPU = torch.device("cpu")
SPEC = TrainSpec(epochs=1, batch_size=4, lr=1e-2, schedule="constant")
STEPS, BROKEN = 6, 4  # steps are counted from 0 here, and from 1 in what is said


def names(numbers) -> list[str]:
    return [f"v{number}.mp4#0" for number in numbers]


def broken_from(method: Method, step: int) -> list[ClipBatch]:
    """The step's batch; that of one step has clips that are no numbers."""
    (made,) = batch(step, method)
    factor = float("nan") if step == BROKEN else 1.0
    return [replace(made, clips={view: x * factor for view, x in made.clips.items()})]


def train(folder: Path, method: Method, *, save_every: float = 60.0, make=broken_from) -> None:
    runtime = RuntimeConfig(CPU, log_every=STEPS, save_every=save_every)
    batches = FixedBatches(STEPS, lambda step: make(method, step))
    fit(method, batches, SPEC, runtime, folder, seed=3, name_videos=names)


@pytest.mark.parametrize("method", ["infonce", "finetune"])
@pytest.mark.parametrize("save_every", [0.0, 60.0])
def test_step_rate_and_videos_are_told_and_the_state_is_kept(method, save_every, tmp_path):
    """Whether it is noticed when a state is to be saved, or when a row of the log is due."""
    built = BUILDERS[method]()
    with pytest.raises(VidsslError, match="training has diverged: the loss is no finite") as e:
        train(tmp_path, built, save_every=save_every)
    said = str(e.value)
    (wanted,) = batch(BROKEN, built)
    videos = names(wanted.index.tolist())
    told = f"first in step 5 (epoch 1) at a learning rate of 0.01, on the videos {videos[0]}, "
    assert told in said and videos[-1] in said and "\n" not in said
    assert str(tmp_path / DIVERGED_FILE) in said and "--set lr=" in said
    state = torch.load(tmp_path / DIVERGED_FILE, weights_only=True)
    assert (state["step"], state["epoch"], state["lr"]) == (5, 1, 0.01)
    assert state["videos"] == videos
    assert state["parameters"].keys() == dict(built.named_parameters()).keys()
    assert {"buffers", "optimizer"} <= state.keys()


def test_the_last_good_state_stays_and_is_gone_on_from(tmp_path):
    with pytest.raises(VidsslError, match="diverged"):
        train(tmp_path, BUILDERS["infonce"](), save_every=0.0)
    saved = torch.load(tmp_path / RESUME_FILE, weights_only=True)
    assert saved["step_in_epoch"] == BROKEN
    assert all(value.isfinite().all() for value in saved["parameters"].values())
    resumed = BUILDERS["infonce"]()
    train(tmp_path, resumed, make=lambda method, step: batch(step, method))
    whole = BUILDERS["infonce"]()
    (tmp_path / "whole").mkdir()
    train(tmp_path / "whole", whole, make=lambda method, step: batch(step, method))
    for name, value in whole.state_dict().items():
        assert value.equal(resumed.state_dict()[name]), name


@pytest.mark.parametrize("name", ["query.backbone", "running_var"])
def test_weights_and_statistics_are_looked_at_when_an_epoch_ends(name, tmp_path):
    """The last step may break them after its loss was computed."""
    method = BUILDERS["infonce"]()
    (broken, value) = next(
        (n, v)
        for n, v in method.state_dict(keep_vars=True).items()
        if name in n and v.is_floating_point()
    )
    after_step = method.after_step

    def break_it(step_state, outputs):
        after_step(step_state, outputs)
        if step_state.step == STEPS - 1:
            with torch.no_grad():
                value.fill_(torch.inf)

    method.after_step = break_it
    done = []
    runtime = RuntimeConfig(CPU, log_every=2)
    batches = FixedBatches(STEPS, lambda step: batch(step, method))
    with pytest.raises(VidsslError, match="no finite numbers, found in step 6") as e:
        fit(method, batches, SPEC, runtime, tmp_path, epoch_done=done.append)
    assert broken in str(e.value)
    assert not done and not (tmp_path / RESUME_FILE).exists()
    assert (tmp_path / DIVERGED_FILE).exists()


# ── the log is only a log


@pytest.mark.parametrize(
    "damage",
    [b"", b"\xff\xfe{}\n", b"[1]\n", b'{"step": "x"}\n', b"[" * 100_000, b'{"loss": null}\n'],
)
def test_a_damaged_log_does_not_stop_training(damage, tmp_path):
    def make(method, step):
        if step == 3:
            raise KeyboardInterrupt
        return batch(step, method)

    runtime = RuntimeConfig(CPU, log_every=1, save_every=0.0)
    method = BUILDERS["infonce"]()
    with pytest.raises(KeyboardInterrupt):
        fit(method, FixedBatches(STEPS, lambda s: make(method, s)), SPEC, runtime, tmp_path)
    path = tmp_path / "log.jsonl"
    first, _, *_ = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(first + damage)
    watching, method = Watching(), BUILDERS["infonce"]()
    batches = FixedBatches(STEPS, lambda step: batch(step, method))
    fit(method, batches, SPEC, runtime, tmp_path, progress=watching)
    assert f"{path} was damaged: 2 rows of figures are lost, and training goes on" in watching.said
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    assert [row["step"] for row in rows] == [1, 4, 5, 6]
