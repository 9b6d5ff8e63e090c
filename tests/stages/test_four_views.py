"""Four views from video files to co-training and evaluation, on the command line."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from cli_workspace import vidssl
from small_networks import random_weights
from video_files import moving_square, write_video

from vidssl.shards import ShardReader
from vidssl.workspace.workspace import Workspace

MASK = "lraspp_mobilenet_v3_large"
TINY = ["--recipe", "cpu", "--epochs", 2, "--batch-size", 2]
TINY += [w for s in ("size=32", "frames=2", "blocks=4", "predict=1") for w in ("--set", s)]


@pytest.fixture(scope="module")
def packed(tmp_path_factory) -> Path:
    """A workspace with a pack of rgb, flow, pose and mask of four clips of two classes."""
    folder = tmp_path_factory.mktemp("four")
    for number in range(4):
        clip = moving_square(6, 64, 48, ((3, 0), (0, 3))[number % 2], seed=number)
        write_video(folder / "videos" / "ab"[number % 2] / f"{number}.mp4", clip)
    workspace, videos = folder / "workspace", folder / "videos"
    pose = random_weights(folder, "keypointrcnn_resnet50_fpn")
    mask = random_weights(folder, MASK, num_classes=21)
    common = ["--detector-size", 48, "--stored-size", 32, "--workers", 1]
    vidssl(
        "extract-view", videos, "--view", "pose", "--weights", pose, "--stride", 4,
        "--set", "people=1", "--min-score", 0.1, *common, workspace=workspace,
    )  # fmt: skip
    vidssl(
        "extract-view", videos, "--view", "mask", "--model", MASK, "--weights", mask, *common,
        workspace=workspace,
    )  # fmt: skip
    vidssl("extract-flow", videos, "--workers", 1, workspace=workspace)
    vidssl("pack", videos, "--workers", 1, "--size", 48, workspace=workspace)
    return workspace


def test_a_pack_of_four_views(packed):
    (artifact,) = Workspace(packed).artifacts("pack")
    reader = ShardReader(artifact.path)
    assert set(reader.views) == {"rgb", "flow", "pose", "mask"}
    assert reader.frame_count("pose").tolist() == [6] * 4 == reader.frame_count("rgb").tolist()
    pose = reader.frames("pose", 0, range(6))
    assert pose.shape == (6, 32, 43, 17) and pose.any()
    between = (pose[0].astype(float) + pose[4]) / 2
    assert np.abs(pose[2] - between).max() <= 0.5


def test_cocon_on_four_views_and_what_is_learnt_is_evaluated(packed):
    views = ["--views", "rgb,flow,pose,mask"]
    vidssl("cotrain", "--method", "cocon", *views, *TINY, workspace=packed)
    (checkpoint,) = Workspace(packed).artifacts("checkpoint", "rgb-flow-pose-mask-cocon")
    row = (checkpoint.path / "log.csv").read_text().splitlines()[0].split(",")
    assert {"top1_pose", "top1_mask", "sim", "sync"} <= set(row)
    for stream in ("pose", "mask"):
        probed = vidssl("probe", "--stream", stream, "--json", workspace=packed).json
        assert probed["artifact"].startswith("probe/rgb-flow-pose-mask-cocon")
    found = vidssl("retrieve", "--evaluate", "--stream", "rgb,pose", "--json", workspace=packed)
    assert found.json["results"]["features"] == (
        "checkpoint/rgb-flow-pose-mask-cocon/v001 (rgb + pose)"
    )
    vidssl("verify", workspace=packed)
    shown = vidssl("status", "--tree", workspace=packed).out
    assert "view/pose/v001  4 videos, pose" in shown and "stale" not in shown


def test_cocon_goes_on_from_the_newest_of_each_view(packed):
    """By the published policy, in which every view is cropped where most is to be seen of it."""
    for view in ("pose", "mask"):
        vidssl("pretrain", "--stream", view, "--method", "cpc", *TINY, workspace=packed)
    words = ["cotrain", "--method", "cocon", "--views", "pose,mask", "--init-from", "newest"]
    vidssl(*words, *TINY, "--set", "policy=cocon", workspace=packed)
    found = Workspace(packed)
    (made,) = found.artifacts("checkpoint", "pose-mask-cocon")
    starts = {found.by_digest(made.parents[role]).label for role in ("init", "init2")}
    assert starts == {"checkpoint/pose-cpc/v001", "checkpoint/mask-cpc/v001"}


def test_a_query_is_shown_as_the_gallery_was(packed):
    """A packed video finds itself at similarity 1, through network, stride and codec."""
    single = ["--stream", "mask", "--method", "infonce", "--recipe", "cpu", "--epochs", 1]
    small = ["--batch-size", 2, "--set", "frames=4", "--set", "size=32", "--set", "queue=2"]
    vidssl("pretrain", *single, *small, workspace=packed)
    video = packed.parent / "videos/a/0.mp4"
    query = ["retrieve", video, "--stream", "mask", "-c", "mask-infonce", "--keep-self", "--json"]
    weights = packed.parent / f"{MASK}.pth"
    found = vidssl(*query, "--weights", f"mask={weights}", workspace=packed).json
    first = found["answers"][0]["neighbours"][0]
    assert first["video"] == "a/0.mp4" and first["similarity"] == pytest.approx(1, abs=1e-4)
    sheet = packed / "sheet.png"
    shown = [*query[:-1], "--sheet", sheet, "--weights", f"mask={weights}"]
    vidssl(*shown, workspace=packed)
    assert cv2.imread(str(sheet)).shape[0] > 200
    said = vidssl(*query, "--weights", f"pose={weights}", workspace=packed, code=2).err
    assert "no pose is compared" in said
    said = vidssl(*query, "--weights", weights, workspace=packed, code=2).err
    assert "--weights takes VIEW=FILE" in said


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--view", "depth"], "there is no view named 'depth'"),
        (["--view", "pose", "--things"], "pose has no setting things"),
        (["--view", "pose", "--weights", "nowhere.pth"], "there is no file of weights nowhere.pth"),
        (["--view", "flow"], "it is made by: vidssl extract-flow VIDEOS"),
    ],
)
def test_what_makes_no_sense_is_one_sentence(packed, words, said):
    result = vidssl("extract-view", packed.parent / "videos", *words, workspace=packed, code=None)
    assert result.code in (1, 2)
    assert said in " ".join(result.err.split())
