"""Flow of the codec's motion vectors: its direction, size, place and limits, on real files."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
from cli_workspace import vidssl
from video_files import moving_square, write_video

from vidssl.base.errors import UsageError
from vidssl.dataset.coded_frames import NoVectors, may_be_referred_to, nal_length_bytes
from vidssl.dataset.decoding import decode, decode_vectors
from vidssl.dataset.video import find_videos
from vidssl.dataset.video_bounds import OverBound, VideoBounds
from vidssl.extraction.decoded_video import UnusableVideo
from vidssl.extraction.video_flow import extract_video_flow
from vidssl.optical_flow.algorithms import derive_flow, get_flow_method
from vidssl.optical_flow.motion_vectors import MOTION_VECTOR_PARAMS, MotionVectorFlow
from vidssl.retrieval.query_video import derive_like_gallery
from vidssl.shards import open_shards
from vidssl.stages import extract_flow
from vidssl.stages.extract_flow import ExtractFlow, choose_method, flow_params
from vidssl.views.flow import read_pixels
from vidssl.workspace.workspace import Workspace

PAN = (3, -1)  # motion of the picture, in pixels a frame: to the right and upward
BORDER = 16  # what enters there has no place to be predicted from
# Good quality: at low rates encoders save bits by vectors that are almost right.
GOOD = {"crf": "10", "preset": "medium"}
P_FRAMES = GOOD | {"x264-params": "bframes=0:scenecut=0"}
B_FRAMES = GOOD | {"x264-params": "bframes=3:b-adapt=0:scenecut=0"}
FLAT_B_FRAMES = GOOD | {"x264-params": "bframes=3:b-adapt=0:scenecut=0:b-pyramid=none"}
TWO_B_FRAMES = GOOD | {"x264-params": "bframes=2:b-adapt=0:scenecut=0"}


def pan(frames: int = 12, width: int = 160, height: int = 128) -> np.ndarray:
    """A large texture before which the camera moves, so that all of the picture moves by PAN."""
    draw = np.random.default_rng(0)
    coarse = draw.integers(0, 256, (120, 160)).astype(np.uint8)
    grey = cv2.resize(coarse, (640, 480), interpolation=cv2.INTER_CUBIC)
    places = [(200 - PAN[0] * t, 200 - PAN[1] * t) for t in range(frames)]
    clip = np.stack([grey[y : y + height, x : x + width] for x, y in places])
    return (clip[..., None] * (1.0, 0.7, 0.4)).astype(np.uint8)


def flow_of(path: Path, size: int | None = None, stored: int | None = None) -> np.ndarray:
    reader = MotionVectorFlow(MOTION_VECTOR_PARAMS)
    return np.stack(list(reader.flows(decode_vectors(path), size, stored)))


def error(flow: np.ndarray, truth: tuple[float, float], border: int = BORDER) -> np.ndarray:
    """The distance from the truth in each pixel [T, h, w] inside of the border."""
    return np.linalg.norm(flow - np.array(truth), axis=-1)[:, border:-border, border:-border]


# ── direction and size


@pytest.mark.parametrize(
    ("name", "codec", "options"),
    [
        ("p.mp4", "libx264", P_FRAMES),
        ("pyramid.mp4", "libx264", B_FRAMES),
        ("pyramid.avi", "libx264", B_FRAMES),  # start codes, and no order in the timestamps
        ("flat.mkv", "libx264", FLAT_B_FRAMES),
        ("odd.ts", "libx264", TWO_B_FRAMES),  # the first B is referred to
        ("p.avi", "mpeg4", {}),
        ("b.mp4", "mpeg4", {"bf": "2"}),  # whose B-frames have no vectors of their own
        ("b.mpg", "mpeg2video", {"bf": "2"}),
        ("p.wmv", "wmv2", {}),
    ],
)
def test_a_moving_camera_has_its_motion_in_every_codec(
    tmp_path: Path, name: str, codec: str, options: dict[str, str]
):
    path = write_video(tmp_path / name, pan(), codec, options=options)
    flow = flow_of(path)
    assert flow.shape == (sum(1 for _ in decode(path)) - 1, 128, 160, 2)
    assert flow.dtype == np.float32
    far = np.median(error(flow, PAN), axis=(1, 2))
    assert far.max() < 0.2, "in every pair, whatever frame it refers to"


@pytest.mark.parametrize("options", [P_FRAMES, B_FRAMES])
def test_a_thing_moves_and_the_ground_rests(tmp_path: Path, options: dict[str, str]):
    clip = moving_square(8, 96, 72, step=(2, 1)).repeat(2, axis=1).repeat(2, axis=2)
    flow = flow_of(write_video(tmp_path / "v.mp4", clip, options=options))
    for t in range(7):
        x, y = 24 + 4 * t, 24 + 2 * t
        inside = np.median(flow[t, y + 8 : y + 32, x + 8 : x + 32].reshape(-1, 2), axis=0)
        np.testing.assert_allclose(inside, (4, 2), atol=0.5)
    assert np.abs(flow[:, 112:, 112:]).max() < 0.1


def test_it_agrees_with_the_flow_of_the_pixels(tmp_path: Path):
    path = write_video(tmp_path / "v.mp4", pan(), options=B_FRAMES)
    dis = np.stack(list(derive_flow(decode(path), get_flow_method("dis").start(), None)))
    apart = np.linalg.norm(flow_of(path) - dis, axis=-1)[:, BORDER:-BORDER, BORDER:-BORDER]
    assert apart.mean() < 0.2


@pytest.mark.parametrize(("degrees", "truth"), [(90, (-1, -3)), (-90, (1, 3)), (180, (-3, 1))])
def test_vectors_turn_with_the_frames(tmp_path: Path, degrees: int, truth: tuple[int, int]):
    path = write_video(tmp_path / "v.mp4", pan(), rotation=degrees)
    flow = flow_of(path)
    assert flow.shape[1:3] == next(iter(decode(path))).shape[:2]
    assert np.median(error(flow, truth)) < 0.1
    dis = np.stack(list(derive_flow(decode(path), get_flow_method("dis").start(), None)))
    np.testing.assert_allclose(np.median(flow, axis=(0, 1, 2)), np.median(dis, (0, 1, 2)), atol=0.2)


def test_the_thing_is_where_it_is_seen_when_turned(tmp_path: Path):
    clip = moving_square(4, 100, 52, step=(4, 0))  # sides that are no multiples of a block
    path = write_video(tmp_path / "v.mp4", clip, rotation=90, options=P_FRAMES)
    flow, frame = flow_of(path)[1], np.rot90(clip[1])
    moving = np.linalg.norm(flow, axis=-1) > 1
    still = np.linalg.norm(np.rot90(clip[0]).astype(int) - frame, axis=-1) == 0
    middle = np.argwhere(moving).mean(0), np.argwhere(~still).mean(0)
    np.testing.assert_allclose(*middle, atol=6)


def test_it_is_in_pixels_of_the_working_size_at_the_stored_size(tmp_path: Path):
    path = write_video(tmp_path / "v.mp4", pan())
    for size, stored, shape, unit in (
        (None, None, (128, 160), 1),
        (64, None, (64, 80), 0.5),
        (256, 64, (64, 80), 2),
        (64, 32, (32, 40), 0.5),
    ):
        flow = flow_of(path, size, stored)
        assert flow.shape[1:3] == shape
        assert np.median(error(flow, (3 * unit, -unit), border=4)) < 0.1 * unit


def test_frames_of_changing_size_are_as_the_first(tmp_path: Path):
    both = tmp_path / "both.ts"
    small = write_video(tmp_path / "a.ts", pan(6), codec="mpeg2video")
    large = np.stack([cv2.resize(f, (320, 256)) for f in pan(6)])
    twice = write_video(tmp_path / "b.ts", large, codec="mpeg2video")
    both.write_bytes(small.read_bytes() + twice.read_bytes())
    notes: list[str] = []
    reader = MotionVectorFlow(MOTION_VECTOR_PARAMS)
    flow = np.stack(list(reader.flows(decode_vectors(both, notes), None, None)))
    assert "changed size" in notes[0]
    assert len(flow) == sum(1 for _ in decode(both)) - 1
    assert flow.shape[1:3] == (128, 160)
    assert np.median(error(flow[-3:], PAN)) < 0.1


# ── what has no vectors


def extract(path: Path, **change: object):
    config = ExtractFlow(path, method="motion-vectors", size=None, stored=None, codec="png")
    config = replace(config, **change)
    (source,) = find_videos(path)
    return extract_video_flow(source, flow_params(config, choose_method(config)[0]))


@pytest.mark.parametrize(
    ("name", "codec", "options", "sentence"),
    [
        ("v.avi", "mjpeg", {}, r"each of its frames is coded by itself, .* \(mjpeg\)"),
        ("v.mp4", "libx264", {"g": "1"}, r"each of its frames is coded by itself, .* \(h264\)"),
        ("v.webm", "libvpx", {"deadline": "realtime"}, "its codec, vp8, gives no motion vectors"),
    ],
)
def test_a_codec_without_vectors_is_left_out_with_a_sentence(
    tmp_path: Path, name: str, codec: str, options: dict[str, str], sentence: str
):
    path = write_video(tmp_path / name, pan(4), codec, options=options)
    with pytest.raises(UnusableVideo, match=sentence) as caught:
        extract(path)
    assert str(caught.value).endswith("need none: dis, tvl1, tvl1-opencv, farneback, raft")


def test_a_long_film_without_vectors_is_not_read_to_its_end(tmp_path: Path, monkeypatch):
    monkeypatch.setattr("vidssl.dataset.decoding.NONE_SO_FAR", 3)
    path = write_video(tmp_path / "v.webm", pan(24), "libvpx", options={"deadline": "realtime"})
    read = 0
    with pytest.raises(NoVectors):
        for _ in decode_vectors(path):
            read += 1
    assert read < 12


def test_a_video_of_one_frame_has_its_own_reason(tmp_path: Path):
    with pytest.raises(UnusableVideo, match="it has one frame only"):
        extract(write_video(tmp_path / "v.mp4", pan(1)))


def test_intra_frames_hold_the_flow_before_and_are_told_when_many(tmp_path: Path):
    path = write_video(tmp_path / "v.avi", pan(), "mpeg4", options={"g": "2"})
    assert np.median(error(flow_of(path), PAN), axis=(1, 2)).max() < 0.1
    result = extract(path)
    assert result.record is not None
    assert result.record.note.startswith("45% of its flow has no motion vectors")
    few = extract(write_video(tmp_path / "few.avi", pan(), "mpeg4"))
    assert few.record is not None and few.record.note == ""


def test_what_was_long_ago_is_not_held(tmp_path: Path):
    frames = list(decode_vectors(write_video(tmp_path / "v.mp4", pan(), options=P_FRAMES)))
    without = [replace(f, kind="I", vectors=f.vectors[:0]) for f in frames]
    reader = MotionVectorFlow({"hold": 2, "median": 3})
    flow = np.stack(list(reader.flows(frames[:3] + without[3:8], None, None)))
    assert np.median(error(flow[:4], PAN)) < 0.1
    assert np.abs(flow[4:]).max() == 0
    assert reader.missing == pytest.approx(5 / 7, abs=0.02)
    nothing = np.stack(list(MotionVectorFlow(MOTION_VECTOR_PARAMS).flows(without, None, None)))
    assert np.abs(nothing).max() == 0


# ── damage and bounds


def test_damage_costs_the_rest_as_of_pixels(tmp_path: Path):
    clip = np.random.default_rng(0).integers(0, 256, (30, 48, 64, 3), np.uint8)
    path = write_video(tmp_path / "v.mp4", clip)
    data = bytearray(path.read_bytes())
    third = len(data) // 3
    data[third : 2 * third] = b"\xff" * third
    path.write_bytes(data)
    notes: tuple[list[str], list[str]] = ([], [])
    pixels = sum(1 for _ in decode(path, notes[0]))
    assert len(list(decode_vectors(path, notes[1]))) == pixels
    assert notes[0] == notes[1] and "damaged after frame" in notes[0][0]


def test_bounds_hold(tmp_path: Path):
    path = write_video(tmp_path / "v.mp4", pan(6))
    with pytest.raises(OverBound, match="--max-frames"):
        list(decode_vectors(path, bounds=VideoBounds(max_frames=3)))
    with pytest.raises(OverBound, match="--max-pixels"):
        list(decode_vectors(path, bounds=VideoBounds(max_pixels=1000)))


def test_vectors_that_cannot_be_paint_nothing_outside(tmp_path: Path):
    frames = list(decode_vectors(write_video(tmp_path / "v.mp4", pan(4), options=P_FRAMES)))
    wild = frames[1].vectors.copy()
    wild["dst_x"], wild["dst_y"], wild["motion_scale"] = 32767, -32768, 0
    wild["w"], wild["h"] = 255, 0
    hostile = [frames[0], replace(frames[1], vectors=wild), *frames[2:]]
    flow = np.stack(list(MotionVectorFlow(MOTION_VECTOR_PARAMS).flows(hostile, None, None)))
    assert np.isfinite(flow).all()
    assert np.abs(flow[0]).max() == 0


@pytest.mark.parametrize("packet", [b"", b"\0\0\1", b"\0" * 64, b"\xff" * 9, b"\0\0\1\6"])
@pytest.mark.parametrize("length_bytes", [0, 4])
def test_packets_that_hold_no_slice_are_taken_for_references(packet: bytes, length_bytes: int):
    assert may_be_referred_to(packet, length_bytes)


def test_the_first_slice_says_whether_a_picture_is_referred_to():
    parameters, kept, thrown = b"\x67\1\2", b"\x41\x9a", b"\x01\x9e"
    assert may_be_referred_to(b"\0\0\0\1" + parameters + b"\0\0\1" + kept, 0)
    assert not may_be_referred_to(b"\0\0\0\1" + parameters + b"\0\0\1" + thrown, 0)
    assert may_be_referred_to(b"\0\3" + parameters + b"\0\2" + kept, 2)
    assert not may_be_referred_to(b"\0\3" + parameters + b"\0\2" + thrown, 2)
    assert nal_length_bytes(b"\1\x64\0\x0b\xff\xe1") == 4
    assert nal_length_bytes(b"\0\0\0\1\x67") == nal_length_bytes(None) == 0


# ── the command


def test_end_to_end_as_typed(tmp_path: Path):
    videos, workspace = tmp_path / "videos", tmp_path / "w"
    for number in range(2):
        write_video(videos / f"{number}.mp4", pan(6 + number), options=B_FRAMES)
    typed = ["extract-flow", videos, "--method", "motion-vectors", "--workers", 1, "--json"]
    result = vidssl(*typed, workspace=workspace).json
    again = vidssl(*typed, "--new", workspace=workspace).json
    assert again["digest"] == result["digest"]
    assert again["artifact"] != result["artifact"]
    write_video(videos / "left.avi", pan(4), "mjpeg")
    grown = vidssl(*typed, workspace=workspace, code=3).json
    assert "without motion vectors (mjpeg); extract-flow has other methods" in str(
        grown["quarantined"]
    )
    vidssl("extract-flow", videos, "--method", "dis", "--name", "other", "--workers", 1,
           workspace=workspace)  # fmt: skip
    diff = vidssl(
        "flow-diff", "flow/main/v001", "flow/other/v001", "--json", workspace=workspace
    ).json
    assert diff["videos"] == 2
    assert diff["motion"][0] == pytest.approx(240 / 128 * np.hypot(*PAN), rel=0.1)
    assert diff["mean"] < diff["motion"][1] / 4


def test_a_query_gets_the_bytes_of_the_gallery(tmp_path: Path):
    path = write_video(tmp_path / "videos/v.mp4", pan(6), options=B_FRAMES)
    config = ExtractFlow(tmp_path / "videos", method="motion-vectors", workers=1)
    artifact = extract_flow.run(Workspace(tmp_path / "w"), config).artifact
    assert artifact is not None
    reader = open_shards(artifact)
    gallery = SimpleNamespace(subjects=[SimpleNamespace(view="flow")], reader=reader)
    query = derive_like_gallery(find_videos(path)[0], gallery, {}, {}, sheet=False)
    assert list(query.blobs["flow"]) == reader.read("flow", 0, range(5))
    pixels = read_pixels(query.blobs["flow"][2], "jpeg95", reader.views["flow"]["bound"])
    assert np.median(pixels[..., 0]) == pytest.approx(3 * 240 / 128, abs=0.3), "of the working size"


def test_it_has_no_device_and_no_weights(tmp_path: Path):
    with pytest.raises(UsageError, match="motion-vectors is no network"):
        get_flow_method("motion-vectors", weights="raft.pth")
    assert get_flow_method("motion-vectors").batched is None
