"""Views: what is stored is what comes back, and motion keeps its meaning."""

from __future__ import annotations

import subprocess
import sys

import cv2
import numpy as np
import pytest
import torch
from video_files import moving_square

from vidssl.base.errors import UsageError, VidsslError
from vidssl.optical_flow.algorithms import FLOW_METHODS, derive_flow, get_flow_method
from vidssl.views import VIEWS, get_view
from vidssl.views.flow import quantise, to_pixels
from vidssl.views.resize import resize

# Networks need weights: tests/optical_flow/test_raft.py. What reads no pixels needs video files:
# tests/optical_flow/test_motion_vectors.py.
ALGORITHMS = [name for name, row in FLOW_METHODS.items() if row.complete is None and row.start]


def smooth(channels: int, seed: int = 0, low: int = 1) -> np.ndarray:
    draw = np.random.default_rng(seed)
    coarse = draw.integers(low, 256, (4, 6, channels)).astype(np.float32)
    return resize(coarse, (64, 48), cv2.INTER_LINEAR).round().astype(np.uint8)


# ── the contract, for every view


@pytest.mark.parametrize("name", list(VIEWS))
def test_every_view_keeps_the_contract(name: str):
    view = get_view(name)
    frame = smooth(view.channels)
    assert view.name == name
    np.testing.assert_array_equal(view.decode(view.encode(frame, "png"), "png"), frame)
    default = view.decode(view.encode(frame)).astype(int)
    assert default.shape == frame.shape
    assert np.abs(default - frame).mean() < 3
    odd = frame[:47, :63]
    np.testing.assert_array_equal(view.decode(view.encode(odd, "png"), "png"), odd)
    frames = np.stack([frame, smooth(view.channels, 1)])
    mirrored = view.flip(frames)
    assert mirrored.dtype == np.uint8
    assert mirrored.flags.c_contiguous
    assert not np.array_equal(mirrored, frames)
    np.testing.assert_array_equal(view.flip(mirrored), frames)


@pytest.mark.parametrize("name", list(VIEWS))
def test_to_float_takes_bytes_or_floats_and_leaves_them_alone(name: str):
    view = get_view(name)
    x = torch.randint(0, 256, (2, 3, view.channels, 4, 5, 6), dtype=torch.uint8)
    y = view.to_float(x)
    assert y.dtype == torch.float32
    assert y.shape == x.shape
    copy = x.float()
    torch.testing.assert_close(view.to_float(copy), y)
    torch.testing.assert_close(copy, x.float())


def test_a_wrong_name_is_told_the_right_one():
    with pytest.raises(VidsslError, match=r"no view named 'flwo' \(did you mean flow\?\)"):
        get_view("flwo")
    with pytest.raises(VidsslError, match="the views are rgb, flow, pose, mask"):
        get_view("depth")


@pytest.mark.parametrize("name", ["jpeg0", "jpeg101", "jpeg", "jpg", "webp90", ""])
def test_an_unknown_codec_is_one_sentence(name: str):
    with pytest.raises(VidsslError, match="there is no codec named"):
        VIEWS["rgb"].encode(smooth(3), name or "none")


def test_a_blob_that_is_no_picture_is_refused():
    with pytest.raises(ValueError, match="no picture"):
        VIEWS["rgb"].decode(b"nonsense")
    with pytest.raises(ValueError, match="is not 2 channels of flow one above another"):
        VIEWS["flow"].decode(VIEWS["rgb"].encode(smooth(3)))
    with pytest.raises(ValueError, match="is not 17 channels of pose"):
        VIEWS["pose"].decode(VIEWS["mask"].encode(smooth(1)[:40]))


@pytest.mark.parametrize("name", list(VIEWS))
def test_webp_loses_nothing_of_any_view(name: str):
    view = get_view(name)
    frame = np.random.default_rng(0).integers(0, 256, (47, 63, view.channels), np.uint8)
    np.testing.assert_array_equal(view.decode(view.encode(frame, "webp"), "webp"), frame)
    grey = np.repeat(frame[..., :1], view.channels, axis=2)  # which webp cannot tell from colour
    np.testing.assert_array_equal(view.decode(view.encode(grey, "webp"), "webp"), grey)


def test_a_picture_too_large_for_webp_is_one_sentence():
    with pytest.raises(UsageError, match=r"16x17000 is too large for webp.*--codec png"):
        VIEWS["pose"].encode(np.zeros((1000, 16, 17), np.uint8))


@pytest.mark.parametrize(
    ("name", "how"),
    [
        ("rgb", ""),
        ("flow", "vidssl extract-flow VIDEOS"),
        ("mask", "vidssl extract-view VIDEOS --view mask"),
    ],
)
def test_every_view_knows_how_it_is_made(name: str, how: str):
    assert get_view(name).how_to_make("VIDEOS") == how
    if name == "mask":
        assert get_view(name).deriver().Config().min_score == 0.8
    else:
        with pytest.raises(UsageError, match=f"extract-view does not make {name}; .*: vidssl"):
            get_view(name).deriver()


def test_views_need_no_flow_algorithm_and_no_decoder():
    code = (
        "import sys, vidssl.views, vidssl.shards, vidssl.dataset.annotations\n"
        "heavy = ('av', 'torch', 'vidssl.optical_flow.algorithms',"
        "'vidssl.views.torchvision_networks',"
        " 'vidssl.dataset.video', 'vidssl.dataset.decoding')\n"
        "print([name for name in heavy if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("name", list(VIEWS))
def test_every_view_can_be_looked_at(name: str):
    view = get_view(name)
    picture = view.picture(smooth(view.channels))
    assert picture.shape == (48, 64, 3) and picture.dtype == np.uint8
    nothing = np.full((4, 6, view.channels), 128 if name == "flow" else 0, np.uint8)
    assert not view.picture(nothing).any(), "black is where nothing is"


def test_pictures_tell_directions_and_joints_apart():
    flow = np.full((1, 4, 2), 128, np.uint8)
    flow[0, 0, 0], flow[0, 1, 0], flow[0, 2, 1] = 255, 1, 255  # right, left, down
    colours = VIEWS["flow"].picture(flow)[0]
    assert len({tuple(c) for c in colours.tolist()}) == 4 and not colours[3].any()
    assert colours[0].tolist() == [255, 0, 0]
    pose = np.zeros((1, 17, 17), np.uint8)
    pose[0, np.arange(17), np.arange(17)] = 60
    colours = VIEWS["pose"].picture(pose)[0]
    assert len({tuple(c) for c in colours.tolist()}) == 17
    assert (colours.max(1) == 255).all()


# ── rgb


def test_rgb_is_normalised_as_imagenet_is():
    x = torch.zeros(3, 1, 1, 1, dtype=torch.uint8)
    x[0], x[1] = 255, 128
    expected = torch.tensor([(1 - 0.485) / 0.229, (128 / 255 - 0.456) / 0.224, -0.406 / 0.225])
    torch.testing.assert_close(VIEWS["rgb"].to_float(x).flatten(), expected)


def test_rgb_keeps_its_colours_apart():
    frame = np.zeros((16, 16, 3), np.uint8)
    frame[..., 0] = 200
    np.testing.assert_allclose(
        VIEWS["rgb"].decode(VIEWS["rgb"].encode(frame))[0, 0], [200, 0, 0], atol=3
    )


# ── flow


def test_the_map_is_exact_at_zero_and_symmetric():
    flow = np.array([0, 20, -20, 25, -99, 10.1, -10.1, 20 / 127], np.float32)
    stored = quantise(flow, 20)
    np.testing.assert_array_equal(stored, [128, 255, 1, 255, 1, 192, 64, 129])
    assert to_pixels(stored, 20)[0] == 0
    values = np.linspace(-20, 20, 4001).astype(np.float32)
    error = np.abs(to_pixels(quantise(values, 20), 20) - values)
    assert error.max() <= 20 / 127 / 2 + 1e-5
    np.testing.assert_array_equal(quantise(-values, 20), 256 - quantise(values, 20).astype(int))


def test_flow_reaches_the_network_in_units_of_the_bound():
    x = torch.tensor([[1, 128, 255], [128, 1, 255]], dtype=torch.uint8).reshape(2, 1, 1, 3)
    y = VIEWS["flow"].to_float(x)
    torch.testing.assert_close(y.flatten(1), torch.tensor([[-1.0, 0, 1], [0, -1, 1]]))
    torch.testing.assert_close(to_pixels(x, 20.0), 20 * y)


def test_flip_negates_u_and_only_u():
    frames = np.zeros((1, 1, 3, 2), np.uint8)
    frames[0, 0, :, 0] = [1, 128, 200]
    frames[0, 0, :, 1] = [10, 20, 30]
    mirrored = VIEWS["flow"].flip(frames)
    np.testing.assert_array_equal(mirrored[0, 0, :, 0], [56, 128, 255])
    np.testing.assert_array_equal(mirrored[0, 0, :, 1], [30, 20, 10])
    assert VIEWS["flow"].flip(np.zeros((1, 1, 1, 2), np.uint8))[0, 0, 0, 0] == 255


def test_u_lies_above_v_in_a_grey_picture():
    frame = smooth(2)
    image = cv2.imdecode(np.frombuffer(VIEWS["flow"].encode(frame, "png"), np.uint8), -1)
    np.testing.assert_array_equal(image, np.concatenate([frame[..., 0], frame[..., 1]]))


# ── algorithms


@pytest.mark.parametrize("name", ALGORITHMS)
@pytest.mark.parametrize("step", [(3, 0), (0, 2), (-2, 0)])
def test_a_moving_square_moves_that_way(name: str, step: tuple[int, int]):
    clip = moving_square(2, 96, 64, step=step)
    (flow,) = derive_flow(clip, get_flow_method(name).start(), None)
    assert flow.shape == (64, 96, 2)
    assert flow.dtype == np.float32
    inside = np.median(flow[16:28, 16:28].reshape(-1, 2), axis=0)
    np.testing.assert_allclose(inside, step, atol=0.5)
    assert np.abs(flow[48:, 60:]).max() < 0.3


@pytest.mark.parametrize("name", ALGORITHMS)
def test_the_mirrored_video_has_the_mirrored_flow(name: str):
    """Ties the flip of the view to what the algorithm would have seen."""
    clip = moving_square(2, 96, 64)
    estimate = get_flow_method(name).start()
    (flow,) = derive_flow(clip, estimate, None)
    (other,) = derive_flow(np.ascontiguousarray(clip[:, :, ::-1]), estimate, None)
    view = VIEWS["flow"]
    expected = view.flip(quantise(flow, 10)[None])[0].astype(int)
    assert np.abs(quantise(other, 10) - expected).mean() < 2


def test_flow_is_in_pixels_of_the_working_size():
    wide = moving_square(1, 240, 128)[0].repeat(2, axis=0).repeat(2, axis=1)
    large = np.stack([wide[:, 32 : 32 + 384], wide[:, 16 : 16 + 384]])  # moves by 16 of 256
    small = np.stack([cv2.resize(f, (192, 128), interpolation=cv2.INTER_AREA) for f in large])
    estimate = get_flow_method("dis").start()
    for video, size, expected in (
        (large, None, 16),
        (large, 128, 8),
        (large, 64, 4),
        (small, 64, 4),
        (small, 128, 8),
        (small, 256, 16),  # not enlarged, and yet in pixels of 256
    ):
        (flow,) = derive_flow(video, estimate, size)
        assert min(flow.shape[:2]) == min(size or 256, video.shape[1])
        centre = flow[flow.shape[0] // 4 : -flow.shape[0] // 4, flow.shape[1] // 4 :]
        np.testing.assert_allclose(np.median(centre[..., 0]), expected, rtol=0.05)
        np.testing.assert_allclose(np.median(centre[..., 1]), 0, atol=0.1)


def test_n_frames_have_n_minus_one_of_flow():
    estimate = get_flow_method("dis").start()
    clip = moving_square(5)
    assert len(list(derive_flow(clip, estimate, None))) == 5 - VIEWS["flow"].lag
    assert list(derive_flow(clip[:1], estimate, None)) == []


@pytest.mark.parametrize("name", ALGORITHMS)
def test_flow_does_not_depend_on_what_was_computed_before(name: str):
    clip = moving_square(2, 96, 64)
    estimate = get_flow_method(name).start()
    (first,) = derive_flow(clip, estimate, None)
    list(derive_flow(moving_square(3, 40, 30, step=(0, 1)), estimate, None))
    (again,) = derive_flow(clip, estimate, None)
    np.testing.assert_array_equal(first, again)


def test_an_unknown_method_is_one_sentence():
    with pytest.raises(VidsslError, match=r"no flow method named 'tv-l1' \(did you mean tvl1\?\)"):
        get_flow_method("tv-l1")
