"""Batches of what a backbone computes first: the same as of the clips, kept and drawn anew."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest
import torch
from small_workspace import make_pack

from vidssl.augment import POLICIES
from vidssl.base.kept_arrays import Keeper
from vidssl.clips.batch import ClipSpec
from vidssl.clips.cpu_batches import CpuBatchMaker
from vidssl.clips.frame_reader import TrainingVideos
from vidssl.clips.kept_batches import FixedPart, KeptBatchMaker
from vidssl.clips.loader import ClipLoader
from vidssl.clips.sampler import ClipSampler
from vidssl.shards import open_shards
from vidssl.workspace.workspace import Workspace

CPU = torch.device("cpu")
ROWS = np.arange(4)


def fixed(x_NCTHW: torch.Tensor) -> torch.Tensor:
    return x_NCTHW.mean(dim=(3, 4))


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> TrainingVideos:
    made = Workspace(tmp_path_factory.mktemp("kept") / "w")
    reader = open_shards(make_pack(made, [0, 1, 2, 0], ("rgb", "flow")))
    return TrainingVideos(reader, ROWS, ROWS, ROWS % 3)


def sampler(videos: TrainingVideos, draws: int, views=("rgb", "flow")) -> ClipSampler:
    clip = ClipSpec(frames=4, size=16)
    return ClipSampler(videos, list(views), clip, POLICIES["truthful"], 2, 3, draws=draws)


def batch(maker, epoch: int):
    with ThreadPoolExecutor(2) as pool:
        return maker.finish(maker.begin(pool, epoch, ROWS, ROWS))


@pytest.mark.parametrize("most", [None, 0, 100])
def test_they_are_the_fixed_part_of_the_clips_whether_kept_or_not(videos, most):
    of = sampler(videos, draws=2)
    parts = {"rgb": FixedPart(fixed), "flow": FixedPart(fixed)}
    plain, kept = CpuBatchMaker(of, CPU), KeptBatchMaker(of, CPU, parts, most)
    for epoch in (0, 1, 2, 0):
        want, got = batch(plain, epoch), batch(kept, epoch)
        assert got.source.equal(want.source) and got.index.equal(want.index)
        for view in parts:
            made = torch.stack([fixed(x) for x in want.clips[view]]).half().float()
            assert got.clips[view].equal(made), (epoch, view)
    size = batch(kept, 0).clips["rgb"][0].nbytes // 2  # of one sample, in float16
    assert kept.bytes <= (most if most is not None else 4 * 2 * 2 * size)
    assert (kept.bytes > 0) == (most != 0)


def test_a_sample_is_made_once(videos):
    calls = []

    def counted(x: torch.Tensor) -> torch.Tensor:
        calls.append(len(x))
        return fixed(x)

    # A partner's view has a fixed part as well, and is not among the clips.
    parts = {"rgb": FixedPart(counted), "flow": FixedPart(fixed)}
    maker = KeptBatchMaker(sampler(videos, draws=1, views=("rgb",)), CPU, parts)
    for epoch in range(3):
        batch(maker, epoch)
    assert calls == [2] * len(ROWS)


def test_a_view_without_a_fixed_part_stays_clips(videos):
    maker = KeptBatchMaker(sampler(videos, draws=1), CPU, {"rgb": FixedPart(fixed)})
    found = batch(maker, 0).clips
    assert found["rgb"].shape == (4, 2, 3, 4) and found["flow"].shape == (4, 2, 2, 4, 16, 16)
    assert maker.bytes == 0


def test_a_video_has_so_many_samples_and_no_more(videos):
    few, anew = sampler(videos, draws=3), sampler(videos, draws=0)
    for of, most in ((few, 3), (anew, 12)):
        seen = {of.sample(epoch, 0, 0).clips["rgb"].tobytes() for epoch in range(12)}
        assert 1 < len(seen) <= most
    # A sample is the row's own, wherever in the epoch it comes.
    number = few.draw_number(5, 2)
    same = next(e for e in range(99) if few.draw_number(e, 0) == number)
    one, other = few.sample(5, 2, 1), few.sample(same, 0, 1)
    assert np.array_equal(one.clips["rgb"], other.clips["rgb"])


def test_the_loader_keeps_only_where_draws_are_limited(videos):
    def maker(draws: int, parts=None):
        return ClipLoader(
            videos, ["rgb"], ClipSpec(4, 1, 16), POLICIES["truthful"], 2,
            draws=draws, fixed_parts=parts,
        ).maker  # fmt: skip

    assert isinstance(maker(2, {"rgb": FixedPart(fixed)}), KeptBatchMaker)
    assert isinstance(maker(0, {"rgb": FixedPart(fixed)}), CpuBatchMaker)
    assert isinstance(maker(2), CpuBatchMaker)


def test_the_next_training_finds_what_this_one_made(videos, tmp_path):
    """Also where a sample of the file is damaged, and with none of another seed."""
    calls = []

    def counted(x: torch.Tensor) -> torch.Tensor:
        calls.append(1)
        return fixed(x)

    def made(seed: int = 3, **other):
        of = replace(sampler(videos, draws=1, views=("rgb",)), seed=seed, **other)
        maker = KeptBatchMaker(of, CPU, {"rgb": FixedPart(counted, Keeper(tmp_path, {}))})
        calls.clear()  # one call tells the shape
        return batch(maker, 0).clips["rgb"], len(calls)

    first, of_first = made()
    again, of_again = made(presentations={"flow": "picture"})  # of a view that is not there
    assert first.equal(again) and (of_first, of_again) == (len(ROWS), 0)
    other, of_other = made(seed=4)
    assert not other.equal(first) and of_other == len(ROWS)
    file = min(tmp_path.iterdir(), key=lambda path: path.stat().st_mtime_ns)
    whole = bytearray(file.read_bytes())
    whole[len(whole) // 2] ^= 1
    file.write_bytes(whole)
    for seed, want in ((3, first), (4, other)):
        assert made(seed)[0].equal(want)
