"""Made-up clips: deterministic, balanced, resumable, and told apart by motion alone."""

import csv

import av
import numpy as np
import pytest
from watching import Watching

from vidssl.base.errors import VidsslError
from vidssl.dataset import synthetic, synthetic_scene


def decode(path):
    with av.open(str(path)) as container:
        return np.stack([f.to_ndarray(format="rgb24") for f in container.decode(video=0)])


@pytest.mark.parametrize("motion", synthetic_scene.MOTIONS)
def test_render_is_determined_by_motion_and_seed(motion):
    clip = synthetic_scene.render_clip(motion, 3, frames=8, size=(48, 40))
    assert clip.shape == (8, 40, 48, 3) and clip.dtype == np.uint8
    assert np.array_equal(clip, synthetic_scene.render_clip(motion, 3, frames=8, size=(48, 40)))
    assert not np.array_equal(clip, synthetic_scene.render_clip(motion, 4, frames=8, size=(48, 40)))
    assert np.abs(np.diff(clip.astype(float), axis=0)).mean(axis=(1, 2, 3)).min() > 0.05, (
        "a frame stands still"
    )


def test_unknown_motion_is_refused():
    with pytest.raises(ValueError, match="hovers"):
        synthetic_scene.render_clip("hovers", 0)


def test_one_seed_gives_every_motion_the_same_appearance():
    """The frame's corners hold background alone; most colours there must agree."""
    corners = [
        synthetic_scene.render_clip(m, 5, frames=2)[0, :4, :4].astype(int)
        for m in synthetic_scene.MOTIONS
    ]
    for other in corners[1:]:
        assert np.abs(other - corners[0]).max() <= 2


def test_plan_is_balanced_and_test_scenes_are_shown_in_every_motion():
    plans = list(synthetic.plan_clips(60, seed=1))
    for split, count in (("train", 4), ("test", 6)):
        for motion in synthetic_scene.MOTIONS:
            assert abs(sum(p.split == split and p.motion == motion for p in plans) - count) <= 1
    train, test = ([p for p in plans if p.split == split] for split in ("train", "test"))
    assert len({p.path for p in plans}) == 60
    assert len({p.seed for p in train}) == len({p.scene for p in train}) == len(train) == 24
    scenes = {p.scene: {q.motion for q in test if q.seed == p.seed} for p in test}
    assert len(scenes) == 6 and all(
        shown == set(synthetic_scene.MOTIONS) for shown in scenes.values()
    )
    assert {p.seed for p in train}.isdisjoint(p.seed for p in test)
    assert list(synthetic.plan_clips(7, seed=1)) == plans[:7]
    assert {p.seed for p in plans}.isdisjoint(p.seed for p in synthetic.plan_clips(60, seed=2))


def test_written_files_decode_to_what_was_rendered(tmp_path):
    synthetic.write_clips(tmp_path, 6, seed=1, frames=8)
    for plan in synthetic.plan_clips(6, seed=1):
        clip = synthetic_scene.render_clip(plan.motion, plan.seed, frames=8)
        seen = decode(tmp_path / plan.path)
        assert seen.shape == clip.shape
        assert np.abs(seen.astype(float) - clip).mean() < 8
    with (tmp_path / "splits.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [r["path"] for r in rows] == [p.path for p in synthetic.plan_clips(6, seed=1)]
    assert all(r["path"].split("/")[0] == r["label"] for r in rows)
    assert [r["group"] for r in rows] == [p.scene for p in synthetic.plan_clips(6, seed=1)]


def test_an_interrupted_call_goes_on_without_redoing(tmp_path):
    small = {"frames": 4, "size": (48, 48)}
    with pytest.raises(KeyboardInterrupt):
        synthetic.write_clips(tmp_path, 8, **small, progress=Watching(stop_after=3))
    first = {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*.mp4")}
    assert len(first) == 4 and not (tmp_path / "splits.csv").exists()
    again = Watching()
    synthetic.write_clips(tmp_path, 8, **small, progress=again)
    assert (again.total, again.behind, again.came) == (
        8,
        4,
        4,
    )  # what was there counts into no rate
    assert {p: p.stat().st_mtime_ns for p in first} == first
    assert len(list(tmp_path.rglob("*.mp4"))) == 8 and not list(tmp_path.rglob("*.part"))


def test_a_folder_of_other_clips_is_refused(tmp_path):
    synthetic.write_clips(tmp_path, 1, seed=1, frames=4, size=(48, 48))
    with pytest.raises(VidsslError, match="another folder"):
        synthetic.write_clips(tmp_path, 2, seed=2, frames=4, size=(48, 48))


def test_processes_write_the_same_files(tmp_path):
    for name, workers in (("one", 1), ("two", 2)):
        synthetic.write_clips(tmp_path / name, 4, frames=4, size=(48, 48), workers=workers)
    names = sorted(p.relative_to(tmp_path / "one") for p in (tmp_path / "one").rglob("*.*"))
    assert names == sorted(p.relative_to(tmp_path / "two") for p in (tmp_path / "two").rglob("*.*"))
    for name in names:
        if name.suffix == ".mp4":  # x264 may spend a bit differently from process to process
            one, two = (decode(tmp_path / folder / name).astype(float) for folder in ("one", "two"))
            assert np.abs(one - two).mean() < 2
