"""Flow in batches for many videos at once gives what one video after another gives."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from video_files import moving_square, write_sound, write_video

from vidssl.dataset.video import Source, find_videos
from vidssl.extraction.gpu_flow import CHUNK, extract_in_batches, in_chunks
from vidssl.extraction.process_pool import Restarted, VideoResult, stream_videos
from vidssl.extraction.video_flow import (
    encode_working_flow,
    extract_video_flow,
    stream_video_frames,
)
from vidssl.optical_flow.algorithms import FlowMethod, get_flow_method
from vidssl.optical_flow.batched import BatchedFlow, FramePair, batches_of_one_size
from vidssl.shards import ShardReader
from vidssl.stages import extract_flow
from vidssl.stages.extract_flow import ExtractFlow, choose_method, flow_params
from vidssl.workspace.workspace import Workspace


class FarnebackInBatches(BatchedFlow):
    """Farneback behind the batched contract; gives each batch back to front."""

    def __init__(self, most: int = 5) -> None:
        self.most = most
        self.sizes: list[int] = []

    def flows(self, pairs: Iterable[FramePair | None]) -> Iterator:
        estimate = get_flow_method("farneback").start()
        for batch in batches_of_one_size(pairs, self.most):
            self.sizes.append(len(batch))
            for pair in reversed(batch):
                yield pair.tag, estimate(pair.before, pair.after)


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("videos")
    for number in range(4):
        clip = moving_square(3 + 7 * number, 64, 48, step=(number - 1, 1), seed=number)
        write_video(folder / f"v{number}.mp4", clip)
    write_video(folder / "other-size.mkv", moving_square(6, 51, 37))
    write_video(folder / "single.mp4", moving_square(1))
    write_sound(folder / "sound.mp4")
    (folder / "empty.mp4").write_bytes(b"")
    return folder


def params_of(videos: Path, **options: object) -> dict:
    config = ExtractFlow(videos, method="farneback", stored=24, codec="png", **options)
    return flow_params(config, choose_method(config)[0])


def together(videos: Path, params: dict, method: BatchedFlow, workers: int = 2) -> dict:
    return {
        source.name: result
        for source, result in extract_in_batches(
            find_videos(videos),
            decode=partial(stream_video_frames, params=params),
            flow=lambda: method,
            encode=partial(encode_working_flow, params=params),
            view="flow",
            workers=workers,
        )
    }


@pytest.mark.parametrize("most", [1, 5, 1000])
def test_videos_together_give_what_each_gives_alone(videos: Path, most: int):
    params = params_of(videos)
    found = together(videos, params, FarnebackInBatches(most))
    assert len(found) == len(find_videos(videos))
    for source in find_videos(videos):
        result = found[source.name]
        if source.name[0] in "vo":
            assert result == extract_video_flow(source, params)
            assert len(result.blobs["flow"]) == result.record.frames - 1
    assert found["single.mp4"].reason == "it has one frame only, and flow needs two"
    assert found["empty.mp4"].reason == "the file is empty"
    assert "only audio" in found["sound.mp4"].reason


def test_a_run_on_a_device_makes_the_same_artifact(
    videos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    config = ExtractFlow(videos, method="farneback", stored=24, codec="png", workers=2)
    alone = extract_flow.run(Workspace(tmp_path / "alone"), config)
    asked: list[str] = []

    def batched(device: str) -> BatchedFlow:
        asked.append(device)
        return FarnebackInBatches(8)

    row = get_flow_method("farneback")
    method = FlowMethod("farneback", row.params, row.start, batched)
    monkeypatch.setattr(extract_flow, "choose_method", lambda config: (method, "cuda"))
    result = extract_flow.run(Workspace(tmp_path / "together"), config)
    assert asked == ["cuda"]
    assert result.artifact.digest == alone.artifact.digest
    assert dict(result.quarantined).keys() == dict(alone.quarantined).keys()
    assert len(ShardReader(result.artifact.path)) == 5


def test_small_frames_flow_is_in_pixels_of_the_size_asked_for(tmp_path: Path):
    write_video(tmp_path / "v.mp4", moving_square(3, 64, 48))
    params = params_of(tmp_path, size=96)
    result = together(tmp_path, params, FarnebackInBatches())["v.mp4"]
    assert result == extract_video_flow(find_videos(tmp_path)[0], params)


def _crash_once(source: Source, folder: Path) -> Iterator:
    """Returns two chunks; the first time it dies between them."""
    frames = np.stack([np.full((8, 8), n, np.uint8) for n in range(CHUNK + 3)])
    chunks = in_chunks(iter(frames))
    yield next(chunks)
    if source.name == "crash" and not (folder / "crashed").exists():
        (folder / "crashed").touch()
        os.kill(os.getpid(), signal.SIGSEGV)
    yield from chunks
    yield VideoResult(reason="over")


def test_what_came_of_a_video_before_a_crash_is_void(tmp_path: Path):
    sources = [Source(f"{n}#0", Path(n), n, "0") for n in ("a", "crash")]
    events = stream_videos(sources, partial(_crash_once, folder=tmp_path), 2, 0.2)
    told = {"a": [], "crash": []}
    for event in events:
        if event is not None:
            told[event[0].name].append(event[1])
    sizes = [len(part.frames) for part in told["a"][:-1]]
    assert sizes == [CHUNK, 3]
    again = next(n for n, part in enumerate(told["crash"]) if isinstance(part, Restarted))
    after = told["crash"][again + 1 :]
    assert [len(part.frames) for part in after[:-1]] == [CHUNK, 3]
    assert after[-1] == VideoResult(reason="over")


def test_a_batch_has_one_size_and_nothing_waits_for_ever():
    small, large = np.zeros((4, 4), np.uint8), np.zeros((6, 4), np.uint8)
    pairs = [FramePair(n, frame, frame) for n, frame in enumerate([small, large] * 3)]
    batches = batches_of_one_size([*pairs[:5], None, pairs[5]], 2)
    assert [[pair.tag for pair in batch] for batch in batches] == [[0, 2], [1, 3], [4], [5]]


def test_a_method_without_batches_is_refused_on_a_device(
    videos: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(extract_flow, "choose_device", lambda wanted: "cuda")
    with pytest.raises(extract_flow.UsageError, match="farneback runs on a CPU only"):
        choose_method(ExtractFlow(videos, method="farneback", device="cuda"))
    assert choose_method(ExtractFlow(videos, method="farneback"))[1] == "cpu"
