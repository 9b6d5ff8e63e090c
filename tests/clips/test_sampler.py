"""Drawing gives numbers, decoding is lazy, and no frame is decoded twice."""

from __future__ import annotations

import numpy as np
import pytest

from vidssl.augment import POLICIES
from vidssl.clips.batch import ClipSpec
from vidssl.clips.frame_reader import LazyFrames, TrainingVideos
from vidssl.clips.sampler import ClipSampler, DrawnClips

FRAMES = 24
SIZES = {"rgb": (20, 30), "flow": (16, 24)}
CHANNELS = {"rgb": 3, "flow": 2}


class Noise:
    """A reader of noise that keeps the numbers of the frames it has decoded, in order."""

    def __init__(self) -> None:
        self.decoded: dict[str, list[int]] = {view: [] for view in SIZES}

    def frame_count(self, view):
        return np.full(2, FRAMES - (view == "flow"))

    def pictures(self, view, video, indices, *, for_copying=False):
        for index in np.unique(indices).tolist():
            self.decoded[view].append(index)
            draw = np.random.default_rng([video, index])
            yield draw.integers(0, 256, (*SIZES[view], CHANNELS[view]), np.uint8)


def sampler(policy: str = "truthful", last_only=()) -> ClipSampler:
    rows = np.arange(2)
    videos = TrainingVideos(Noise(), rows, rows, rows)
    return ClipSampler(
        videos, list(SIZES), ClipSpec(8, 1, 8), POLICIES[policy], seed=1, last_only=last_only
    )


def test_drawing_decodes_the_first_frame_of_each_view_alone():
    of = sampler()
    drawn, _ = of.draw(0, 0, 0)
    for view, decoded in of.videos.reader.decoded.items():
        assert decoded == drawn.views[view].frame_index.needed[:1].tolist()


@pytest.mark.parametrize("policy", ["truthful", "coclr", "cocon"])
def test_a_sample_decodes_each_of_its_frames_once(policy):
    of = sampler(policy)
    numbers = of.draw_frames(of.generator(0, 0, 0), 0)
    of.sample(0, 0, 0)
    for view, decoded in of.videos.reader.decoded.items():
        assert decoded == numbers.views[view].needed.tolist()


def test_where_only_the_last_clip_is_made_the_others_are_not_decoded():
    of = sampler(last_only=("flow",))
    for row in (0, 1):
        of.sample(0, row, row)
        of.sample(1, row, row)
    assert len(of.videos.reader.decoded["flow"]) == 4 * 8 < len(of.videos.reader.decoded["rgb"])


def test_what_is_drawn_is_a_function_of_seed_epoch_and_position():
    def drawn(epoch: int, position: int) -> DrawnClips:
        return sampler().draw(epoch, position, 0)[0]

    def numbers(of: DrawnClips) -> tuple:
        return tuple(
            (view, one.frame_index.needed.tolist(), one.draws) for view, one in of.views.items()
        )

    assert numbers(drawn(0, 3)) == numbers(drawn(0, 3))
    assert numbers(drawn(0, 3)) != numbers(drawn(0, 4))
    assert numbers(drawn(0, 3)) != numbers(drawn(1, 3))


def test_lazy_frames_decode_the_first_at_once_and_the_others_when_they_are_asked_for():
    decoded = []

    def pictures():
        for number in range(3):
            decoded.append(number)
            yield np.full((4, 5 + number, 1), number, np.uint8)

    frames = LazyFrames(pictures())
    assert frames.size == (4, 5) and decoded == [0]
    rest = iter(frames)
    assert next(rest).max() == 0 and decoded == [0]
    assert next(rest).max() == 1 and decoded == [0, 1]
    assert [frame.max() for frame in rest] == [2]
    assert list(frames) == [], "they can be gone through once"
