"""Views stored at a stride: what lies between two stored frames is their weighted mean."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path

import h5py
import numpy as np
import pytest

from vidssl.shards import ShardReader, ShardWriter, VideoRecord
from vidssl.views import get_view
from vidssl.views.frame_interpolation import read_strided, stored_frame

MASK = get_view("mask")


def numbered(numbers: np.ndarray) -> list[np.ndarray]:
    assert all(a < b for a, b in pairwise(numbers)), "sorted, each once"
    return [np.full((1, 1, 1), 10 * n, np.uint8) for n in numbers]


@pytest.mark.parametrize(
    ("stride", "count", "expected"),
    [
        (1, 4, [0, 10, 20, 30]),
        (2, 6, [0, 10, 20, 30, 40, 40]),
        (2, 5, [0, 10, 20, 30, 40]),
        (3, 8, [0, 10, 20, 30, 40, 50, 60, 60]),
        (9, 3, [0, 0, 0]),
    ],
)
def test_between_two_is_their_weighted_mean_and_the_end_repeats(stride, count, expected):
    found = read_strided(np.arange(count), stride, count, numbered)
    assert found.ravel().tolist() == expected
    order = [count - 1, 0, 0, 1]
    found = read_strided(np.array(order), stride, count, numbered)
    assert found.ravel().tolist() == [expected[i] for i in order]


def test_stored_frames_are_not_touched_and_means_are_rounded():
    frames = np.random.default_rng(0).integers(0, 256, (5, 3, 4, 2), np.uint8)
    found = read_strided(np.arange(5), 2, 5, lambda numbers: list(frames[numbers]))
    np.testing.assert_array_equal(found[::2], frames[::2])
    mean = (frames[0].astype(float) + frames[2]) / 2
    assert np.abs(found[1] - mean).max() <= 0.5


def write(folder: Path, count: int, stride: int) -> np.ndarray:
    """Writes one video of a mask of random frames and gives these."""
    frames = np.random.default_rng(1).integers(0, 256, (count, 8, 6, 1), np.uint8)
    blobs = [MASK.encode(f) if stored_frame(i, stride) else b"" for i, f in enumerate(frames)]
    params = {"mask": {"codec": "webp", "stride": stride, "interpolation": "linear"}}
    with ShardWriter(folder, params) as writer:
        writer.add(VideoRecord("a#0", "a", 25.0, count, 6, 8), {"mask": blobs})
        writer.finish()
    return frames


@pytest.mark.parametrize("stride", [1, 2, 3])
def test_shards_give_every_frame(tmp_path, stride):
    frames = write(tmp_path, 8, stride)
    with ShardReader(tmp_path) as reader:
        assert reader.frame_count("mask").tolist() == [8], "every frame can be asked for"
        found = reader.frames("mask", 0, range(8))
        np.testing.assert_array_equal(found[::stride], frames[::stride])
        expected = read_strided(np.arange(8), stride, 8, lambda n: list(frames[n]))
        np.testing.assert_array_equal(found, expected)
        np.testing.assert_array_equal(reader.frames("mask", 0, [5, 5, 1])[0], expected[5])
        assert [len(b) > 0 for b in reader.read("mask", 0, range(8))] == [
            i % stride == 0 for i in range(8)
        ]
        assert list(reader.verify()) == []


def test_the_file_says_which_frames_are_stored(tmp_path):
    """As docs/formats.md has it, for readers of other kinds."""
    frames = write(tmp_path, 5, 2)
    with h5py.File(tmp_path / "shard-0000.h5") as file:
        group = file["views/mask"]
        assert json.loads(group.attrs["params"])["stride"] == 2
        lengths = np.diff(group["offsets"][()])
        assert (lengths > 0).tolist() == [True, False, True, False, True]
        low, high = group["offsets"][2], group["offsets"][3]
        blob = group["blobs"][low:high].tobytes()
    np.testing.assert_array_equal(MASK.decode(blob), frames[2])
