"""Batches made on a device of regions, or of JPEG, are those that a host makes, but for rounding.

All of it runs on a CPU device here; tests/cuda/test_cuda.py does the same on CUDA.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch
from interpreting import use_the_interpreter

from vidssl.augment import POLICIES, Box, box_slices, crop_resize, resize_on_device
from vidssl.base.errors import UsageError, VidsslError
from vidssl.clips.batch import ClipSpec
from vidssl.clips.cpu_batches import CpuBatchMaker
from vidssl.clips.frame_reader import TrainingVideos
from vidssl.clips.gpu import nvjpeg as jpeg_module
from vidssl.clips.gpu.crop_regions import cut_regions
from vidssl.clips.gpu.gpu_batches import RegionBatchMaker
from vidssl.clips.gpu.nvjpeg_batches import NvjpegBatchMaker, is_grey
from vidssl.clips.gpu.torch_transforms import TorchTransforms
from vidssl.clips.loader import ClipLoader, batch_maker_class
from vidssl.clips.sampler import ClipSampler
from vidssl.shards import ShardReader, ShardWriter, VideoRecord
from vidssl.training.trial_steps import CountedFrames
from vidssl.views import VIEWS, get_view

CPU = torch.device("cpu")
CODECS = {
    "rgb": {"codec": "jpeg90"},
    "flow": {"codec": "jpeg95"},
    "mask": {"codec": "webp"},
    "pose": {"codec": "png"},
}
SHAPES = {"rgb": (24, 34), "flow": (20, 28), "mask": (18, 26), "pose": (18, 26)}
VIDEOS = 5


@pytest.fixture(scope="module")
def reader(tmp_path_factory) -> ShardReader:
    """Shards of smooth noise in four views; the last video is shorter than a clip."""
    folder, draw = tmp_path_factory.mktemp("shards"), np.random.default_rng(0)
    with ShardWriter(folder, CODECS) as writer:
        for number in range(VIDEOS):
            length = 14 if number < VIDEOS - 1 else 5
            blobs = {}
            for name, (height, width) in SHAPES.items():
                view = get_view(name)
                coarse = draw.integers(0, 256, (length - view.lag, 6, 8, view.channels), np.uint8)
                frames = [
                    np.stack([cv2.resize(c, (width, height)) for c in np.moveaxis(f, -1, 0)], -1)
                    for f in coarse
                ]
                blobs[name] = [view.encode(f, CODECS[name]["codec"]) for f in frames]
            writer.add(VideoRecord(f"v{number}#0", f"v{number}", 25.0, length, 34, 24), blobs)
        writer.finish()
    return ShardReader(folder)


def sampler(
    reader: ShardReader, policy: str, views=("rgb", "flow"), blocks: int = 1, size: int = 16
) -> ClipSampler:
    rows = np.arange(VIDEOS)
    videos = TrainingVideos(reader, rows, rows + 100, rows % 3)
    clip = ClipSpec(frames=3 if blocks > 1 else 6, stride=1, size=size, blocks=blocks)
    presentations = {"flow": "coclr"} if policy == "coclr" and "flow" in views else {}
    return ClipSampler(videos, list(views), clip, POLICIES[policy], 2, 3, presentations)


def batch(maker, epoch: int = 0, rows: Sequence[int] = range(VIDEOS)):
    with ThreadPoolExecutor(2) as pool:
        return maker.finish(maker.begin(pool, epoch, np.array(rows), np.array(rows)))


def pixels(sampler: ClipSampler, epoch: int) -> dict[str, np.ndarray]:
    """Returns the clips that a host makes, [B, N, C, T, S, S], before colour."""
    samples = [sampler.sample(epoch, row, row).clips for row in range(VIDEOS)]
    return {view: np.stack([s[view] for s in samples]) for view in sampler.views}


class Bare(TorchTransforms):
    """Shows pixels as they are, so that levels may be compared."""

    def present(self, view, pixels_MCTSS, draws):
        return pixels_MCTSS.clone().unflatten(0, (-1, self.sampler.shape(view)[0]))


class BareRegions(RegionBatchMaker):
    @property
    def transforms(self):
        return Bare(self.sampler, self.device)


class BareEncoded(NvjpegBatchMaker):
    @property
    def transforms(self):
        return Bare(self.sampler, self.device)


def same_levels(got: torch.Tensor, want: np.ndarray, share: float = 0.15) -> None:
    """Holds that levels are the same but for rounding, in at most so large a share of them.

    OpenCV grows with weights of 11 bits, torch resizes as PIL with weights of 15 and rounds twice.
    """
    apart = np.abs(got.numpy().astype(int) - want.astype(int))
    assert int(apart.max()) <= 2
    assert float((apart > 0).mean()) <= share
    assert float((apart > 1).mean()) < 1e-3


@pytest.mark.parametrize("blocks", [1, 2])
@pytest.mark.parametrize("epoch", [0, 1])
@pytest.mark.parametrize("size", [12, 16, 40])
@pytest.mark.parametrize("policy", ["truthful", "coclr", "dpc-finetune"])
def test_regions_become_the_clips_of_the_host(reader, policy, size, epoch, blocks):
    """Shrunk and grown, mirrored and not, with clips longer than the video."""
    of = sampler(reader, policy, blocks=blocks, size=size)
    made, want = batch(BareRegions(of, CPU), epoch), pixels(of, epoch)
    assert set(made.clips) == set(want)
    for view in want:
        assert made.clips[view].shape == want[view].shape
        same_levels(made.clips[view], want[view])
    assert made.source.tolist() == [100, 101, 102, 103, 104]


def test_regions_of_any_view_become_the_clips_of_the_host(reader):
    """Poses and masks are cropped where most happens; joints change sides in mirrored clips."""
    for policy, views in (("cocon", tuple(CODECS)), ("truthful", tuple(CODECS))):
        of = sampler(reader, policy, views)
        for epoch in range(3):
            made, want = batch(BareRegions(of, CPU), epoch), pixels(of, epoch)
            for view in views:
                same_levels(made.clips[view], want[view])


@pytest.mark.parametrize("policy", ["truthful", "coclr"])
def test_network_input_is_that_of_the_host_but_for_rounding(reader, policy):
    of = sampler(reader, policy)
    host, device = batch(CpuBatchMaker(of, CPU)), batch(RegionBatchMaker(of, CPU))
    for view, want in host.clips.items():
        got = device.clips[view]
        assert got.shape == want.shape and got.dtype == want.dtype
        assert (got - want).abs().mean() < 1e-3
        assert (got - want).abs().max() < 0.1
    assert device.index.equal(host.index) and device.label.equal(host.label)


@pytest.mark.parametrize("policy", ["truthful", "coclr"])
def test_jpeg_decoded_late_becomes_the_clips_of_the_host(reader, policy):
    """torch's own libjpeg stands in for nvJPEG."""
    of = sampler(reader, policy)
    for epoch in (0, 1):
        made, want = batch(BareEncoded(of, CPU), epoch), pixels(of, epoch)
        for view in want:
            apart = np.abs(made.clips[view].numpy().astype(int) - want[view].astype(int))
            assert apart.mean() < 0.2 and np.quantile(apart, 0.99) <= 2, view


def test_what_a_gpu_cannot_decode_is_told_at_once(reader):
    with pytest.raises(UsageError, match="mask is stored as webp"):
        NvjpegBatchMaker(sampler(reader, "truthful", ("rgb", "mask")), CPU)
    with pytest.raises(UsageError, match="policy cocon looks for the crop"):
        NvjpegBatchMaker(sampler(reader, "cocon"), CPU)
    with pytest.raises(UsageError, match="needs a CUDA device"):
        batch_maker_class(CPU, "gpu")
    with pytest.raises(UsageError, match="not decoded by vcr"):
        batch_maker_class(CPU, "vcr")


def test_a_blob_that_is_no_jpeg_is_one_sentence():
    blob = torch.frombuffer(bytearray(b"no picture"), dtype=torch.uint8)
    with pytest.raises(VidsslError, match="a frame could not be decoded on cpu"):
        jpeg_module.decode_jpegs([blob], False, CPU)


def test_who_makes_batches_goes_by_the_device():
    cuda = torch.device("cuda")
    assert batch_maker_class(CPU) is CpuBatchMaker
    assert batch_maker_class(cuda) is RegionBatchMaker
    assert batch_maker_class(cuda, "gpu") is NvjpegBatchMaker


def test_the_loader_gives_what_its_maker_makes(reader):
    rows = np.arange(VIDEOS)
    made = ClipLoader(
        TrainingVideos(reader, rows, rows, rows),
        ["rgb"],
        ClipSpec(frames=4, size=16),
        POLICIES["truthful"],
        4,
    )
    made.maker = BareRegions(made.sampler, CPU)
    (of_loader,) = next(made.steps(0, 1))
    assert of_loader.clips["rgb"].shape == (4, 2, 3, 4, 16, 16)
    assert of_loader.clips["rgb"].dtype == torch.uint8


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs Triton's interpreter")
@pytest.mark.parametrize(
    ("maker", "policy"),
    [
        (RegionBatchMaker, "truthful"),
        pytest.param(RegionBatchMaker, "coclr", marks=pytest.mark.slow),
        pytest.param(NvjpegBatchMaker, "truthful", marks=pytest.mark.slow),
        pytest.param(NvjpegBatchMaker, "coclr", marks=pytest.mark.slow),
    ],
)
def test_kernels_take_what_threads_cut_and_devices_decode(reader, maker, policy):
    """As they lie in memory; tests/kernels/test_clip_transforms.py has what kernels make of
    them.
    """
    pytest.importorskip("triton", reason="needs Triton")
    use_the_interpreter()
    from vidssl.clips.gpu.triton_transforms import TritonTransforms

    small = ClipSpec(frames=2, size=6)
    of = replace(sampler(reader, policy), last_only=("flow",), clip=small)
    plain, quick = maker(of, CPU), maker(of, CPU)
    quick.transforms = TritonTransforms(of, CPU)
    rows = (0,)  # not all: the interpreter is slow
    want, got = batch(plain, rows=rows), batch(quick, rows=rows)
    for view in ("rgb", "flow"):
        assert got.clips[view].shape == want.clips[view].shape
        apart = (got.clips[view] - want.clips[view]).abs()
        # A level that is rounded the other way is 0.017 of film; contrast makes it 1.4 of that.
        assert float(apart.max()) < 0.05 and float(apart.mean()) < 1e-3


# ── views of which the last clip is all that is wanted ───────────────────────────────────────


@pytest.mark.parametrize("blocks", [1, 2])
@pytest.mark.parametrize("policy", ["truthful", "coclr"])
@pytest.mark.parametrize("maker", [CpuBatchMaker, RegionBatchMaker, NvjpegBatchMaker])
def test_the_last_clip_alone_is_that_of_both(reader, maker, policy, blocks):
    """And the other views' clips stay what they were."""
    both = sampler(reader, policy, blocks=blocks)
    counting = CountedFrames(reader)
    one = replace(both, last_only=("flow",), videos=replace(both.videos, reader=counting))
    want, got = batch(maker(both, CPU), epoch=1), batch(maker(one, CPU), epoch=1)
    assert got.clips["rgb"].equal(want.clips["rgb"])
    assert got.clips["flow"].equal(want.clips["flow"][:, blocks:])
    assert got.clips["flow"].shape[1] == blocks
    if maker is not NvjpegBatchMaker:
        assert counting.frames["flow"] == 4 * 6 + 4 < counting.frames["rgb"]


# ── the parts ────────────────────────────────────────────────────────────────────────────────


def test_regions_hold_each_frame_of_a_clip_once(reader):
    of = sampler(reader, "truthful")
    short, of_views = of.draw(0, 4, 4)
    repeated = short.views["flow"].frame_index.repeated
    assert repeated.tolist() == [2, 2], "the flow of 5 frames has 4, a clip 6"
    for region in cut_regions(short.views["flow"], of_views["flow"]):
        assert len(region.pixels) == 4 and region.repeated == 2
    frames = reader.frames("rgb", 0, np.arange(14))
    drawn, of_views = of.draw(0, 0, 0)
    long = drawn.views["rgb"]
    for clip, region in enumerate(cut_regions(long, of_views["rgb"])):
        (box,) = long.draws[clip].boxes
        for frame, where in zip(region.pixels.numpy(), long.frame_index.where[clip], strict=True):
            whole = frames[long.frame_index.needed[where]]
            np.testing.assert_array_equal(frame, whole[box_slices(box, *whole.shape[:2])])


@pytest.mark.parametrize("resize", ["area", "bilinear", "bicubic", "nearest"])
@pytest.mark.parametrize("shape", [(40, 60), (41, 33), (32, 64), (20, 50), (32, 32), (9, 11)])
@pytest.mark.parametrize("channels", [2, 3])
def test_resizing_on_a_device_is_that_of_the_host(resize, shape, channels):
    draw = np.random.default_rng(1)
    frames = draw.integers(0, 256, (5, *shape, channels), np.uint8)
    want = crop_resize(frames, Box(0, 0, 1, 1), 32, resize)
    pixels_CTHW = torch.from_numpy(frames).permute(3, 0, 1, 2)
    got = resize_on_device(pixels_CTHW, 32, resize)
    assert got.shape == (channels, 5, 32, 32) and got.dtype == torch.uint8
    grows = min(shape) < 32
    share = {"area": 0.15 if grows else 1e-4, "nearest": 0, "bicubic": 0.02}.get(resize, 0.1)
    same_levels(got.permute(1, 2, 3, 0), want, share)


@pytest.mark.parametrize("name", VIEWS)
def test_a_tensor_is_mirrored_as_an_array_is(name):
    view = get_view(name)
    frames = np.random.default_rng(2).integers(0, 256, (3, 16, 22, view.channels), np.uint8)
    x = torch.from_numpy(frames).permute(3, 0, 1, 2)
    kept = x.clone()
    want = torch.from_numpy(view.flip(frames)).permute(3, 0, 1, 2)
    assert view.flip_tensor(x).equal(want)
    assert super(type(view), view).flip_tensor(x).equal(want), "by way of the host"
    assert x.equal(kept), "what was given is left as it was"


@pytest.mark.parametrize("name", VIEWS)
def test_a_decoded_tensor_is_taken_apart_as_a_picture_is(name):
    view = get_view(name)
    frames = np.random.default_rng(3).integers(0, 256, (3, 16, 22, view.channels), np.uint8)
    pictures = np.stack([view.to_image(frame) for frame in frames])
    grey = pictures.ndim == 3
    assert is_grey(name) == grey
    planes = torch.from_numpy(pictures[:, None] if grey else np.moveaxis(pictures, -1, 1))
    want = torch.from_numpy(frames)
    assert view.from_planes(planes).equal(want)
    from vidssl.views.view import View

    assert View.from_planes(view, planes).equal(want), "by way of the host"


@pytest.mark.parametrize("name", VIEWS)
def test_frames_for_copying_are_the_frames(reader, name):
    frames = reader.frames(name, 0, np.arange(4))
    for got, want in zip(
        reader.pictures(name, 0, np.arange(4), for_copying=True), frames, strict=True
    ):
        np.testing.assert_array_equal(got, want)


def test_flow_as_published_code_stored_it_may_be_copied_too():
    view = get_view("flow")
    frame = np.full((16, 16, 2), 140, np.uint8)
    blob = view.encode(frame, "coclr")
    np.testing.assert_array_equal(
        view.decode_for_copying(blob, "coclr"), view.decode(blob, "coclr")
    )


def test_a_picture_of_another_height_is_no_flow():
    blob = get_view("mask").encode(np.zeros((17, 16, 1), np.uint8), "png")
    with pytest.raises(ValueError, match="not 2 channels of flow"):
        get_view("flow").decode_for_copying(blob, "png")
