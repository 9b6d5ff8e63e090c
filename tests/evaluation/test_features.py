"""The test protocol, window by window, against a slow twin that follows the paper's words."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from vidssl.backbones import Encoder, EncoderSpec
from vidssl.base.errors import UsageError, VidsslError
from vidssl.evaluation import feature_file, features
from vidssl.evaluation.features import Features, WindowProtocol, embed_videos
from vidssl.views import get_view

SPEC = EncoderSpec("rgb", "tiny", 3, frames=8, stride=2, size=32)


class Memory:
    """Videos in memory: what embed_videos needs of a ShardReader."""

    def __init__(self, videos: Sequence[np.ndarray]) -> None:
        self.videos = videos
        self.read = 0

    def frame_count(self, view: str) -> np.ndarray:
        return np.array([len(v) for v in self.videos])

    def frames(self, view: str, video: int, frames: Sequence[int] | np.ndarray) -> np.ndarray:
        self.read += len(frames)
        return self.videos[video][np.asarray(frames)]


def videos(lengths: Sequence[int], height: int = 48, width: int = 64, channels: int = 3):
    draw = np.random.default_rng(0)
    return [draw.integers(0, 256, (n, height, width, channels), np.uint8) for n in lengths]


def encoder(spec: EncoderSpec = SPEC) -> Encoder:
    torch.manual_seed(0)
    made = Encoder(spec).eval()
    # Untrained statistics would hide a network left in train mode.
    for module in made.modules():
        if isinstance(module, torch.nn.BatchNorm3d):
            module.running_mean.normal_(0, 0.1)
    return made


def slow_window(made: Encoder, video: np.ndarray, start: int) -> np.ndarray:
    """One window, by the words: centred square of 224/240, resize, to_float, pool."""
    spec = made.spec
    height, width = video.shape[1:3]
    side = round(min(height, width) * 224 / 240)
    top, left = round((height - side) / 2), round((width - side) / 2)
    shown = []
    for t in range(spec.frames):
        frame = video[max(0, start + t * spec.stride)]
        square = frame[top : top + side, left : left + side]
        shown.append(cv2.resize(square, (spec.size, spec.size), interpolation=cv2.INTER_AREA))
    x = torch.from_numpy(np.stack(shown)).permute(3, 0, 1, 2)[None, None]
    with torch.no_grad():
        return made.embed(get_view(spec.view).to_float(x))[0].numpy()


def test_windows_follow_the_published_protocol() -> None:
    clips = videos([40, 15, 16, 29])
    made = encoder()
    found = embed_videos(made, Memory(clips), range(4), list("abcd"), batch=3)
    # Half a clip less one frame: 4·2 − 1 = 7; a clip covers 15 frames.
    assert found.starts.tolist() == [0, 7, 14, 21, 0, 0, 0, 7, 14]
    assert found.offsets.tolist() == [0, 4, 5, 6, 9]
    for v, clip in enumerate(clips):
        for row in range(*found.of_video(v).indices(99)):
            expected = slow_window(made, clip, int(found.starts[row]))
            assert np.allclose(found.windows[row], expected, atol=1e-5)


def test_published_hop_at_32_frames() -> None:
    spec = EncoderSpec("rgb", "s3d", 3, frames=32, stride=1, size=128)
    assert WindowProtocol().hop_for(spec) == 15
    assert WindowProtocol().crop_share * 240 == pytest.approx(224)


def test_a_video_mean_is_the_mean_of_unit_windows() -> None:
    windows = np.array([[3.0, 4.0], [0.0, 2.0], [5.0, 0.0]], np.float32)
    made = Features(("a", "b"), windows, np.array([0, 7, 0]), np.array([0, 2, 3]))
    assert np.allclose(made.video_means(), [[0.3, 0.9], [1.0, 0.0]])


def test_a_short_video_is_padded_at_the_left() -> None:
    (clip,) = videos([6])
    made = encoder()
    found = embed_videos(made, Memory([clip]), [0], ["a"])
    padded = np.concatenate([np.repeat(clip[:1], 9, 0), clip])  # 15 frames that end where it ends
    assert found.windows.shape == (1, made.dim)
    assert np.allclose(found.windows[0], slow_window(made, padded, 0), atol=1e-5)


def test_features_do_not_depend_on_batch_order_or_mode() -> None:
    clips = videos([30, 20, 25])
    made = encoder()
    once = embed_videos(made, Memory(clips), range(3), list("abc"), batch=4)
    made.train()  # must not matter: extraction switches to eval mode
    again = embed_videos(made, Memory(clips), [2, 0, 1], list("cab"), batch=2)
    assert np.allclose(once.video_means(), again.video_means()[[1, 2, 0]], atol=1e-6)
    same = embed_videos(made, Memory(clips), range(3), list("abc"), batch=4)
    assert np.array_equal(once.windows, same.windows)


def test_flow_has_its_own_length_and_channels() -> None:
    spec = EncoderSpec("flow", "tiny", 2, frames=4, stride=1, size=32)
    clips = videos([11], channels=2)
    made = encoder(spec)
    found = embed_videos(made, Memory(clips), [0], ["a"])
    assert found.starts.tolist() == [0, 1, 2, 3, 4, 5, 6, 7]
    assert np.allclose(found.windows[2], slow_window(made, clips[0], 2), atol=1e-5)


def test_overlapping_windows_are_decoded_once() -> None:
    memory = Memory(videos([60]))
    embed_videos(encoder(), memory, [0], ["a"], batch=64)
    assert memory.read <= 60


def test_a_damaged_frame_stops_extraction() -> None:
    class Damaged(Memory):
        def frames(self, view, video, frames):
            raise VidsslError("frame 3 is damaged")

    with pytest.raises(VidsslError, match="frame 3"):
        embed_videos(encoder(), Damaged(videos([30, 30])), range(2), list("ab"), batch=1)


def test_features_survive_the_disk(tmp_path: Path) -> None:
    made = embed_videos(encoder(), Memory(videos([30, 9])), range(2), ["ä.mp4#1", "b#2"])
    feature_file.save_features(made, tmp_path / "features.h5")
    back = feature_file.load_features(tmp_path / "features.h5")
    assert back.ids == made.ids
    for field in ("windows", "starts", "offsets"):
        assert np.array_equal(getattr(back, field), getattr(made, field))
    (tmp_path / "features.h5").write_bytes(b"no")
    with pytest.raises(VidsslError, match="damaged"):
        feature_file.load_features(tmp_path / "features.h5")
    made.windows[1, 3] = np.nan
    feature_file.save_features(made, tmp_path / "features.h5")
    with pytest.raises(
        VidsslError, match=r"features\.h5 has features that are no numbers.*window 1"
    ):
        feature_file.load_features(tmp_path / "features.h5")


def test_join_is_extraction_at_once() -> None:
    clips = videos([30, 9, 22])
    made = encoder()
    whole = embed_videos(made, Memory(clips), range(3), list("abc"))
    parts = [
        embed_videos(made, Memory(clips), [0], ["a"]),
        embed_videos(made, Memory(clips), [1, 2], ["b", "c"]),
    ]
    joined = features.join_features(parts)
    assert joined.ids == whole.ids
    assert joined.offsets.tolist() == whole.offsets.tolist()
    assert np.allclose(joined.windows, whole.windows, atol=1e-6)


# ── ten crops ────────────────────────────────────────────────────────────────────────────────


def slow_crops(video: np.ndarray) -> list[np.ndarray]:
    """Centre, top left, top right, bottom left, bottom right; then all of them mirrored."""
    height, width = video.shape[1:3]
    side = round(min(height, width) * 224 / 240)
    y, x = height - side, width - side
    places = [(round(y / 2), round(x / 2)), (0, 0), (0, x), (y, 0), (y, x)]
    cut = [video[:, top : top + side, left : left + side] for top, left in places]
    return cut + [crop[:, :, ::-1].copy() for crop in cut]


@pytest.mark.parametrize("view", ["rgb", "flow"])
def test_ten_crops_are_the_slow_twin(view: str) -> None:
    """Of the size that the network takes, so that nothing is resized."""
    channels = get_view(view).channels
    (video,) = videos([8], height=60, width=76, channels=channels)
    spec = EncoderSpec(view, "tiny", channels, frames=8, stride=1, size=56)
    expected = slow_crops(video)
    if view == "flow":  # a mirrored motion goes the other way
        for crop in expected[5:]:
            crop[..., 0] = np.minimum(256 - crop[..., 0].astype(int), 255)
    shown = features.present(video, spec, WindowProtocol(crops="ten"))
    assert len(shown) == 10
    for crop, wanted in zip(shown, expected, strict=True):
        np.testing.assert_array_equal(crop, wanted)


def test_mirrored_pixels_and_nothing_else_where_that_is_wanted() -> None:
    (video,) = videos([8], height=60, width=76, channels=2)
    spec = EncoderSpec("flow", "tiny", 2, frames=8, stride=1, size=56)
    shown = features.present(video, spec, WindowProtocol(crops="ten", turned=False))
    for crop, wanted in zip(shown, slow_crops(video), strict=True):
        np.testing.assert_array_equal(crop, wanted)


def test_a_windows_row_is_the_mean_over_its_crops() -> None:
    made, clips = encoder(), Memory(videos([30, 8]))
    ten = embed_videos(made, clips, [0, 1], ["a", "b"], WindowProtocol(crops="ten"), batch=2)
    one = embed_videos(made, clips, [0, 1], ["a", "b"], batch=2)
    np.testing.assert_array_equal(ten.starts, one.starts)
    rows = []
    for video, start in ((0, 0), (0, 7), (0, 14), (1, 0)):
        first = np.maximum(min(start, len(clips.videos[video]) - 15) + 2 * np.arange(8), 0)
        shown = features.present(clips.videos[video][first], SPEC, WindowProtocol(crops="ten"))
        x = torch.from_numpy(np.stack(shown)).permute(0, 4, 1, 2, 3)
        with torch.inference_mode():
            rows.append(made.pool(get_view("rgb").to_float(x)).mean(0).numpy())
    np.testing.assert_allclose(ten.windows, rows, atol=1e-6, rtol=1e-4)


def test_probabilities_are_averaged_as_they_are() -> None:
    windows = np.array([[0.9, 0.1], [0.5, 0.5], [0.2, 0.8]], np.float32)
    found = Features(("a", "b"), windows, np.zeros(3, np.int64), np.array([0, 2, 3]))
    np.testing.assert_allclose(found.video_means(unit=False), [[0.7, 0.3], [0.2, 0.8]], rtol=1e-6)


def test_what_came_later_does_not_change_the_identity_of_features() -> None:
    told = WindowProtocol().as_dict(SPEC)
    assert told == {"hop": 7, "crop_share": 224 / 240, "bf16": False}
    more = WindowProtocol(crops="ten", resize="bicubic", turned=False).as_dict(SPEC)
    assert more == told | {"crops": "ten", "resize": "bicubic", "turned": False}


def test_bad_protocols_are_one_sentence() -> None:
    with pytest.raises(UsageError, match="did you mean ten"):
        WindowProtocol(crops="tne")
    with pytest.raises(UsageError, match="hop must be at least 1"):
        WindowProtocol(hop=0)
