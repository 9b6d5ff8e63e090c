"""Looks up how long videos are, in processes of their own.

Opening a file runs FFmpeg on it. A hostile one of 5 KB can make it fill gigabytes or crash, and so
must not be opened in the process that the user started.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from pathlib import Path

from vidssl.base.cores_and_memory import cores
from vidssl.dataset.decoding import duration
from vidssl.dataset.video import Source
from vidssl.extraction.process_pool import CHECK_SIGNALS_EVERY, VideoResult, stream_videos

ON_SLOW_DISKS = 8  # workers, on however few cores: network disks are slow
EACH = 50  # files for which another worker is worth its start


def video_lengths(files: Sequence[Path], tell: Callable[[], object]) -> list[float]:
    """Returns each video's length in seconds by its header, 0.0 where that is unknown.

    Args:
        tell: is called for each video that is looked up.

    Raises:
        Interrupted: SIGINT or SIGTERM came.
        VidsslError: workers cannot be started.
    """
    sources = [Source(str(number), file, "", "") for number, file in enumerate(files)]
    workers = min(max(cores(), ON_SLOW_DISKS), 1 + len(files) // EACH)
    found = [0.0] * len(files)
    with closing(stream_videos(sources, _look_up, workers, CHECK_SIGNALS_EVERY)) as events:
        for source, chunk in (event for event in events if event is not None):
            if isinstance(chunk, float):
                found[int(source.id)] = chunk
            elif isinstance(chunk, VideoResult):
                tell()
    return found


def _look_up(source: Source) -> Iterator[float | VideoResult]:
    yield duration(source.path)
    yield VideoResult()
