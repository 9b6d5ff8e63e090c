"""pack --segments: stretches of videos count as videos, and their frames are stored once."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from small_workspace import make_checkpoint
from video_files import moving_square, write_video

from vidssl.base.errors import UsageError, VidsslError
from vidssl.evaluation.leakage import trained_ids
from vidssl.shards import ShardReader, open_shards
from vidssl.shards.segments import SegmentReader
from vidssl.stages import extract_flow, pack, retrieve, verify
from vidssl.stages.extract_flow import ExtractFlow
from vidssl.stages.pack import Pack, PackResult
from vidssl.stages.retrieve import RetrieveOptions
from vidssl.stages.verify import VerifyOptions
from vidssl.training.data import training_data
from vidssl.workspace.artifacts import Artifact
from vidssl.workspace.workspace import Workspace

FPS = 10
LENGTHS = (24, 6, 17)


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("videos")
    for number, length in enumerate(LENGTHS):
        clip = moving_square(length, 64, 48, step=(2, 1), seed=number)
        write_video(folder / f"class{number % 2}" / f"v{number}.mp4", clip, fps=FPS)
    return folder


@pytest.fixture(scope="module")
def cut(videos: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Workspace, PackResult]:
    workspace = Workspace(tmp_path_factory.mktemp("cut"))
    extract_flow.run(workspace, ExtractFlow(videos, workers=1, stored=24))
    return workspace, pack.run(workspace, Pack(videos, size=32, workers=1, segments="0.8"))


def frames_of(result: PackResult) -> Artifact:
    found = result.artifact.frames_of_segments()
    assert found is not None
    return found


def test_frames_are_those_of_the_whole_video(cut):
    _, result = cut
    whole, parts = open_shards(frames_of(result)), open_shards(result.artifact)
    assert not list(result.artifact.path.glob("shard-*"))
    for view, lag in (("rgb", 0), ("flow", 1)):
        for v in range(len(parts)):
            row = whole.find(parts.whole_id(v))
            begin, count = parts.first_frame(v), int(parts.frame_count(view)[v])
            assert count == int(parts.videos.frames[v]) - lag
            wanted = whole.frames(view, row, range(begin, begin + count))
            assert np.array_equal(parts.frames(view, v, range(count)), wanted)
            with pytest.raises(IndexError):
                parts.frames(view, v, [count])


def test_segments_cover_each_video_once_and_short_videos_keep_their_ids(cut):
    _, result = cut
    whole, parts = open_shards(frames_of(result)), open_shards(result.artifact)
    ids = [whole.video_id(v) for v in range(len(whole))]
    ranges: dict[str, list[tuple[int, int]]] = {}
    for v in range(len(parts)):
        assert parts.find(parts.video_id(v)) == v
        begin = parts.first_frame(v)
        ranges.setdefault(parts.whole_id(v), []).append((begin, begin + parts.record(v).frames))
    assert [ranges[name] for name in ids] == [
        [(0, 8), (8, 16), (16, 24)], [(0, 8), (8, 17)], [(0, 6)]
    ]  # fmt: skip
    assert ids[2] in {parts.video_id(v) for v in range(len(parts))}


def test_training_counts_segments_and_those_of_a_video_are_one_group(cut):
    workspace, result = cut
    data = training_data(workspace, result.artifact, "all", 0)
    assert len(data.videos) == 6
    reader = data.videos.reader
    assert isinstance(reader, SegmentReader)
    whole = [reader.whole_id(int(v)) for v in data.videos.index]
    groups = data.videos.source.tolist()
    assert len(set(zip(whole, groups, strict=True))) == len(set(whole)) == len(set(groups)) == 3
    assert [data.classes[k] for k in data.videos.label] == ["class0"] * 5 + ["class1"]
    assert data.parents()["pack"] == result.artifact


def test_leakage_names_whole_videos(cut):
    workspace, result = cut
    run = workspace.open_run("checkpoint", "x", {"split": "all"}, {"pack": result.artifact})
    with run as opened:
        (opened.folder / "nothing").write_bytes(b"")
        checkpoint = opened.publish("0" * 64, {})
    reader = open_shards(frames_of(result))
    assert trained_ids(workspace, checkpoint) == {reader.video_id(v) for v in range(3)}


def test_another_segmentation_packs_no_frame_again(videos: Path, tmp_path: Path):
    workspace = Workspace(tmp_path)

    def packed(segments: str) -> PackResult:
        return pack.run(workspace, Pack(videos, size=32, workers=1, segments=segments))

    whole, first, second = packed("none"), packed("0.8"), packed("2")
    assert whole.artifact.recipe["stage"] == "pack" and not whole.notes
    assert frames_of(first) == frames_of(second) == whole.artifact
    assert packed("2").artifact == second.artifact and packed("2").reused
    again = packed("0.8")
    assert again.artifact == workspace.newest("pack") != first.artifact
    assert again.artifact.digest == first.artifact.digest and not again.reused
    back = packed("none")
    assert back.artifact == whole.artifact
    assert "--pack main/v001" in back.notes[-1]


def test_a_segmentation_without_its_frames_or_with_another_table(videos: Path, tmp_path: Path):
    workspace = Workspace(tmp_path)
    made = pack.run(workspace, Pack(videos, size=32, workers=1, segments="0.8")).artifact
    assert not any(each.problems for each in verify.run(workspace, VerifyOptions()).findings)
    reader = ShardReader(made.frames_of_segments().path)
    video = reader.video_id(0)
    for row in (f"{video},0,25", f"{video},5,5", f"{video},-1,4", "other.mp4#0,0,4"):
        with pytest.raises(VidsslError, match="is damaged"):
            SegmentReader(reader, f"id,begin,end\n{row}\n".encode(), "segments.csv")
    with pytest.raises(VidsslError, match="no table of segments"):
        SegmentReader(reader, b"id,begin\n", "segments.csv")
    table = made.path / "segments.csv"
    before = table.read_bytes()
    table.write_bytes(b"id,begin,end\n")
    result = verify.run(workspace, VerifyOptions(repair=True))
    assert result.ok and result.repairs[0].done and table.read_bytes() == before
    made.frames_of_segments().path.rename(tmp_path / "gone")
    with pytest.raises(VidsslError, match="holds the frames of pack/main/v002"):
        open_shards(made)


@pytest.mark.parametrize("wrong", ["0", "-3", "nan", "inf", "ten"])
def test_what_no_length_is(videos: Path, tmp_path: Path, wrong: str):
    with pytest.raises(UsageError, match="--segments"):
        pack.run(Workspace(tmp_path), Pack(videos, segments=wrong))


def test_a_moment_is_found_at_its_time_in_the_film(tmp_path: Path):
    videos, workspace = tmp_path / "videos", Workspace(tmp_path / "ws")
    # Every 10 frames another texture, so that moments differ.
    film = np.concatenate([moving_square(10, 80, 60, seed=s) for s in (50, 51, 52, 53)])
    write_video(videos / "film.mp4", film, fps=FPS, key_frames_only=True)
    for number in range(2):
        write_video(videos / f"o{number}.mp4", moving_square(9, 80, 60, seed=60 + number), fps=FPS)
    made = pack.run(workspace, Pack(videos, size=40, labels="none", workers=1, segments="2"))
    make_checkpoint(workspace, made.artifact)
    part = write_video(tmp_path / "part.mp4", film[23:31], fps=FPS, key_frames_only=True)
    query = RetrieveOptions((part,), k=1, sheet=tmp_path / "sheet.png")
    (best,) = retrieve.run(workspace, query).answers[0].neighbours
    assert best.video == "film.mp4" and "@00000020-00000040#" in best.id
    assert (best.first_frame, best.last_frame) == (23, 30)
    assert (best.begin, best.end) == (2.3, 3.1)
    (own,) = retrieve.run(workspace, RetrieveOptions((videos / "film.mp4",), k=9)).answers
    assert own.left_out == ["film.mp4"] and len(own.neighbours) == 2
    (features,) = workspace.artifacts("features")
    assert features.summary["videos"] == 4
