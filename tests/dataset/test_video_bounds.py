"""Bounds of one video: its frames' pixels, their number, and how long the decoder may think."""

from __future__ import annotations

import os
import re
import signal
import struct
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from video_files import moving_square, write_video

from vidssl.base.errors import UsageError
from vidssl.dataset import video_bounds
from vidssl.dataset.decoding import decode, duration
from vidssl.dataset.video import Source
from vidssl.dataset.video_bounds import OverBound, StallClock, VideoBounds
from vidssl.extraction.process_pool import VideoResult, process_videos


def read(path: Path, **bounds: float) -> list[np.ndarray]:
    return list(decode(path, bounds=VideoBounds(**bounds)))


def write_pictures(path: Path, sizes: list[tuple[int, int]]) -> Path:
    """Writes PNG pictures of these (width, height) into an AVI file that announces the first's."""
    pictures = []
    for width, height in sizes:
        encoder = av.CodecContext.create("png", "w")
        encoder.width, encoder.height, encoder.pix_fmt = width, height, "rgb24"
        encoder.time_base = Fraction(1, 25)
        blank = np.zeros((height, width, 3), np.uint8)
        pictures.append(bytes(encoder.encode(av.VideoFrame.from_ndarray(blank, format="rgb24"))[0]))
    with av.open(str(path), "w") as container:
        stream = container.add_stream("png", rate=25)
        stream.width, stream.height, stream.pix_fmt = *sizes[0], "rgb24"
        for number, picture in enumerate(pictures):
            packet = av.Packet(picture)
            packet.stream, packet.pts, packet.dts = stream, number, number
            packet.time_base, packet.is_keyframe = Fraction(1, 25), True
            container.mux(packet)
    return path


def announce(path: Path, before: tuple[int, int], after: tuple[int, int]) -> None:
    """Changes the size in the headers of an AVI file."""
    data = bytearray(path.read_bytes())
    for old, new in zip(before, after, strict=True):
        for place in [
            m.start() for m in re.finditer(re.escape(struct.pack("<I", old)), data[:400])
        ]:
            data[place : place + 4] = struct.pack("<I", new)
    path.write_bytes(data)


def test_defaults_are_beyond_real_film():
    VideoBounds().check_size(12288, 6480)  # 12K film
    VideoBounds().check_count(48 * 3600 * 50)  # two days
    with pytest.raises(OverBound):
        VideoBounds().check_size(16000, 15000)


@pytest.mark.parametrize(
    "wrong", [{"max_pixels": 0}, {"max_stall": 0.0}, {"max_stall": float("nan")}, {"max_frames": 0}]
)
def test_bounds_that_make_no_sense(wrong: dict[str, float]):
    with pytest.raises(UsageError, match=f"--{next(iter(wrong)).replace('_', '-')} must be"):
        VideoBounds(**wrong)


def test_a_frame_has_so_many_pixels(tmp_path: Path):
    video = write_video(tmp_path / "v.mp4", moving_square(3, 64, 48))
    assert len(read(video, max_pixels=64 * 48)) == 3
    with pytest.raises(OverBound, match=r"(3071 pixels that|and) --max-pixels"):
        read(video, max_pixels=64 * 48 - 1)


def test_a_large_picture_is_refused_before_it_is_decoded(tmp_path: Path):
    """Whatever the headers say, and wherever in the file it is."""
    late = write_pictures(tmp_path / "late.avi", [(64, 48), (64, 48), (1200, 1000)])
    lies = write_pictures(tmp_path / "lies.avi", [(1200, 1000)])
    announce(lies, (1200, 1000), (64, 48))
    says = write_pictures(tmp_path / "says.avi", [(64, 48)])
    announce(says, (64, 48), (16000, 15000))
    assert len(read(says, max_pixels=1_000_000)) == 1, "only the header is large"
    for video in (late, lies):
        with pytest.raises(OverBound, match="--max-pixels"):
            read(video, max_pixels=1_000_000)
    assert len(read(late)) == 3


def test_a_video_has_so_many_frames(tmp_path: Path):
    video = write_video(tmp_path / "v.mp4", moving_square(6))
    assert len(read(video, max_frames=6)) == 6
    frames = decode(video, bounds=VideoBounds(max_frames=5))
    with pytest.raises(OverBound, match="more than the 5 frames of --max-frames"):
        for _ in range(6):
            next(frames)


def test_a_sparse_file_ends_in_time(tmp_path: Path):
    """A terabyte of nothing behind eight frames, or behind the header."""
    for name, codec in (("v.avi", "mpeg4"), ("v.mkv", "libx264"), ("v.mpg", "mpeg1video")):
        video = write_video(tmp_path / name, moving_square(8), codec)
        os.truncate(video, 1 << 40)
        with pytest.raises(OverBound, match=r"no new frame for 0.3 seconds, .* --max-stall"):
            read(video, max_stall=0.3)
    os.truncate(video, 1 << 40)
    assert duration(video, VideoBounds(max_stall=0.3)) >= 0


def test_time_that_the_reader_takes_is_not_the_decoders(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    now = [0.0]
    monkeypatch.setattr(video_bounds.time, "monotonic", lambda: now[0])
    video = write_video(tmp_path / "v.mp4", moving_square(5))
    frames = decode(video, bounds=VideoBounds(max_stall=10))
    for _ in range(5):
        next(frames)
        now[0] += 100
    clock = StallClock(VideoBounds(max_stall=10))
    now[0] += 11
    with pytest.raises(OverBound, match="10 seconds"):
        clock.check()


def _hang(source: Source) -> VideoResult:
    """Hangs in one call for ever, as a decoder in an endless loop, or works."""
    if source.name == "hangs":
        StallClock(VideoBounds(max_stall=0.1))
        signal.pause()
    return VideoResult(reason="done")


def test_a_decoder_that_hangs_is_ended():
    sources = [Source(f"{n}#0", Path(n), n, "0") for n in ("hangs", "a", "b")]
    found = {s.name: r.reason for s, r in process_videos(sources, _hang, 1)}
    assert found == {
        "hangs": "the decoder hung for longer than --max-stall allows",
        "a": "done",
        "b": "done",
    }
    assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0), "never in this process"
