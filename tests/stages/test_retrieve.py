"""Retrieval: the measure over a split, and a video file's neighbours."""

from __future__ import annotations

import csv
import json
import shutil
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from small_workspace import annotate, make_checkpoint, make_pack, small_workspace
from video_files import moving_square, write_video
from watching import Watching

from vidssl.base.errors import MissingInput, UsageError, VidsslError
from vidssl.dataset.video_bounds import VideoBounds
from vidssl.evaluation.feature_cache import load_features
from vidssl.evaluation.neighbours import centred_unit
from vidssl.stages import evaluate_retrieval, extract_flow, pack, retrieve
from vidssl.stages.evaluate_retrieval import EvaluateRetrievalOptions
from vidssl.stages.extract_flow import ExtractFlow
from vidssl.stages.pack import Pack
from vidssl.stages.retrieve import RetrieveOptions
from vidssl.workspace.workspace import Workspace

# ── the measure


def slow_recall(means: np.ndarray, labels: list[str], test: list[int], train: list[int], k: int):
    """R@k in plain loops, each part centred with its own mean."""

    def prepared(part: list[int]) -> list[np.ndarray]:
        mean = sum(means[i] for i in part) / len(part)
        moved = [means[i] - mean for i in part]
        return [m / np.linalg.norm(m) for m in moved]

    queries, gallery = prepared(test), prepared(train)
    hits = 0
    for q, own in zip(queries, test, strict=True):
        ranked = sorted(range(len(train)), key=lambda j: -float(q @ gallery[j]))
        hits += any(labels[train[j]] == labels[own] for j in ranked[:k])
    return hits / len(test)


def test_recall_is_the_slow_twin(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path / "ws")
    made = make_pack(workspace, [n % 5 for n in range(60)], length=9)
    labels = [f"c{n}" for n in np.random.default_rng(0).integers(0, 4, 60)]
    words = ["test" if n % 3 == 0 else "train" if n % 3 == 1 else "unused" for n in range(60)]
    table = annotate(workspace, made, labels, {"s": words})
    make_checkpoint(workspace, made, table, split="s")
    result = evaluate_retrieval.run(workspace, EvaluateRetrievalOptions())
    report, artifact = result.report, result.stage.artifact
    features = load_features(workspace.by_digest(artifact.parents["features"]))
    test, train = (
        [i for i, word in enumerate(words) if word == part] for part in ("test", "train")
    )
    for row in report.recall:
        assert row.recall == slow_recall(features.video_means(), labels, test, train, row.k)
    assert (report.queries, report.gallery) == (20, 20)
    assert 0 < report.at(1).recall < 1
    rows = list(csv.DictReader((artifact.path / "neighbours.csv").open()))
    first = [r for r in rows if r["rank"] == "1"]
    assert np.mean([r["label"] == r["neighbour_label"] for r in first]) == report.at(1).recall
    assert json.loads((artifact.path / "results.json").read_text())["split"] == "s"


def test_the_shade_of_the_noise_is_found_and_kept(tmp_path: Path) -> None:
    workspace = small_workspace(tmp_path / "ws")
    first = evaluate_retrieval.run(workspace, EvaluateRetrievalOptions())
    assert first.report.at(1).recall == 1.0
    again = evaluate_retrieval.run(workspace, EvaluateRetrievalOptions())
    assert again.stage.reused and again.report == first.report
    assert again.as_dict()["results"]["recall"][0]["k"] == 1


def test_two_streams_add_their_similarities(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path / "ws")
    made = make_pack(workspace, [n % 3 for n in range(24)], ("rgb", "flow"), length=9)
    words = ["test" if n < 8 else "train" for n in range(24)]
    table = annotate(workspace, made, splits={"s": words})
    for stream in ("rgb", "flow"):
        make_checkpoint(workspace, made, table, stream, split="s")
    result = evaluate_retrieval.run(workspace, EvaluateRetrievalOptions(streams=("rgb", "flow")))
    artifact = result.stage.artifact
    assert artifact.label == "retrieval/rgb-infonce_flow-infonce/v001"
    total = 0
    for role in ("features", "features2"):
        means = load_features(workspace.by_digest(artifact.parents[role])).video_means()
        total = total + centred_unit(means[:8]) @ centred_unit(means[8:]).T
    best = next(csv.DictReader((artifact.path / "neighbours.csv").open()))
    assert float(best["similarity"]) == pytest.approx(total[0].max(), abs=1e-4)
    with pytest.raises(UsageError, match="did you mean flow"):
        evaluate_retrieval.run(workspace, EvaluateRetrievalOptions(streams=("rgb", "flwo")))
    with pytest.raises(UsageError, match="name a stream for each checkpoint, or none"):
        evaluate_retrieval.run(
            workspace, EvaluateRetrievalOptions(("rgb-infonce", "flow-infonce"), ("rgb",))
        )


def test_evaluation_without_labels_is_one_sentence(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path / "ws")
    made = make_pack(workspace, [0, 1])
    make_checkpoint(workspace, made, split="all")
    with pytest.raises(MissingInput, match="--labels"):
        evaluate_retrieval.run(workspace, EvaluateRetrievalOptions())


def test_evaluation_needs_no_decoder_and_no_flow_algorithm() -> None:
    code = (
        "import sys; sys.modules['av'] = None\n"
        "import vidssl.stages.probe, vidssl.stages.evaluate_retrieval, vidssl.stages.baselines\n"
        "import vidssl.retrieval.answers, vidssl.stages.status, vidssl.stages.verify\n"
        "heavy = ('optical_flow.algorithms', 'dataset.video', 'dataset.decoding')\n"
        "loaded = [m for m in sys.modules if m.endswith(heavy)]\n"
        "assert not loaded, loaded"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


# ── a video file's neighbours


@pytest.fixture(scope="module")
def packed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six real files in two folders, packed with flow, and an encoder of either stream."""
    root = tmp_path_factory.mktemp("query")
    for number in range(6):
        clip = moving_square(24, 80, 60, step=(number % 3, 1), seed=number)
        write_video(root / "videos" / f"class{number % 2}" / f"v{number}.mp4", clip)
    workspace = Workspace(root / "ws")
    extract_flow.run(workspace, ExtractFlow(root / "videos", size=48, stored=36, workers=1))
    made = pack.run(workspace, Pack(root / "videos", size=40, workers=1))
    for stream in ("rgb", "flow"):
        make_checkpoint(workspace, made.artifact, made.annotations, stream)
    return root


@pytest.mark.parametrize("streams", [(), ("flow",), ("rgb", "flow")])
def test_a_packed_video_finds_itself(packed: Path, streams: tuple[str, ...]) -> None:
    path = packed / "videos" / "class1" / "v3.mp4"
    options = RetrieveOptions((path,), streams=streams, k=3, keep_self=True)
    (answer,) = retrieve.run(Workspace(packed / "ws"), options).answers
    best = answer.neighbours[0]
    assert best.video == "class1/v3.mp4" and best.label == "class1"
    assert best.similarity == pytest.approx(1, abs=1e-5)
    assert answer.neighbours[1].similarity < 0.999
    assert (best.begin, best.query_begin) == (best.query_begin, best.begin)


def test_the_query_itself_is_left_out_whatever_its_name(packed: Path, tmp_path: Path) -> None:
    path = tmp_path / "Überfahrt 1.mp4"
    shutil.copy(packed / "videos" / "class0" / "v2.mp4", path)
    result = retrieve.run(Workspace(packed / "ws"), RetrieveOptions((path,), k=50))
    (answer,) = result.answers
    assert answer.left_out == ["class0/v2.mp4"]
    assert len(answer.neighbours) == 5
    assert "class0/v2.mp4" not in [n.video for n in answer.neighbours]
    assert "--keep-self" in result.notes[0]
    ranks = [n.similarity for n in answer.neighbours]
    assert ranks == sorted(ranks, reverse=True)


def test_the_time_range_is_that_of_the_matching_window(packed: Path, tmp_path: Path) -> None:
    """A query cut out of a longer gallery video is found where it was cut."""
    videos = tmp_path / "videos"
    # Every 10 frames another texture, so that moments differ.
    long = np.concatenate([moving_square(10, 80, 60, seed=s) for s in (50, 51, 52, 53)])
    write_video(videos / "long.mp4", long, key_frames_only=True)
    for number in range(3):
        write_video(videos / f"o{number}.mp4", moving_square(20, 80, 60, seed=60 + number))
    workspace = Workspace(tmp_path / "ws")
    made = pack.run(workspace, Pack(videos, size=40, labels="none", workers=1))
    make_checkpoint(workspace, made.artifact)
    part = write_video(tmp_path / "part.mp4", long[21:29], key_frames_only=True)
    (answer,) = retrieve.run(workspace, RetrieveOptions((part,), k=1)).answers
    best = answer.neighbours[0]
    assert best.video == "long.mp4" and best.label is None
    assert best.first_frame == 21 and best.last_frame == 28  # windows of 8, 3 apart
    assert (best.begin, best.end) == (21 / 25, 29 / 25)


def test_a_two_stream_similarity_is_at_most_one(packed: Path) -> None:
    path = packed / "videos" / "class0" / "v0.mp4"
    options = RetrieveOptions((path,), streams=("rgb", "flow"), keep_self=True)
    (answer,) = retrieve.run(Workspace(packed / "ws"), options).answers
    assert all(-1.0001 <= n.similarity <= 1.0001 for n in answer.neighbours)


def test_a_query_has_bounds(packed: Path) -> None:
    path = packed / "videos" / "class0" / "v0.mp4"
    options = RetrieveOptions((path,), streams=("flow",), bounds=VideoBounds(max_frames=2))
    with pytest.raises(VidsslError, match=r"v0\.mp4 cannot be used: .* 2 frames of --max-frames"):
        retrieve.run(Workspace(packed / "ws"), options)


def test_several_queries_and_a_bad_one(packed: Path, tmp_path: Path) -> None:
    good, bad = tmp_path / "good.mp4", tmp_path / "bad.mp4"
    write_video(good, moving_square(9, 64, 48, seed=9))
    bad.write_bytes(b"")
    sheet = tmp_path / "out.png"
    result = retrieve.run(Workspace(packed / "ws"), RetrieveOptions((good, bad, good), sheet=sheet))
    assert [Path(a.query).name for a in result.answers] == ["good.mp4", "good.mp4"]
    assert result.quarantined == [(str(bad), "the file is empty")]
    assert [a.sheet.name for a in result.answers] == ["out-1.png", "out-3.png"]
    assert all(a.sheet.stat().st_size > 10_000 for a in result.answers)
    json.dumps(result.as_dict())
    with pytest.raises(VidsslError, match=r"bad\.mp4 cannot be used: the file is empty"):
        retrieve.run(Workspace(packed / "ws"), RetrieveOptions((bad,)))


def test_a_query_that_is_no_video_is_told_before_the_gallery_is_embedded(
    packed: Path, tmp_path: Path
) -> None:
    shutil.copytree(packed / "ws", tmp_path / "ws", ignore=shutil.ignore_patterns("features"))
    bad, workspace, heard = tmp_path / "bad.mp4", Workspace(tmp_path / "ws"), Watching()
    bad.write_text("this is no video")
    with pytest.raises(VidsslError, match=r"bad\.mp4 cannot be used"):
        retrieve.run(workspace, RetrieveOptions((bad,)), heard)
    assert heard.titles == [] and workspace.artifacts("features") == []
    good = write_video(tmp_path / "good.mp4", moving_square(9, 64, 48, seed=9))
    assert retrieve.run(workspace, RetrieveOptions((bad, good)), heard).answers
    assert heard.titles and workspace.artifacts("features")


def test_bad_options_cost_one_sentence(packed: Path, tmp_path: Path) -> None:
    workspace = Workspace(packed / "ws")
    path = packed / "videos" / "class0" / "v0.mp4"
    with pytest.raises(VidsslError, match="no such"):
        retrieve.run(workspace, RetrieveOptions((tmp_path / "none.mp4",)))
    with pytest.raises(UsageError, match="one neighbour"):
        retrieve.run(workspace, RetrieveOptions((path,), k=0))
    with pytest.raises(VidsslError, match=r"\.png or \.jpg"):
        retrieve.run(workspace, RetrieveOptions((path,), sheet=tmp_path / "sheet.pdf"))
    with pytest.raises(VidsslError, match="there is no folder"):
        retrieve.run(workspace, RetrieveOptions((path,), sheet=tmp_path / "none" / "sheet.png"))
    (tmp_path / "folder.png").mkdir()
    with pytest.raises(VidsslError, match="is a folder"):
        retrieve.run(workspace, RetrieveOptions((path,), sheet=tmp_path / "folder.png"))
    with pytest.raises(MissingInput, match="vidssl pretrain"):
        retrieve.run(Workspace(tmp_path / "empty"), RetrieveOptions((path,)))


def test_opencv_threads_are_restored(packed: Path) -> None:
    before = cv2.getNumThreads()
    retrieve.run(Workspace(packed / "ws"), RetrieveOptions((packed / "videos/class0/v0.mp4",)))
    assert cv2.getNumThreads() == before
