"""Frames that stay in memory change nothing but how often they are decoded."""

from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest
from cli_workspace import SMALL, vidssl
from small_workspace import make_pack

from vidssl.augment import AugmentSpec
from vidssl.clips import frame_cache
from vidssl.clips.batch import ClipSpec
from vidssl.clips.frame_cache import FrameCache, expected_bytes, with_frame_cache
from vidssl.clips.frame_reader import TrainingVideos
from vidssl.clips.loader import ClipLoader
from vidssl.shards import ShardReader
from vidssl.workspace.workspace import Workspace

VIDEOS, VIEWS = 6, ("rgb", "flow")
FRAME = 36 * 48 * 3  # bytes


class Counting:
    """A reader that counts how often each frame is decoded."""

    def __init__(self, reader: ShardReader) -> None:
        self.reader = reader
        self.decoded: Counter[tuple[str, int, int]] = Counter()

    def frame_count(self, view):
        return self.reader.frame_count(view)

    def frame_bytes(self, view):
        return self.reader.frame_bytes(view)

    def pictures(self, view, video, indices, *, for_copying=False):
        for index, picture in zip(
            np.unique(indices), self.reader.pictures(view, video, indices), strict=True
        ):
            self.decoded[view, video, int(index)] += 1
            yield picture


@pytest.fixture(scope="module")
def reader(tmp_path_factory) -> ShardReader:
    workspace = Workspace(tmp_path_factory.mktemp("workspace"))
    return ShardReader(make_pack(workspace, [0, 1] * (VIDEOS // 2), VIEWS).path)


@pytest.fixture
def counting(reader) -> Counting:
    return Counting(reader)


def videos(reader) -> TrainingVideos:
    rows = np.arange(VIDEOS)
    return TrainingVideos(reader, rows, rows, rows)


def steps(of: TrainingVideos, threads: int = 2) -> list:
    """Four epochs of a step each, with everything that an augmentation may do."""
    vivid = AugmentSpec(channel_shuffle=0.5, gray=0.4, jitter=0.9)
    loader = ClipLoader(of, VIEWS, ClipSpec(4, 2, 16), vivid, VIDEOS, seed=3, threads=threads)
    return [batch for micro_batches in loader.steps(0, 4) for batch in micro_batches]


@pytest.mark.parametrize("most", [0, 10 * FRAME, 1 << 30])
def test_batches_are_the_same_bit_for_bit(reader, most):
    kept = FrameCache(reader, most)
    plain, from_memory = (steps(videos(r)) for r in (reader, kept))
    for one, other in zip(plain, from_memory, strict=True):
        assert all(one.clips[view].equal(other.clips[view]) for view in VIEWS)
    assert kept.bytes <= most and (kept.bytes > 0) == (most > 0)


def test_each_frame_is_decoded_once(counting):
    # Two threads that want the same frame at the same moment would each decode it.
    steps(videos(FrameCache(counting, 1 << 30)), threads=1)
    assert set(counting.decoded.values()) == {1}
    steps(videos(counting), threads=1)
    assert max(counting.decoded.values()) > 1


def test_frames_come_in_ascending_order_each_once(reader):
    kept = FrameCache(reader, 1 << 30)
    list(kept.pictures("rgb", 2, np.array([4, 9])))
    for wanted in ([9, 3, 4, 4], [9, 3, 4, 4]):
        got = list(kept.pictures("rgb", 2, np.array(wanted)))
        assert np.array_equal(got, reader.frames("rgb", 2, [3, 4, 9]))


def test_all_else_is_the_other_readers(reader):
    kept = FrameCache(reader, 1 << 30)
    assert kept.views == reader.views
    assert np.array_equal(kept.frame_count("flow"), reader.frame_count("flow"))
    assert kept.frame_bytes("rgb") == reader.frame_bytes("rgb")
    assert kept.read("rgb", 1, [3, 1]) == reader.read("rgb", 1, [3, 1])


def test_what_does_not_fit_is_given_and_not_kept(counting):
    kept = FrameCache(counting, 2 * FRAME + 1)
    for _ in range(2):
        assert len(list(kept.pictures("rgb", 0, np.arange(5)))) == 5
    assert kept.bytes == 2 * FRAME
    assert sorted(counting.decoded.values()) == [1, 1, 2, 2, 2]


def test_the_bytes_are_those_of_the_frames_that_are_kept(reader):
    kept = FrameCache(reader, 1 << 30)
    steps(videos(kept))
    whole = [frame if frame.base is None else frame.base for frame in kept._kept.values()]
    assert kept.bytes == sum(frame.nbytes for frame in whole)
    assert kept.bytes <= expected_bytes(videos(reader), VIEWS)


def test_a_frame_cannot_be_spoilt(reader):
    kept = FrameCache(reader, FRAME)
    for frame in (*kept.pictures("rgb", 0, np.arange(2)), *kept.pictures("rgb", 0, np.arange(2))):
        with pytest.raises(ValueError, match="read-only"):
            frame[:] = 0


def test_threads_get_the_same_frames(counting):
    kept = FrameCache(counting, 1 << 30)
    with ThreadPoolExecutor(8) as pool:
        got = list(pool.map(lambda i: list(kept.pictures("rgb", 1, np.arange(20))), range(32)))
    expected = counting.reader.frames("rgb", 1, np.arange(20))
    assert all(np.array_equal(frames, expected) for frames in got)
    assert kept.bytes == 20 * FRAME


def test_only_sets_that_fit_are_kept(reader, monkeypatch):
    small = videos(reader)
    whole = expected_bytes(small, VIEWS)
    assert whole == VIDEOS * (20 * FRAME + 19 * FRAME * 2 // 3)
    assert with_frame_cache(small, VIEWS, whole - 1) is small
    assert isinstance(with_frame_cache(small, VIEWS, whole).reader, FrameCache)
    assert isinstance(with_frame_cache(small, VIEWS[:1], whole - 1).reader, FrameCache)
    half = replace(small, index=small.index[:3])
    assert expected_bytes(half, VIEWS) == whole // 2
    for free, kept in ((None, True), (4 * whole, True), (4 * whole - 4, False)):
        monkeypatch.setattr(frame_cache, "free_memory", lambda free=free: free)
        assert isinstance(with_frame_cache(small, VIEWS).reader, FrameCache) == kept


def test_training_ends_with_the_same_weights(copied, monkeypatch):
    """Co-training of both views, with and without."""
    made = []
    for name in ("kept", "read"):
        if name == "read":
            monkeypatch.setattr(frame_cache, "MOST_BYTES", 0)
        pair = ["--student", "rgb-infonce", "--k", 2, "--name", name]
        vidssl("cotrain", *pair, *SMALL, workspace=copied["workspace"])
        made.append(Workspace(copied["workspace"]).resolve("checkpoint", name).digest)
    assert made[0] == made[1]
