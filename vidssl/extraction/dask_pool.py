"""Processes many videos on a dask.distributed cluster: for clouds and sites without Slurm.

Workers return a :class:`vidssl.extraction.process_pool.VideoResult` for each video; only this
process writes. Workers need the same version of vidssl, the videos at the same path as here, and
for `pack` the workspace too. Dask balances the load, sends the videos of a dead worker to another
one, and shows all of this on its dashboard. One thread per worker is best: one video, one core.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import cv2

from vidssl.base.errors import VidsslError
from vidssl.base.optional_packages import require_extra
from vidssl.base.signals import StopRequest, stop_requests
from vidssl.dataset.video import Source
from vidssl.extraction.process_pool import (
    CHECK_SIGNALS_EVERY,
    VideoFunction,
    VideoResult,
    VideoResults,
    process_video,
    raise_if_stopped,
)
from vidssl.version import VERSION

if TYPE_CHECKING:
    from distributed import Client, Future

CONNECT_SECONDS = 20
AHEAD = 3  # videos submitted per thread of the cluster, so that no thread waits for the next
COUNT_THREADS_EVERY = 5.0  # seconds; workers come and go
RETRIES = 2  # on other workers, after an error that is not the video's


class UnfitWorker(VidsslError):
    """A worker that cannot process videos; the text says why."""


def require_dask() -> None:
    """Raises a :class:`VidsslError` if dask is not installed."""
    require_extra("dask", "--dask", "distributed", more=", here and on the workers")


def process_on_cluster(
    sources: Sequence[Source], function: VideoFunction, address: str
) -> VideoResults:
    """Yields each video with its result, in the order in which they are finished.

    Args:
        function: processes one video; can be pickled, and workers import it from vidssl.
        address: of the scheduler, such as tcp://host:8786.

    Raises:
        Interrupted: a signal to stop came; the results that were yielded before are complete.
        VidsslError: the cluster cannot be reached or was lost, or its workers are unfit.
    """
    with _connect(address) as client, stop_requests() as stop:
        suspects: list[Source] = []
        for source, future, returned in _submit_and_collect(client, sources, function, stop):
            result = _to_result(source, future, returned, address)
            if result is None or result.unlucky:
                suspects.append(source)
            else:
                yield source, result
        # When a worker dies, any of its videos may be the cause. Each is tried again alone.
        for suspect in suspects:
            for source, future, returned in _submit_and_collect(client, [suspect], function, stop):
                result = _to_result(source, future, returned, address)
                yield source, result or VideoResult(reason="the dask workers that had it died")


@contextmanager
def _connect(address: str) -> Iterator[Client]:
    """Connects to the cluster; turns network errors into one sentence."""
    from distributed import Client

    # What matters is said below, in one sentence.
    logging.getLogger("distributed").setLevel(logging.CRITICAL)
    try:
        client = Client(address, timeout=CONNECT_SECONDS, set_as_default=False)
    except (OSError, ValueError) as error:
        raise VidsslError(
            f"no dask scheduler can be reached at {address}: {' '.join(str(error).split())}"
        ) from error
    try:
        with client:
            yield client
    except OSError as error:
        raise _lost(address) from error


def _lost(address: str) -> VidsslError:
    return VidsslError(
        f"the dask scheduler at {address} was lost; finished videos are kept: "
        "run the same command again to go on"
    )


def _submit_and_collect(
    client: Client, sources: Sequence[Source], function: VideoFunction, stop: StopRequest
) -> Iterator[tuple[Source, Future, Any]]:
    """Submits videos and yields what the cluster returns.

    No more videos are submitted than the cluster soon needs, because results are large.
    """
    from distributed import as_completed

    # A task of its own: dask sends it to each worker once, and computes it again if it is lost.
    shared_function = client.submit(_return_unchanged, function, pure=False)
    running: dict[Future, Source] = {}
    done = as_completed(loop=client.loop, with_results=True, raise_errors=False)
    most, counted = 0, -COUNT_THREADS_EVERY
    left = list(reversed(sources))
    while left or running:
        if time.monotonic() - counted > COUNT_THREADS_EVERY:
            most, counted = AHEAD * max(1, sum(client.nthreads().values())), time.monotonic()
        while left and len(running) < most:
            source = left.pop()
            there = replace(source, path=source.path.absolute())  # workers run in other folders
            future = client.submit(
                process_on_worker, there, shared_function, VERSION, pure=False, retries=RETRIES
            )
            running[future] = source
            done.add(future)
        batch = done.next_batch(block=False)
        for future, returned in batch:
            yield running.pop(future), future, returned
        raise_if_stopped(stop)
        if not batch:
            time.sleep(CHECK_SIGNALS_EVERY / 4)


def _to_result(source: Source, future: Future, returned: Any, address: str) -> VideoResult | None:
    """Returns the result of a task, None if its workers died.

    Raises:
        VidsslError: something failed that has nothing to do with the video.
    """
    from distributed.scheduler import KilledWorker

    if isinstance(returned, VideoResult):  # even if the worker that holds it dies now
        return returned
    if future.status != "error":
        raise _lost(address)
    error = returned[1]
    if isinstance(error, KilledWorker):
        return None
    if isinstance(error, FileNotFoundError):
        if not source.path.exists():
            return VideoResult(reason="the file is gone")
        raise UnfitWorker(f"a dask worker does not see {error.filename}, which is here")
    if isinstance(error, VidsslError):
        raise error
    text = " ".join(str(error).split())
    raise UnfitWorker(f"the dask workers cannot do it: {type(error).__name__}: {text}")


# ── on the workers ───────────────────────────────────────────────────────────────────────────


def _return_unchanged(function: VideoFunction) -> VideoFunction:
    return function


def process_on_worker(source: Source, function: VideoFunction, version: str) -> VideoResult:
    """Processes one video; raises only errors that mean that this worker is unfit."""
    if version != VERSION:
        raise UnfitWorker(f"a dask worker has vidssl {VERSION}, and here it is {version}")
    source.path.stat()
    cv2.setNumThreads(0)  # DIS flow depends on the number of threads; set per process
    return process_video(function, source, but=(FileNotFoundError,))
