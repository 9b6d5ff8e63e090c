"""flow-diff: errors in pixels, whatever the storage; and the published form of flow."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from cli_workspace import vidssl
from video_files import moving_square, write_video

from vidssl.base.errors import UsageError, VidsslError
from vidssl.shards import DamagedShard, ShardReader, ShardWriter, VideoRecord
from vidssl.stages import extract_flow, flow_diff
from vidssl.stages.flow_diff import FlowDiffOptions
from vidssl.views import get_view
from vidssl.views.flow import map_name, quantise, read_pixels, store_pixels, to_published
from vidssl.workspace.artifacts import Artifact
from vidssl.workspace.workspace import Workspace

HEIGHT, WIDTH, FRAMES = 24, 32, 5


def smooth_flow(seed: int, frames: int = FRAMES, size: tuple[int, int] = (WIDTH, HEIGHT)):
    draw = np.random.default_rng(seed)
    coarse = draw.normal(0, 4, (frames, 4, 5, 2)).astype(np.float32)
    return np.stack([cv2.resize(one, size, interpolation=cv2.INTER_LINEAR) for one in coarse])


def make(
    workspace: Workspace,
    name: str,
    flows: dict[str, np.ndarray],
    codec: str = "png",
    bound: float = 20.0,
    working: int | None = HEIGHT,
) -> Artifact:
    """Publishes flow in pixels as an artifact."""
    params = {
        "codec": codec, "bound": bound, "map": map_name(codec), "working_size": working,
        "method": "dis", "stored_size": None,
    }  # fmt: skip
    with workspace.open_run("flow", name, {"flow": params, "of": name}, {}) as run:
        with ShardWriter(run.folder, {"flow": params}) as writer:
            for video, flow in flows.items():
                blobs = [store_pixels(one, codec, bound) for one in flow]
                record = VideoRecord(f"{video}#0", video, 25.0, len(flow) + 1, 320, 240, "")
                writer.add(record, {"flow": blobs})
            digest = writer.finish()
        return run.publish(digest, {"videos": len(flows), "views": {"flow": params}})


@pytest.fixture
def workspace(tmp_path) -> Workspace:
    return Workspace(tmp_path / "workspace")


# ── the published form ───────────────────────────────────────────────────────────────────────


def test_coclrs_bytes_are_the_published_scripts():
    flow = smooth_flow(0)[0]
    flow[0, 0] = [30, -30]
    scaled = np.clip(np.round((flow + 20) * 255 / 40), 0, 255)
    picture = np.concatenate([scaled, np.full((HEIGHT, WIDTH, 1), 128)], axis=2)
    _, published = cv2.imencode(".jpg", picture.astype(np.uint8), [cv2.IMWRITE_JPEG_QUALITY, 100])
    assert store_pixels(flow, "coclr", 20) == published.tobytes()


@pytest.mark.parametrize(
    ("codec", "error"), [("png", 0.08), ("webp", 0.08), ("jpeg95", 0.2), ("coclr", 0.7)]
)
def test_pixels_come_back_whatever_the_storage(codec, error):
    flow = smooth_flow(1)[0]
    found = read_pixels(store_pixels(flow, codec, 20), codec, 20)
    assert found.dtype == np.float32 and found.shape == flow.shape
    assert np.linalg.norm(found - flow, axis=-1).mean() < error


def test_still_is_still_but_not_as_published():
    still = np.zeros((16, 16, 2), np.float32)
    assert not read_pixels(store_pixels(still, "jpeg95", 20), "jpeg95", 20).any()
    published = read_pixels(store_pixels(still, "coclr", 20), "coclr", 20)
    np.testing.assert_allclose(published, 20 / 255, atol=1e-5)  # 128, and not 127.5


def test_frames_stored_as_published_are_read_in_our_levels():
    view = get_view("flow")
    flow = smooth_flow(2)[0]
    ours = view.decode(store_pixels(flow, "coclr", 20), "coclr").astype(int)
    assert np.abs(ours - quantise(flow, 20)).mean() < 3
    again = view.decode(view.encode(ours.astype(np.uint8), "coclr"), "coclr")
    assert np.abs(again.astype(int) - ours).mean() < 3
    with pytest.raises(ValueError, match="grey"):
        view.decode(view.encode(ours.astype(np.uint8), "png"), "coclr")
    with pytest.raises(UsageError, match="no codec named 'coclr'"):
        get_view("rgb").check_codec("coclr")


def test_published_levels_survive_ours():
    """But for 127, which means −0.08 px and becomes 128, +0.08 px: ours has one zero between."""
    import torch

    levels = np.arange(256, dtype=np.float32)
    ours = torch.from_numpy(quantise(levels * 2 / 255 - 1, 1.0))
    back = to_published(ours.expand(1, 2, 1, 1, 256))[0, 0, 0, 0].numpy()
    assert np.flatnonzero(back != levels).tolist() == [127]
    assert back[127] == 128


def test_extract_flow_stores_it_and_records_its_map(tmp_path, workspace):
    write_video(tmp_path / "v/a.mp4", moving_square(4, 96, 64))
    config = extract_flow.ExtractFlow(tmp_path / "v", size=None, stored=None, bound=20, workers=1)
    exact = extract_flow.run(workspace, replace(config, codec="png")).artifact
    published = extract_flow.run(workspace, replace(config, codec="coclr")).artifact
    reader = ShardReader(published.path)
    assert reader.views["flow"]["map"] == "round((flow+bound)*255/(2*bound))"
    picture = cv2.imdecode(np.frombuffer(reader.read("flow", 0, [1])[0], np.uint8), -1)
    assert picture.shape == (64, 96, 3) and abs(float(picture[..., 2].mean()) - 128) < 1
    inside = reader.flow(0, [1])[0, 20:26, 20:26]
    np.testing.assert_allclose(np.median(inside.reshape(-1, 2), axis=0), [3, 0], atol=0.5)
    found = flow_diff.run(workspace, FlowDiffOptions(exact.label, published.label))
    assert 0 < found.mean < 0.5 and found.motion[0] == pytest.approx(found.motion[1], abs=0.2)
    assert reader.frames("flow", 0, [0, 1]).shape == (2, 64, 96, 2)


# ── errors ───────────────────────────────────────────────────────────────────────────────────


def test_figures_are_those_of_all_pixels(workspace):
    flows = {f"v{n}": smooth_flow(n) for n in range(3)}
    other = {name: flow + 0.3 * smooth_flow(9 + n) for n, (name, flow) in enumerate(flows.items())}
    first, second = make(workspace, "a", flows), make(workspace, "b", other)
    found = flow_diff.run(workspace, FlowDiffOptions("a", second.label))
    assert (found.first, found.second) == (first.label, second.label)
    a, b = (np.stack([ShardReader(x.path).flow(v, range(FRAMES)) for v in range(3)])
            for x in (first, second))  # fmt: skip
    error = np.linalg.norm(a - b, axis=-1)
    assert (found.videos, found.frames, found.pixels) == (3, 3 * FRAMES, error.size)
    assert found.mean == pytest.approx(error.mean(), rel=1e-4)
    assert found.largest == pytest.approx(error.max(), rel=1e-4)
    for share, value in found.quantiles.items():
        assert value == pytest.approx(np.quantile(error, share), abs=0.02)
    for limit, share in found.within.items():
        assert share == pytest.approx((error < limit).mean(), abs=0.01)
    lengths = [np.linalg.norm(x, axis=-1).mean() for x in (a, b)]
    assert found.motion == pytest.approx(lengths, rel=1e-4)
    assert found.worst[0][1] == pytest.approx(error.mean((1, 2, 3)).max(), rel=1e-4)
    assert found.notes == []


def test_flow_differs_in_nothing_from_itself(workspace):
    make(workspace, "a", {"v": smooth_flow(0)})
    found = flow_diff.run(workspace, FlowDiffOptions("a", "flow/a/v001", every=2))
    assert found.mean == found.largest == found.quantiles[0.99] == 0
    assert found.frames == 3 and set(found.within.values()) == {1.0}


def test_units_and_sizes_are_those_of_the_first(workspace):
    """The same motion at twice the working size, stored twice as large."""
    flow = smooth_flow(3)
    large = np.stack([2 * cv2.resize(f, None, fx=2, fy=2) for f in flow])
    make(workspace, "a", {"v": flow})
    make(workspace, "b", {"v": large}, bound=40, working=2 * HEIGHT)
    found = flow_diff.run(workspace, FlowDiffOptions("a", "b"))
    assert found.mean < 0.15
    assert found.notes == [
        "1 videos are stored at other sizes; the second was resized",
        "working sizes are 24 and 48; errors are in pixels of the first",
    ]
    back = flow_diff.run(workspace, FlowDiffOptions("b", "a"))
    assert back.motion[0] == pytest.approx(2 * found.motion[0], rel=0.02)
    make(workspace, "native", {"v": 10 * flow}, bound=200, working=None)  # of 240 pixels
    found = flow_diff.run(workspace, FlowDiffOptions("a", "native"))
    assert found.mean < 0.15


def test_what_is_left_out_is_said(workspace):
    make(workspace, "a", {"v": smooth_flow(0), "only here": smooth_flow(1)})
    make(workspace, "b", {"v": smooth_flow(0)[:3]})
    found = flow_diff.run(workspace, FlowDiffOptions("a", "b"))
    assert (found.frames, found.mean) == (3, 0)
    assert found.notes == [
        "1 videos are in one of them only",
        "1 videos have more frames in one of them; the rest was left out",
    ]


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (FlowDiffOptions("a", "c"), "there is no flow named c"),
        (FlowDiffOptions("a", "other"), "flow/a/v001 and flow/other/v001 have no video in common"),
        (FlowDiffOptions("a", "pack/main/v001"), "there is no pack named pack/main/v001"),
        (FlowDiffOptions("a", "a", every=0), "--every 0 makes no sense"),
    ],
)
def test_what_cannot_be_compared_is_one_sentence(workspace, options, sentence):
    make(workspace, "a", {"v": smooth_flow(0)})
    make(workspace, "other", {"w": smooth_flow(0)})
    with pytest.raises(VidsslError, match=sentence):
        flow_diff.run(workspace, options)


def test_damage_is_named(workspace):
    artifact = make(workspace, "a", {"v": smooth_flow(0)})
    path = Path(artifact.path) / "shard-0000.h5"
    data = bytearray(path.read_bytes())
    at = data.find(b"IDAT") + 20
    data[at] ^= 0xFF
    path.write_bytes(data)
    with pytest.raises(DamagedShard, match="frame 0 of view flow of video v#0"):
        flow_diff.run(workspace, FlowDiffOptions("a", "a"))


def test_on_the_command_line(workspace):
    make(workspace, "a", {"v": smooth_flow(0)})
    make(workspace, "b", {"v": smooth_flow(0) + np.float32(0.6)}, codec="coclr")
    found = vidssl("flow-diff", "a", "b", "--json", workspace=workspace.root).json
    assert found["mean"] == pytest.approx(0.85, abs=0.15)
    shown = vidssl("flow-diff", "a", "b", workspace=workspace.root).out
    assert "flow/a/v001 against flow/b/v001" in shown and "median" in shown and "5 frames" in shown
    one, other = found["motion"]
    assert f"{one:.2f} px in flow/a/v001, {other:.2f} in flow/b/v001" in " ".join(shown.split())
