"""The loader gives what a slow, obvious path gives, whatever threads, ranks and steps share it."""

import threading
import time

import cv2
import numpy as np
import pytest
import torch
from patience import PATIENCE

from vidssl.augment import (
    POLICIES,
    AugmentSpec,
    adjust_brightness,
    adjust_contrast,
    adjust_hue,
    adjust_saturation,
    gaussian_blur,
)
from vidssl.base.errors import VidsslError
from vidssl.clips.batch import ClipSpec
from vidssl.clips.frame_reader import TrainingVideos
from vidssl.clips.loader import ClipLoader
from vidssl.clips.network_input import network_input
from vidssl.clips.prefetch import ahead
from vidssl.shards import DamagedShard, ShardReader, ShardWriter, VideoRecord
from vidssl.views import get_view

VIDEOS, CLIP = 7, ClipSpec(frames=4, stride=2, size=16)
CODECS = {"rgb": {"codec": "jpeg90"}, "flow": {"codec": "jpeg95"}}
VIVID = AugmentSpec(channel_shuffle=0.5, gray=0.4, jitter=0.9)
JITTER = {
    0: ("brightness", 1.0, adjust_brightness),
    1: ("contrast", 1.0, adjust_contrast),
    2: ("saturation", 1.0, adjust_saturation),
    3: ("hue", 0.0, adjust_hue),
}


@pytest.fixture(scope="module")
def reader(tmp_path_factory) -> ShardReader:
    """Shards of noise with structure; the last video is shorter than a clip."""
    folder, draw = tmp_path_factory.mktemp("shards"), np.random.default_rng(0)
    with ShardWriter(folder, CODECS) as writer:
        for number in range(VIDEOS):
            length = 12 + number if number < VIDEOS - 1 else 5
            blobs = {}
            for view, shape in (("rgb", (24, 34, 3)), ("flow", (20, 28, 2))):
                coarse = draw.integers(0, 256, (length, 6, 8, shape[2]), np.uint8)
                frames = [cv2.resize(f, shape[1::-1]) for f in coarse]
                frames = frames[: length - get_view(view).lag]
                blobs[view] = [get_view(view).encode(f, CODECS[view]["codec"]) for f in frames]
            name = f"v{number}"
            writer.add(VideoRecord(f"{name}#0", name, 25.0, length, 34, 24), blobs)
        writer.finish()
    return ShardReader(folder)


def videos(reader: ShardReader) -> TrainingVideos:
    rows = np.arange(VIDEOS)
    return TrainingVideos(reader, rows, rows + 100, rows % 3)


def loader(reader: ShardReader, augment: AugmentSpec = VIVID, **options) -> ClipLoader:
    options = {"views": ["rgb", "flow"], "batch_size": 6, "seed": 3, **options}
    return ClipLoader(
        videos(reader), options.pop("views"), CLIP, augment, options.pop("batch_size"), **options
    )


# ── the slow, obvious path ───────────────────────────────────────────────────────────────────


def slow_clip(reader, view, video, times, draw):
    """Decodes, cuts, resizes, mirrors and colours frame by frame; gives float [C, T, H, W]."""
    frames = []
    for t in times:
        (blob,) = reader.read(view, video, [t])
        frame = get_view(view).decode(blob, CODECS[view]["codec"])
        height, width = frame.shape[:2]
        (box,) = draw.boxes
        left, top = round(box.left * width), round(box.top * height)
        right, bottom = left + round(box.width * width), top + round(box.height * height)
        part = frame[top:bottom, left:right]
        shrinks = min(part.shape[:2]) >= CLIP.size
        method = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
        small = cv2.resize(part, (CLIP.size, CLIP.size), interpolation=method)
        if draw.mirrored:
            small = small[:, ::-1].copy()
            if view == "flow":
                small[..., 0] = np.minimum(256 - small[..., 0].astype(int), 255)
        frames.append(slow_colour(small, draw.colour[0]) if view == "rgb" else small)
    x_THWC = np.stack(frames).astype(np.float32)
    if view == "rgb":
        mean, std = np.float32([0.485, 0.456, 0.406]), np.float32([0.229, 0.224, 0.225])
        return ((x_THWC / 255 - mean) / std).transpose(3, 0, 1, 2)
    return ((x_THWC - 128) / 127).transpose(3, 0, 1, 2)


def slow_colour(frame_HWC, draw):
    x = torch.from_numpy(frame_HWC).float().permute(2, 0, 1)[None, :, None]
    x = x[:, list(draw.channels)]
    for number in draw.order:
        name, neutral, operation = JITTER[number]
        if getattr(draw, name) != neutral:
            x = operation(x, torch.tensor([getattr(draw, name)]))
    if draw.gray_channel >= 0:
        x = x[:, [draw.gray_channel] * 3]
    if draw.sigma:
        x = gaussian_blur(x, torch.tensor([draw.sigma]), reach=6)
    return x[0, :, 0].permute(1, 2, 0).numpy()


def slow_batch(made, reader, step, monkeypatch):
    """Returns the whole batch of a step from the draws that the sampler makes, and nothing else."""
    from vidssl.clips import sampler

    drawn = []
    draw_views, clip_indices = sampler.draw_views, sampler.clip_indices
    seen: dict[str, list] = {"draws": [], "times": []}

    def kept(of, function):
        def wrapper(*arguments):
            seen[of].append(function(*arguments))
            return seen[of][-1]

        return wrapper

    monkeypatch.setattr(sampler, "draw_views", kept("draws", draw_views))
    monkeypatch.setattr(sampler, "clip_indices", kept("times", clip_indices))
    epoch, step = divmod(step, made.steps_per_epoch)
    rows = np.random.default_rng([3, epoch]).permutation(VIDEOS)
    for position in range(step * made.batch_size, (step + 1) * made.batch_size):
        seen["draws"].clear(), seen["times"].clear()
        row = int(rows[position])
        made.sampler.sample(epoch, position, row)
        (draws,) = seen["draws"]
        drawn.append(
            {
                view: np.stack(
                    [
                        slow_clip(reader, view, row, times, draw)
                        for times, draw in zip(seen["times"], draws[view], strict=True)
                    ]
                )
                for view in draws
            }
        )
    monkeypatch.undo()
    return {view: np.stack([d[view] for d in drawn]) for view in drawn[0]}, rows


@pytest.mark.parametrize("epoch", [0, 1, 5])
def test_batches_are_those_of_the_slow_path(reader, epoch, monkeypatch):
    made = loader(reader)
    (batch,) = next(made.steps(epoch, epoch + 1))
    wanted, rows = slow_batch(made, reader, epoch, monkeypatch)
    for view in ("rgb", "flow"):
        got = batch.clips[view].numpy()
        assert got.shape == (6, 2, {"rgb": 3, "flow": 2}[view], 4, 16, 16)
        assert got.dtype == np.float32
        np.testing.assert_allclose(got, wanted[view], atol=2e-5, rtol=0)
    assert batch.index.tolist() == rows[:6].tolist()
    assert batch.source.tolist() == (rows[:6] + 100).tolist()
    assert batch.label.tolist() == (rows[:6] % 3).tolist()


@pytest.mark.parametrize("policy", ["truthful", "coclr", "cocon"])
def test_frames_decoded_a_few_at_a_time_make_the_same_clips(reader, policy, monkeypatch):
    """Clips overlap or not, are longer than the video or not, and are cut in pieces anywhere."""
    made = loader(reader, POLICIES[policy])

    def samples():
        of_rows = [made.sampler.sample(epoch, 0, row) for epoch in (0, 1) for row in range(VIDEOS)]
        return [sample.clips[view] for sample in of_rows for view in sample.clips]

    wanted = samples()
    for at_once in (1, 3):
        monkeypatch.setattr("vidssl.clips.sampler.FRAMES_AT_ONCE", at_once)
        for got, want in zip(samples(), wanted, strict=True):
            np.testing.assert_array_equal(got, want)


def test_pixels_put_into_given_memory_become_the_same_input(reader):
    """What a GPU gets: the batch's pixels in one piece, coloured together."""
    made = loader(reader)
    (batch,) = next(made.steps(0, 1))
    rows = np.random.default_rng([3, 0]).permutation(VIDEOS)
    memory = {v: torch.empty(6, *made.sampler.shape(v), dtype=torch.uint8) for v in ("rgb", "flow")}
    colour = {"rgb": []}
    for place in range(6):
        into = {view: x[place].numpy() for view, x in memory.items()}
        sample = made.sampler.sample(0, place, int(rows[place]), into)
        colour["rgb"] += sample.colour["rgb"]
    for view, x in memory.items():
        pixels = x.permute(0, 1, 5, 2, 3, 4).flatten(0, 1)
        got = network_input(pixels, view, draws=colour.get(view), augment=VIVID)
        assert got.unflatten(0, (6, 2)).equal(batch.clips[view]), view


# ── whatever shares the work ─────────────────────────────────────────────────────────────────


def whole(made: ClipLoader, begin: int, end: int) -> list[torch.Tensor]:
    return [
        torch.cat([micro.clips["rgb"] for micro in step]).clone() for step in made.steps(begin, end)
    ]


def test_threads_and_the_first_step_change_nothing(reader):
    wanted = whole(loader(reader, threads=1), 0, 5)
    assert not wanted[0].equal(wanted[1]), "epochs differ"
    for got, want in zip(whole(loader(reader, threads=3), 2, 5), wanted[2:], strict=True):
        assert got.equal(want)


def test_micro_batches_and_ranks_share_the_batch(reader):
    wanted = whole(loader(reader), 0, 2)
    halves = whole(loader(reader, accumulate=3), 0, 2)
    ranks = [whole(loader(reader, world_size=2, rank=rank), 0, 2) for rank in (0, 1)]
    for step in range(2):
        assert halves[step].equal(wanted[step])
        assert torch.cat([of_rank[step] for of_rank in ranks]).equal(wanted[step])


def test_channels_come_last_in_memory(reader):
    """So that a CPU's convolutions take one clip of all samples as it lies."""
    (batch,) = next(loader(reader).steps(0, 1))
    for clip in batch.clips["rgb"].unbind(1):
        assert clip.is_contiguous(memory_format=torch.channels_last_3d)


def test_decoding_threads_compute_alone_and_leave_torch_as_it_was(reader):
    before, inside = torch.get_num_threads(), []
    torch.set_num_threads(2)
    try:
        made = loader(reader)
        sampler = made.sampler

        class Watched(type(sampler)):
            def sample(self, *arguments):
                inside.append((threading.current_thread().name, torch.get_num_threads()))
                return super().sample(*arguments)

        made.maker.sampler = Watched(**vars(sampler))
        for _ in made.steps(0, 2):
            assert torch.get_num_threads() == 2
        later: list[int] = []
        thread = threading.Thread(target=lambda: later.append(torch.get_num_threads()))
        thread.start()
        thread.join()
        assert later == [2]
    finally:
        torch.set_num_threads(before)
    assert {number for _, number in inside} == {1}
    assert all(name.startswith("clips") for name, _ in inside)


def test_threads_end_with_the_generator(reader):
    steps = loader(reader).steps(0, 100)
    next(steps)
    assert any(t.name.startswith("clips") for t in threading.enumerate())
    steps.close()
    assert not any(t.name.startswith("clips") for t in threading.enumerate())


def test_a_damaged_frame_ends_training_with_its_name(reader):
    class Damaged(ShardReader):
        def pictures(self, view, video, indices, for_copying=False):
            raise DamagedShard("frame 7 of v3 is damaged")

    made = loader(Damaged([shard.path for shard in reader._shards]))
    with pytest.raises(DamagedShard, match="frame 7 of v3"):
        next(made.steps(0, 1))


def test_a_view_that_is_not_there_is_told_before_any_step(reader):
    with pytest.raises(VidsslError, match="no view named 'pose'"):
        loader(reader, views=["rgb", "pose"])


def test_ahead_fetches_so_many_more_and_gives_all_in_order():
    fetched = []

    def numbers():
        for number in range(5):
            fetched.append(number)
            yield number

    given = ahead(numbers(), 2)
    assert next(given) == 0 and fetched == [0, 1, 2]
    assert next(given) == 1 and fetched == [0, 1, 2, 3]
    assert list(given) == [2, 3, 4]
    assert list(ahead(iter([1]), 2)) == [1]
    assert list(ahead(iter([]), 2)) == []


@pytest.mark.parametrize(("idle", "steps_ahead"), [(1, 2), (0, 0)])
def test_while_the_loop_is_at_one_step_threads_make_the_next_two_where_a_core_is_idle(
    reader, monkeypatch, idle, steps_ahead
):
    monkeypatch.setattr("vidssl.clips.loader.cores", lambda: torch.get_num_threads() + idle)
    made, wanted = loader(reader, threads=1), (1 + steps_ahead) * 6
    sampler, samples = made.sampler, []

    class Counted(type(sampler)):
        def sample(self, *arguments):
            samples.append(arguments)
            return super().sample(*arguments)

    made.maker.sampler = Counted(**vars(sampler))
    steps = made.steps(0, 6)
    next(steps)
    patience = time.monotonic() + PATIENCE
    while len(samples) < wanted and time.monotonic() < patience:
        time.sleep(0.01)
    time.sleep(0.1)
    assert len(samples) == wanted
    steps.close()


# ── the work of going to a step ──────────────────────────────────────────────────────────────

MANY = 40


class BlackFrames:
    """Black frames, and how often they were asked for."""

    asked = 0

    def frame_count(self, view):
        return np.full(MANY, 12)

    def pictures(self, view, video, indices, for_copying=False):
        self.asked += 1
        return [np.zeros((24, 32, 3), np.uint8) for _ in indices]


@pytest.mark.parametrize("step", [0, 7, 10**6 + 3])
def test_going_to_any_step_is_the_same_work(step, monkeypatch):
    """One order of an epoch is drawn, and one batch is read; nothing of the steps before."""
    reader, rows = BlackFrames(), np.arange(MANY)
    loader = ClipLoader(
        TrainingVideos(reader, rows, rows, rows),
        ["rgb"],
        ClipSpec(4, 1, 16),
        POLICIES["truthful"],
        4,
    )
    orders = []
    order = loader._order
    monkeypatch.setattr(loader, "_order", lambda epoch: orders.append(epoch) or order(epoch))
    ((made,),) = loader.steps(step, step + 1)
    assert len(made.index) == 4
    assert (reader.asked, orders) == (4, [step // (MANY // 4)])
