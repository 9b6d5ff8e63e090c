"""BlazePose: from the answers of its networks to frames of pose and mask, by a stand-in."""

from __future__ import annotations

import math
import zipfile
from pathlib import Path

import numpy as np
import pytest
from stand_in_blazepose import CIRCLE, HIPS, LEFT_WRIST, RIGHT_WRIST, StandIn, draw_figure
from video_files import write_video

from vidssl.base.errors import MissingInput, UsageError, VidsslError
from vidssl.base.held_stderr import HeldStderr
from vidssl.extraction import pool
from vidssl.extraction.process_pool import process_video
from vidssl.shards import ShardReader
from vidssl.stages import extract_view
from vidssl.stages.extract_view import ExtractView
from vidssl.views import choose_deriver, get_view
from vidssl.views.blazepose import interpreter, weights
from vidssl.views.blazepose.derivers import BlazePoseConfig, BlazePoseJoints, BlazePoseMask
from vidssl.views.blazepose.detector import anchors, average_overlapping
from vidssl.views.blazepose.drawing import draw_joints
from vidssl.views.blazepose.landmarks import refined
from vidssl.views.blazepose.regions import Region, overlap, region_of
from vidssl.views.pose import JOINTS
from vidssl.workspace.workspace import Workspace

LEFT, RIGHT = JOINTS.index("left_wrist"), JOINTS.index("right_wrist")


@pytest.fixture
def stand_in(monkeypatch: pytest.MonkeyPatch) -> type[StandIn]:
    monkeypatch.setattr(interpreter, "make_interpreter", StandIn)
    monkeypatch.setattr("vidssl.views.blazepose.derivers.require_interpreter", lambda: None)
    StandIn.runs.clear()
    return StandIn


@pytest.fixture
def task(tmp_path: Path) -> Path:
    return write_task(tmp_path / "pose.task")


def write_task(path: Path, detector: bytes = b"detector", landmarks: bytes = b"landmarks") -> Path:
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("pose_detector.tflite", detector)
        file.writestr("pose_landmarks_detector.tflite", landmarks)
    return path


def figure(x: float = 160, y: float = 120, angle: float = 0.0, size=(320, 240)) -> np.ndarray:
    """Draws a figure whose hips are at (x, y), turned clockwise by `angle`."""
    places = {HIPS: (0, 0), CIRCLE: (0, -60), LEFT_WRIST: (40, -20), RIGHT_WRIST: (-40, -20)}
    cos, sin = math.cos(angle), math.sin(angle)
    turned = {c: (x + cos * a - sin * b, y + sin * a + cos * b) for c, (a, b) in places.items()}
    return draw_figure(size, turned)


def peak(frame: np.ndarray, joint: int) -> tuple[int, int]:
    row, column = np.unravel_index(int(frame[..., joint].argmax()), frame.shape[:2])
    return int(column), int(row)


@pytest.mark.parametrize("angle", [0.0, 0.6, -1.2, math.pi])
def test_joints_and_mask_lie_where_they_are_however_a_person_is_turned(stand_in, task, angle):
    deriver = BlazePoseJoints(BlazePoseConfig(weights=str(task)))
    frame = figure(150, 110, angle)
    (made,) = deriver.derive_together(("pose", "mask"), [frame], 1, None)
    assert made["pose"].shape == (240, 320, 17) and made["mask"].shape == (240, 320, 1)
    for joint, (across, down) in {LEFT: (40, -20), RIGHT: (-40, -20)}.items():
        x = 150 + math.cos(angle) * across - math.sin(angle) * down
        y = 110 + math.sin(angle) * across + math.cos(angle) * down
        found = peak(made["pose"], joint)
        assert math.dist(found, (x, y)) < 2.5
        assert made["pose"][..., joint].max() > 230
    assert made["pose"][..., JOINTS.index("nose")].max() == 0, "a joint that is not to be seen"
    person = frame[..., 2] > 0
    mask = made["mask"][..., 0] > 127
    assert (person & mask).sum() / (person | mask).sum() > 0.7


def test_each_view_alone_is_what_both_together_are(stand_in, task):
    config = BlazePoseConfig(weights=str(task))
    film = [figure(100 + 4 * number, 120, 0.1 * number) for number in range(5)]
    both = list(BlazePoseJoints(config).derive_together(("pose", "mask"), film, 2, 96))
    for deriver, view in ((BlazePoseJoints(config), "pose"), (BlazePoseMask(config), "mask")):
        alone = list(deriver.derive(iter(film), 2, 96))
        assert len(alone) == len(both) == 3
        for single, together in zip(alone, both, strict=True):
            np.testing.assert_array_equal(single, together[view])


def test_a_person_is_followed_and_detected_again_when_lost(stand_in, task):
    deriver = BlazePoseJoints(BlazePoseConfig(weights=str(task)))
    film = [figure(100), figure(104), np.zeros((240, 320, 3), np.uint8), figure(220), figure(222)]
    made = list(deriver.derive(film, 1, None))
    assert stand_in.runs == [
        "detector", "landmarks",  # found
        "landmarks",  # followed
        "landmarks", "detector",  # lost, and nobody is there
        "detector", "landmarks",  # found again
        "landmarks",
    ]  # fmt: skip
    assert made[2].max() == 0
    assert abs(peak(made[3], LEFT)[0] - 260) <= 2


def test_a_film_does_not_begin_where_another_ended(stand_in, task):
    deriver = BlazePoseJoints(BlazePoseConfig(weights=str(task)))
    first = list(deriver.derive([figure(100)], 1, None))
    list(deriver.derive([figure(220)], 1, None))
    np.testing.assert_array_equal(first, list(deriver.derive([figure(100)], 1, None)))


def test_anchors_are_those_of_the_network():
    places = anchors()
    assert places.shape == (2254, 2)
    np.testing.assert_allclose(places[:3], [[0.5 / 28] * 2, [0.5 / 28] * 2, [1.5 / 28, 0.5 / 28]])
    np.testing.assert_allclose(places[-6:], [[6.5 / 7] * 2] * 6)


def test_answers_that_overlap_are_one_person_and_their_mean_is_weighted():
    numbers = np.zeros((3, 12))
    numbers[0, :4] = 0.1, 0.1, 0.3, 0.3
    numbers[1, :4] = 0.12, 0.1, 0.32, 0.3
    numbers[2, :4] = 0.6, 0.6, 0.9, 0.9
    people = average_overlapping(np.array([0.6, 0.9, 0.7]), numbers)
    assert [score for score, _ in people] == [0.9, 0.7]
    assert people[0][1][0] == pytest.approx((0.6 * 0.1 + 0.9 * 0.12) / 1.5)
    assert average_overlapping(np.zeros(0), np.zeros((0, 12))) == []


def test_regions():
    region = region_of((100, 100), (100, 60))
    assert region == Region(100, 100, 100, 0)
    assert region_of((100, 100), (140, 100)).angle == pytest.approx(math.pi / 2)
    assert region_of((5, 5), (5, 5)) is None and region_of((5, 5), (math.nan, 5)) is None
    turned = region_of((100, 100), (140, 100))
    up = turned.points_in_frame(np.array([[0.5, 0.0]]))[0]
    np.testing.assert_allclose(up, (150, 100), atol=1e-9)
    corner = turned.to_frame(50) @ (-0.5, -0.5, 1)  # of the first pixel, as an index
    np.testing.assert_allclose(corner + 0.5, turned.points_in_frame(np.zeros((1, 2)))[0])
    assert overlap(region, region) == 1 and overlap(region, Region(300, 100, 100, 0)) == 0


def test_a_point_moves_to_its_maps_centre_only_if_the_map_is_sure():
    maps = np.zeros((64, 64, 2))
    maps[20, 31:34, 0] = 0.9
    maps[20, 33, 1] = 0.4
    moved = refined(np.array([[30.5 / 64, 20.5 / 64]] * 2), maps)
    np.testing.assert_allclose(moved[0], (32 / 64, 20 / 64))
    np.testing.assert_allclose(moved[1], (30.5 / 64, 20.5 / 64))


def test_nobody_is_a_black_frame():
    assert draw_joints([], 1.0, (8, 6), 1.0).shape == (6, 8, 17)
    assert draw_joints([], 1.0, (8, 6), 1.0).max() == 0


# ── weights


def test_weights_from_a_task_file_a_folder_two_files_and_a_wheel_are_the_same(tmp_path, task):
    folder = tmp_path / "networks"
    folder.mkdir()
    (folder / "pose_detection.tflite").write_bytes(b"detector")
    (folder / "pose_landmark_full.tflite").write_bytes(b"landmarks")
    wheel = tmp_path / "mediapipe.whl"
    with zipfile.ZipFile(wheel, "w", zipfile.ZIP_DEFLATED) as file:
        for name in (
            "pose_detection/pose_detection.tflite",
            "pose_landmark/pose_landmark_full.tflite",
        ):
            content = b"detector" if "detection" in name else b"landmarks"
            file.writestr(f"mediapipe/modules/{name}", content)
    both = ",".join(str(path) for path in sorted(folder.iterdir(), reverse=True))
    found = {weights.find_weights(str(given)).digest for given in (task, folder, wheel, both)}
    assert len(found) == 1
    assert weights.find_weights(both).detector == b"detector"


@pytest.mark.parametrize("content", [b"", b"no zip", None])
def test_a_file_that_holds_no_weights_is_one_sentence(tmp_path, content):
    path = tmp_path / "other.task"
    if content is None:
        zipfile.ZipFile(path, "w").close()
    else:
        path.write_bytes(content)
    with pytest.raises(VidsslError, match=r"other\.task holds no weights of blazepose: name"):
        weights.find_weights(str(path))
    with pytest.raises(MissingInput, match="there is no file of weights nowhere"):
        weights.find_weights("nowhere")


def test_a_network_of_another_kind_is_refused(stand_in, tmp_path):
    damaged = write_task(tmp_path / "a.task", b"damaged")
    with pytest.raises(VidsslError, match=r"a\.task cannot be used: it is no network"):
        BlazePoseJoints(BlazePoseConfig(weights=str(damaged)))
    swapped = write_task(tmp_path / "b.task", b"landmarks", b"detector")
    with pytest.raises(VidsslError, match=r"b\.task is another network than BlazePose's"):
        BlazePoseJoints(BlazePoseConfig(weights=str(swapped)))


def test_without_weights_the_sentence_names_the_address(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    with pytest.raises(MissingInput, match=r"download https://.*task to .*hub/checkpoints"):
        weights.find_weights("")
    monkeypatch.setenv("TORCH_HOME", "~/torch")
    import torch

    assert str(weights.cache_folder()) == str(Path(torch.hub.get_dir()) / "checkpoints")


# ── which network is chosen


def chosen(view: str, device: str, model: str | None = None, file: str = "") -> str:
    return choose_deriver.find_deriver(get_view(view), model, device, file).__name__


def test_the_default_is_blazepose_on_a_cpu_where_all_it_needs_is_there(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr(choose_deriver, "is_installed", lambda module: True)
    assert chosen("pose", "cpu") == "KeypointDeriver", "its weights are not there"
    weights.cache_folder().mkdir(parents=True)
    write_task(weights.cache_folder() / "pose_landmarker_lite.task")
    assert chosen("pose", "cpu") == "BlazePoseJoints"
    assert chosen("mask", "cpu") == "BlazePoseMask"
    assert chosen("pose", "cuda") == "KeypointDeriver"
    assert chosen("mask", "cuda", "blazepose") == "BlazePoseMask"
    assert chosen("mask", "cpu", file="maskrcnn.pth") == "MaskDeriver"
    assert chosen("mask", "cuda", file="full.task") == "BlazePoseMask"
    monkeypatch.setattr(choose_deriver, "is_installed", lambda module: False)
    assert chosen("mask", "cpu") == "MaskDeriver"


def test_the_names_of_models_are_those_that_the_derivers_know():
    for view in (get_view("pose"), get_view("mask")):
        assert set(view.deriver().models) == set(view.models) - {"blazepose"}


def test_several_views_take_one_network_that_makes_them_all():
    with pytest.raises(UsageError, match="there is no model keypointrcnn_resnet50_fpn"):
        choose_deriver.find_derivers(("pose", "mask"), "keypointrcnn_resnet50_fpn", "cpu")
    with pytest.raises(UsageError, match="names a view twice"):
        extract_view.view_names("pose,pose")
    assert extract_view.view_names("mask, pose") == ("pose", "mask")


PLUGIN = """
from dataclasses import dataclass
from vidssl.views.deriver import Deriver

@dataclass(frozen=True)
class Config:
    model: str = "{model}"

class Mine(Deriver):
    Config = Config
    def derive(self, frames, stride, size):
        yield from ()

DERIVERS = {{"{view}": {{"mine": Mine}}}}
"""


def test_a_file_of_the_users_offers_another_network_for_pose(tmp_path, monkeypatch):
    path = tmp_path / "mine.py"
    path.write_text(PLUGIN.format(model="mine", view="pose"))
    monkeypatch.setenv("VIDSSL_VIEWS", str(path))
    assert chosen("pose", "cpu", "mine") == "Mine"
    assert chosen("pose", "cuda") == "KeypointDeriver"
    with pytest.raises(UsageError, match="there is no model mine for this view"):
        chosen("mask", "cpu", "mine")
    deriver, config = choose_deriver.recall_deriver("pose", {"model": "mine"}, "", "cpu")
    assert deriver.__name__ == "Mine" and config.model == "mine"


@pytest.mark.parametrize(
    ("model", "view", "sentence"),
    [
        ("other", "pose", 'needs a field model: str = "mine"'),
        ("mine", "pse", r"names a view 'pse' \(did you mean pose\?\)"),
    ],
)
def test_an_offer_of_another_form_is_one_sentence(tmp_path, monkeypatch, model, view, sentence):
    path = tmp_path / "mine.py"
    path.write_text(PLUGIN.format(model=model, view=view))
    monkeypatch.setenv("VIDSSL_VIEWS", str(path))
    with pytest.raises(UsageError, match=sentence):
        chosen("pose", "cpu")


# ── the stage


class Said:
    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, text: str) -> None:
        self.lines.append(text)

    def task(self, *arguments, **options):
        return extract_view.SILENT.task(*arguments, **options)


def test_both_views_are_one_artifact_whose_recipe_names_the_model(
    stand_in, task, tmp_path, monkeypatch
):
    # In this process: the stand-in is not in others.
    def in_this_process(sources, function, workers, bounded):
        for source in sources:
            yield source, process_video(function, source)

    monkeypatch.setattr(pool, "process_videos", in_this_process)
    monkeypatch.setattr(extract_view, "choose_device", lambda wanted: wanted or "cpu")
    extract_view.derive_in_worker.__globals__["_deriver"].cache_clear()
    write_video(tmp_path / "videos/a.mp4", np.stack([figure(100 + 3 * n) for n in range(5)]))
    settings = (("model", "blazepose"), ("weights", str(task)), ("people", "2"))
    options = ExtractView(tmp_path / "videos", "mask,pose", settings, device="cuda")
    workspace, said = Workspace(tmp_path / "workspace"), Said()
    result = extract_view.run(workspace, options, said)
    assert said.lines[0] == "blazepose runs on the CPU, not on cuda"
    assert result.quarantined == [] and result.artifact.label == "view/pose-mask/v001"
    reader = ShardReader(result.artifact.path)
    assert set(reader.views) == {"pose", "mask"}
    for view, shape in (("pose", (5, 96, 128, 17)), ("mask", (5, 96, 128, 1))):
        derivation = reader.views[view]["derivation"]
        assert derivation["model"] == "blazepose" and derivation["people"] == 2
        assert derivation["weights"].startswith("sha256:")
        frames = reader.frames(view, 0, range(5))
        assert frames.shape == shape and frames.max() > 100
        deriver, config = choose_deriver.recall_deriver(view, derivation, str(task), "cuda")
        assert config.people == 2 and deriver(config).config == config
    assert str(tmp_path) not in str(result.artifact.recipe["views"])
    other = write_task(tmp_path / "other.task", b"detector", b"other")
    with pytest.raises(VidsslError, match=r"other\.task holds other weights of blazepose"):
        choose_deriver.recall_deriver("pose", derivation, str(other), "cpu")


@pytest.mark.parametrize("setting", ["people=0", "spread=0", "detector_size=8"])
def test_settings_that_make_no_sense(setting, tmp_path):
    name, value = setting.split("=")
    with pytest.raises(UsageError, match=r"makes no sense|too small"):
        BlazePoseJoints.describe(BlazePoseConfig(**{name: int(value)}), "cpu")


# ── what libraries print


def test_what_is_printed_below_python_is_held_and_only_named_lines_are_dropped(capfd):
    import os

    with HeldStderr() as said:
        os.write(2, b"INFO: a delegate was made\nWARNING: something else\n")
        said.forget_lines("INFO:")
    assert capfd.readouterr().err == "WARNING: something else\n"
