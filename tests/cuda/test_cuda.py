"""What only a GPU can show (run with -m cuda), and that its script works at all, on a CPU.

python -m pytest -m cuda tests/cuda/test_cuda.py
"""

from __future__ import annotations

import copy
import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

import cv2
import numpy as np
import pytest
import torch
from methods import BUILDERS, batch
from small_networks import noise_frames, random_weights
from stubs import FixedBatches

from vidssl.augment import POLICIES, ColourDraw, apply_colour
from vidssl.backbones import Encoder, EncoderSpec
from vidssl.base.errors import Interrupted
from vidssl.clips.batch import ClipSpec
from vidssl.clips.frame_reader import TrainingVideos
from vidssl.clips.gpu.triton_transforms import TritonTransforms
from vidssl.clips.loader import ClipLoader
from vidssl.engine.loop import RuntimeConfig, fit, train_step
from vidssl.engine.meter import Meter
from vidssl.engine.optimizers import make_optimizer
from vidssl.engine.train_spec import TrainSpec
from vidssl.evaluation.features import WindowProtocol, embed_videos
from vidssl.methods import StepState
from vidssl.optical_flow.algorithms import RAFT_PRESETS
from vidssl.optical_flow.batched import FramePair
from vidssl.optical_flow.raft import Raft, RaftFlow, with_weights
from vidssl.views import get_view
from vidssl.views.keypoint_rcnn import KeypointConfig, KeypointDeriver, heatmaps
from vidssl.views.person_segmentation import MaskConfig, MaskDeriver
from vidssl.views.rcnn import best_detections, detect, run_head
from vidssl.views.torchvision_networks import imagenet_input

SCRIPT = Path(__file__).with_name("run_all.py")
sys.path.append(str(SCRIPT.parent))
import moved_bytes  # noqa: E402
import precision  # noqa: E402
import training_step  # noqa: E402
from budget import Budget  # noqa: E402

SMALL = ["--backbone", "tiny", "--frames", "8", "--size", "64", "--videos", "24", "--epochs", "1"]
SMALL += ["--derive", "2", "--detector-size", "48", "--seconds", "0.1", "--no-compile"]
STEPS = [
    "pack",
    "load only",
    "device operations",
    "pretrain rgb",
    "pretrain flow",
    "cotrain rgb",
    "probe",
    "retrieve --evaluate",
    "finetune",
    "derive pose",
    "derive mask",
    "flow raft large",
    "flow raft small",
    "flow tvl1",
]
without_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")


def exact():
    """cuDNN without TF32, whose products have ten bits."""
    return torch.backends.cudnn.flags(enabled=True, allow_tf32=False)


def run_script(tmp_path: Path, *words: str) -> dict:
    """Runs the script where importing PyAV fails, in all of its processes."""
    hidden = tmp_path / "hidden"
    hidden.mkdir()
    (hidden / "av.py").write_text("raise ImportError('this machine has no PyAV')\n")
    path = os.pathsep.join([str(hidden), os.environ.get("PYTHONPATH", "")]).rstrip(os.pathsep)
    out = tmp_path / "out"
    done = subprocess.run(
        [sys.executable, SCRIPT, "--out", out, *words],
        capture_output=True, text=True, env=os.environ | {"PYTHONPATH": path},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert (out / "results.md").read_text() in done.stdout
    return json.loads((out / "results.json").read_text())


@pytest.mark.slow
def test_the_script_runs_without_a_gpu_and_without_av(tmp_path):
    # Without a limit: how much is done must not depend on how busy the machine is.
    results = run_script(tmp_path, "--device", "cpu", *SMALL, "--budget", "inf")
    assert [one["name"] for one in results["measured"]] == STEPS
    for one in results["measured"]:
        if one["name"].startswith(("pretrain", "cotrain")):
            assert one["samples_per_second"] > 0 and 0 <= one["data_wait"] <= 1
    ways = {(one["method"], one["way"]): one for one in results["training_step"]["steps"]}
    assert len(ways) == 2 * (len(training_step.WAYS) + 1)
    for (_, way), one in ways.items():
        measured = "compiled" not in way and "published" not in way
        assert (one["samples_per_second"] is not None) == measured and bool(one["note"]) != measured
    assert results["training_step"]["against_published"] == {"infonce": None, "coclr": None}
    for one in results["training_step"]["bounds"]:
        assert one["gigabytes"]["convolutions"] > 0 and one["least"] > 0


@pytest.mark.slow
def test_without_time_the_script_says_what_was_cut(tmp_path):
    results = run_script(tmp_path, "--device", "cpu", *SMALL, "--budget", "1")
    assert results["measured"] == [] or results["measured"][0]["name"] == "pack"
    assert results["precision"] is None and "probe" in results["training_step"]["cut"]


def test_loss_curves_are_compared_part_by_part():
    found = {"float32": [[4.0, 2.0], [5.0, 2.5]], "bf16": [[4.1, 2.0], [5.1, 2.4]]}
    apart = precision.differences(found)
    assert apart["precisions"] == pytest.approx([0.1, 0.05])
    assert apart["seeds"] == pytest.approx([1.0, 0.45])
    assert precision.parts([1.0, 3.0, 5.0, 7.0] * 5) == [2.0, 6.0] * 5
    assert precision.markdown(found).splitlines()[2] == (
        "| 1 | 4.000 | 5.000 | 4.100 | 5.100 | 0.100 | 1.000 |"
    )


def test_time_that_is_up_stops_a_piece_of_work_and_names_it():
    budget = Budget(60.0)
    with budget.limited("too long", 0.05):
        while True:
            pass
    assert budget.cut == ["too long (stopped)"]
    assert budget.allows("short", 1.0) and not budget.allows("long", 61.0)
    assert budget.cut[1:] == ["long"]


def test_bytes_that_an_operation_moves():
    x, y = torch.ones(10), torch.ones(10)
    assert moved_bytes.moved_by(lambda: x.view(2, 5)).total() == 0
    assert moved_bytes.moved_by(lambda: x.add(y)) == {"other": 3 * 40}
    assert moved_bytes.moved_by(lambda: torch.relu(x)) == {"ReLU": 2 * 40}


def test_batchnorm_reads_a_batch_twice_in_either_direction():
    x, norm = torch.ones(2, 4, 3, 5, 5, requires_grad=True), torch.nn.BatchNorm3d(4, affine=False)
    n, channels = 4 * x.numel(), 4 * 4
    y = []
    forward = moved_bytes.moved_by(lambda: y.append(norm(x)))
    assert forward["BatchNorm"] == 3 * n + 4 * channels  # running statistics, and the batch's
    backward = moved_bytes.moved_by(lambda: y[0].backward(x.detach()))
    assert backward["BatchNorm"] == 5 * n + 4 * channels
    norm.eval()
    assert moved_bytes.moved_by(lambda: norm(x))["BatchNorm"] == 2 * n + 2 * channels


@pytest.mark.cuda
@without_cuda
def test_the_script_runs_with_a_gpu(tmp_path):
    results = run_script(tmp_path, "--device", "cuda", *SMALL, "--epochs", "3")
    names = [one["name"] for one in results["measured"]]
    assert names == STEPS
    assert all(one["peak_gib"] is not None for one in results["measured"])
    assert set(results["precision"]) == {"float32", "bf16"}


@pytest.mark.cuda
@without_cuda
@pytest.mark.parametrize(
    ("backbone", "shape"), [("tiny", (2, 3, 8, 64, 64)), ("s3d", (2, 3, 16, 64, 64))]
)
def test_a_network_gives_the_same_on_both_devices(backbone, shape):
    torch.manual_seed(0)
    encoder = Encoder(EncoderSpec("rgb", backbone, 3, shape[2], 1, shape[3])).eval()
    x = torch.randn(shape)
    with torch.inference_mode(), exact():
        here = encoder.project(x)
        there = encoder.cuda().project(x.cuda()).cpu()
        encoder.half_precision = True
        half = encoder.project(x.cuda()).cpu()
    torch.testing.assert_close(there, here, atol=1e-4, rtol=1e-3)
    assert (half * here).sum(1).min() > 0.99, "bf16 turned an embedding round"


@pytest.mark.cuda
@without_cuda
def test_colour_is_the_same_on_both_devices():
    draws = [
        ColourDraw(order=(3, 1, 0, 2), brightness=1.3, contrast=0.7, saturation=1.2, hue=0.08),
        ColourDraw(gray_channel=1),
        ColourDraw(sigma=1.5),
        ColourDraw(channels=(2, 0, 1)),
    ]
    clips = 255 * torch.rand(4, 3, 4, 32, 32, generator=torch.Generator().manual_seed(0))
    here = apply_colour(clips.clone(), draws)
    there = apply_colour(clips.cuda(), draws).cpu()
    # cuDNN may round a blur's factors to TF32.
    torch.testing.assert_close(there, here, atol=0.5, rtol=1e-3)


class NoisyVideos:
    """Frames for training."""

    views: ClassVar = {"rgb": {"codec": "jpeg90"}, "flow": {"codec": "jpeg95"}}

    def frame_count(self, view):
        return np.full(12, 40)

    def read(self, view, video, indices):
        coarse = np.random.default_rng([video]).integers(0, 256, (40, 6, 8, 3), np.uint8)
        frames = [cv2.resize(coarse[i], (64, 48)) for i in indices]
        channels, codec = get_view(view).channels, self.views[view]["codec"]
        return [get_view(view).encode(frame[..., :channels], codec) for frame in frames]

    def pictures(self, view, video, indices, for_copying=False):
        return [get_view(view).decode(blob) for blob in self.read(view, video, indices)]


@pytest.mark.cuda
@without_cuda
@pytest.mark.parametrize("decode", ["host", "gpu"])
@pytest.mark.parametrize("policy", ["truthful", "coclr"])
def test_batches_are_the_same_on_both_devices(policy, decode):
    """Over epochs and with the loop at work meanwhile: no batch is overwritten while it is used."""
    rows, batches = np.arange(12), {}
    for device in ("cpu", "cuda"):
        loader = ClipLoader(
            TrainingVideos(NoisyVideos(), rows, rows, rows),
            ["rgb", "flow"],
            ClipSpec(frames=8, size=32),
            POLICIES[policy],
            6,
            device=torch.device(device),
            decode="host" if device == "cpu" else decode,
        )
        kept = []
        for (made,) in loader.steps(0, 9):
            busy = torch.rand(2048, 2048, device=device) if device == "cuda" else None
            for _ in range(20 if busy is not None else 0):
                busy = busy @ busy / 2048
            kept.append({view: x.clone() for view, x in made.clips.items()})
            assert made.index.device.type == device
        batches[device] = kept
    for here, there in zip(batches["cpu"], batches["cuda"], strict=True):
        for view in here:
            # A level is 0.017 of film and 0.008 of flow; contrast makes it up to 1.4 of that.
            apart = (there[view].cpu() - here[view]).abs()
            assert apart.mean() < (2e-3 if decode == "host" else 4e-2)
            assert apart.quantile(0.99) < (0.03 if decode == "host" else 0.2)


@pytest.mark.cuda
@without_cuda
@pytest.mark.parametrize("decode", ["host", "gpu"])
@pytest.mark.parametrize("policy", ["truthful", "coclr", "dpc"])
def test_kernels_make_batches_and_the_host_waits_for_none(policy, decode, recwarn):
    rows = np.arange(12)
    maker = ClipLoader(
        TrainingVideos(NoisyVideos(), rows, rows, rows),
        ["rgb", "flow"],
        ClipSpec(frames=8, size=32),
        POLICIES[policy],
        12,
        device=torch.device("cuda"),
        decode=decode,
    ).maker
    with ThreadPoolExecutor(2) as pool:
        pending = maker.begin(pool, 0, rows, rows)
        first = maker.finish(pending)  # kernels are compiled, and tried
        assert type(maker.transforms) is TritonTransforms, [str(w.message) for w in recwarn]
        # nvJPEG waits by itself.
        torch.cuda.set_sync_debug_mode("error" if decode == "host" else "default")
        try:
            again = maker.finish(pending)
        finally:
            torch.cuda.set_sync_debug_mode("default")
    for view in ("rgb", "flow"):
        assert again.clips[view].equal(first.clips[view]), "the same bits each time"


@pytest.mark.cuda
@without_cuda
@pytest.mark.parametrize("method", BUILDERS)
def test_a_training_step_is_the_same_on_both_devices(method, tmp_path):
    """Also holds that no method leaves a tensor on the host."""
    losses = []
    for device in ("cpu", "cuda"):
        built = BUILDERS[method]()
        batches = OnDevice(6, lambda step, of=built: batch(step, of))
        batches.device = device
        spec = TrainSpec(epochs=1, batch_size=4, optimizer="sgd", lr=1e-3, weight_decay=0.0)
        folder = tmp_path / device
        folder.mkdir()
        with exact():
            fit(built, batches, spec, RuntimeConfig(torch.device(device), log_every=1), folder)
        rows = [json.loads(row) for row in (folder / "log.jsonl").read_text().splitlines()]
        losses.append([np.nan if row["loss"] is None else row["loss"] for row in rows])
    np.testing.assert_allclose(losses[1], losses[0], rtol=2e-2, equal_nan=True)


@pytest.mark.cuda
@without_cuda
@pytest.mark.parametrize("method", BUILDERS)
def test_the_host_never_waits_for_the_device_within_a_step(method):
    built = BUILDERS[method]().cuda().train()
    optimizer = make_optimizer(TrainSpec(batch_size=4), built.parameter_groups())
    meter = Meter(torch.device("cuda"))
    batches = OnDevice(6, lambda step: batch(step, built))
    for step, micro_batches in enumerate(batches.steps(0, 6)):
        # Before the last step queues fill, and a method may ask whether they are full.
        torch.cuda.set_sync_debug_mode("error" if step == 5 else "default")
        try:
            step_state = StepState(0, 0, step, 6)
            with meter.waiting():
                pass
            meter.add(train_step(built, built, optimizer, micro_batches, step_state), 4)
        finally:
            torch.cuda.set_sync_debug_mode("default")
    assert 0 <= meter.fetch()["data_wait"] < 1


@pytest.mark.cuda
@without_cuda
@pytest.mark.parametrize("method", ["infonce", "coclr", "cmc"])
def test_a_compiled_step_gives_the_same(method, tmp_path):
    """In float32, with two micro-batches; over steps in which each one's memory is used again."""
    ends, losses = [], []
    for compiled in (False, True):
        torch.compiler.reset()
        built = BUILDERS[method]()
        batches = OnDevice(6, lambda step, of=built: batch(step, of) + batch(step + 6, of))
        spec = TrainSpec(2, 8, accumulate=2, optimizer="sgd", lr=1e-3, weight_decay=0.0)
        folder = tmp_path / str(compiled)
        folder.mkdir()
        with exact():
            runtime = RuntimeConfig(torch.device("cuda"), compile=compiled, log_every=1)
            fit(built, batches, spec, runtime, folder, seed=3)
        rows = [json.loads(row) for row in (folder / "log.jsonl").read_text().splitlines()]
        losses.append([np.nan if row["loss"] is None else row["loss"] for row in rows])
        ends.append(torch.cat([p.detach().flatten() for p in built.parameters()]).cpu())
    np.testing.assert_allclose(losses[1], losses[0], rtol=2e-2, equal_nan=True)
    assert torch.nn.functional.cosine_similarity(ends[0], ends[1], dim=0) > 0.9999


class OnDevice(FixedBatches):
    """Takes batches to the device, and asks for a stop when told."""

    stop_at, device = -1, "cuda"

    def steps(self, begin, end):
        import signal

        from vidssl.clips.batch import ClipBatch

        for step, batches in enumerate(super().steps(begin, end), begin):
            if step == self.stop_at:
                os.kill(os.getpid(), signal.SIGTERM)
            yield [
                ClipBatch(
                    {view: x.to(self.device) for view, x in b.clips.items()},
                    *(t.to(self.device) for t in (b.source, b.label, b.index)),
                )
                for b in batches
            ]


@pytest.mark.cuda
@without_cuda
@pytest.mark.parametrize("method", BUILDERS)
def test_an_interrupted_training_goes_on_from_where_it_stopped(method, tmp_path):
    spec = TrainSpec(epochs=2, batch_size=4, lr=1e-3)
    ends = []
    for stop_at in (-1, 5):
        folder = tmp_path / str(stop_at)
        folder.mkdir()
        start = BUILDERS[method]()
        batches = OnDevice(6, lambda step, of=start: batch(step, of))
        batches.stop_at = stop_at
        runtime = RuntimeConfig(torch.device("cuda"), half_precision=True)
        if stop_at > 0:
            with pytest.raises(Interrupted):
                fit(copy.deepcopy(start), batches, spec, runtime, folder, seed=3)
        fit(start, batches, spec, runtime, folder, seed=3)
        ends.append(torch.cat([p.detach().flatten() for p in start.parameters()]).cpu())
    # Not to the bit: some of cuDNN's backward kernels add in an order of their own.
    assert torch.nn.functional.cosine_similarity(ends[0], ends[1], dim=0) > 0.999


class Noise:
    """Frames for feature extraction."""

    def frame_count(self, view):
        return np.array([20, 33])

    def frames(self, view, video, frames):
        draw = np.random.default_rng(video)
        return draw.integers(0, 256, (40, 48, 64, 3), np.uint8)[np.asarray(frames)]


@pytest.mark.cuda
@without_cuda
@pytest.mark.parametrize("backbone", ["tiny", "s3d"])
def test_features_are_the_same_bytes_each_time_and_close_to_the_cpus(backbone):
    torch.manual_seed(0)
    encoder = Encoder(EncoderSpec("rgb", backbone, 3, 16, 1, 64)).eval()
    here = embed_videos(encoder, Noise(), [0, 1], ["a", "b"], WindowProtocol(), "cpu")
    once, again = (
        embed_videos(encoder, Noise(), [0, 1], ["a", "b"], WindowProtocol(), "cuda")
        for _ in range(2)
    )
    np.testing.assert_array_equal(once.windows, again.windows)
    scale = np.abs(here.windows).max()
    assert np.abs(once.windows - here.windows).max() < 1e-3 * scale


# ── views by networks


@pytest.fixture(scope="module")
def pose_weights(tmp_path_factory):
    return random_weights(tmp_path_factory.mktemp("w"), "keypointrcnn_resnet50_fpn")


@pytest.mark.cuda
@without_cuda
def test_keypoint_heads_say_the_same_on_both_devices(pose_weights):
    """Of the same boxes: which boxes there are is decided by digits that differ."""
    frames = noise_frames(3, 96, 128).numpy()
    config = KeypointConfig(weights=str(pose_weights), min_score=0.1, people=2)
    found = best_detections(
        detect(KeypointDeriver(config).network, imagenet_input(frames, "cpu")), 2
    )
    logits, maps = {}, {}
    for device in ("cpu", "cuda"):
        network = KeypointDeriver(config, device).network
        with torch.inference_mode():
            seen = detect(network, imagenet_input(frames, device))
            assert all(boxes.dtype == torch.float32 for boxes in seen.boxes)
            boxes = [one.to(device) for one in found.boxes]
            heads = network.roi_heads
            said = run_head(
                heads.keypoint_roi_pool,
                heads.keypoint_head,
                heads.keypoint_predictor,
                replace(seen, boxes=boxes),
            )
            first = heatmaps(said[:2], boxes[0], found.scores[0].to(device), (96, 128))
        logits[device], maps[device] = said.cpu(), first.cpu()
    assert logits["cuda"].dtype == torch.float32
    likeness = torch.nn.functional.cosine_similarity(
        logits["cuda"].flatten(1), logits["cpu"].flatten(1)
    )
    assert likeness.min() > 0.995
    peaks = [maps[device].flatten(1).amax(1) for device in ("cuda", "cpu")]
    torch.testing.assert_close(*peaks, rtol=0.15, atol=1e-3)


@pytest.mark.cuda
@without_cuda
def test_poses_are_derived_in_batches_under_amp(pose_weights):
    config = KeypointConfig(weights=str(pose_weights), min_score=0.1, people=2, detector_size=96)
    deriver = KeypointDeriver(config, "cuda")
    frames = noise_frames(70, 48, 64).numpy()  # more than two batches
    derived = list(deriver.derive(iter(frames), 2, 32))
    assert len(derived) == 35
    assert all(d.shape == (32, 43, 17) and d.dtype == np.uint8 for d in derived)
    assert sum(d.any() for d in derived) > 30
    assert KeypointDeriver.describe(config, "cuda")["precision"] == "float16"
    again = list(deriver.derive(iter(frames), 2, 32))
    assert np.mean([np.array_equal(a, b) for a, b in zip(derived, again, strict=True)]) > 0.9


@pytest.mark.cuda
@without_cuda
def test_hand_made_heatmaps_are_the_same_on_both_devices():
    draw = torch.Generator().manual_seed(0)
    logits = 3 * torch.randn(2, 17, 56, 56, generator=draw)
    boxes = torch.tensor([[10.5, 3.0, 60.2, 80.0], [40.0, 20.0, 120.0, 95.0]])
    scores = torch.tensor([0.9, 0.8])
    here = heatmaps(logits, boxes, scores, (96, 128))
    there = heatmaps(logits.cuda(), boxes.cuda(), scores.cuda(), (96, 128))
    torch.testing.assert_close(there.cpu(), here, atol=1e-5, rtol=1e-3)


@pytest.mark.cuda
@without_cuda
@pytest.mark.parametrize(
    ("model", "options"),
    [("deeplabv3_resnet50", {"aux_loss": True}), ("lraspp_mobilenet_v3_large", {})],
)
def test_masks_of_pixels_are_the_same_on_both_devices(tmp_path, model, options):
    weights = random_weights(tmp_path, model, num_classes=21, **options)
    config = MaskConfig(model=model, weights=str(weights), detector_size=96)
    frames = noise_frames(5).numpy()
    here, there = (
        np.stack(list(MaskDeriver(config, device).derive(iter(frames), 1, 48))).astype(int)
        for device in ("cpu", "cuda")
    )
    assert here.shape == there.shape == (5, 48, 64, 1)
    assert np.abs(here - there).mean() < 2


@pytest.mark.cuda
@without_cuda
def test_masks_of_boxes_are_derived_under_amp(tmp_path):
    weights = random_weights(tmp_path, "maskrcnn_resnet50_fpn_v2")
    config = MaskConfig(weights=str(weights), min_score=0.02, people=3, detector_size=96)
    derived = list(MaskDeriver(config, "cuda").derive(iter(noise_frames(5).numpy()), 1, 48))
    assert [d.shape for d in derived] == [(48, 64, 1)] * 5
    assert any(d.any() for d in derived)


@pytest.mark.cuda
@without_cuda
@pytest.mark.parametrize("preset", ["large", "small"])
def test_raft_is_the_same_on_both_devices_and_in_batches(tmp_path, preset):
    weights = str(random_weights(tmp_path, RAFT_PRESETS[preset]["model"]))
    params = with_weights(RAFT_PRESETS[preset] | {"updates": 4}, weights)
    frames = noise_frames(40, 136, 160).numpy()
    pairs = [FramePair(n, frames[n], frames[n + 1]) for n in range(39)]
    with exact():
        found = dict(RaftFlow(Raft(params, weights, "cuda")).flows(pairs))
    here = Raft(params, weights)
    for n in (0, 38):
        expected = here.flow(frames[n : n + 1], frames[n + 1 : n + 2])[0]
        error = np.linalg.norm(found[n] - expected, axis=-1).mean()
        assert error < 0.02 * np.linalg.norm(expected, axis=-1).mean() + 1e-3
