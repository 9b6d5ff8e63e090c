"""Work on many videos on a dask.distributed cluster: for clouds and sites without Slurm.

The workers make products, as the processes of :mod:`vidssl.extraction.process_pool` do; this
process alone writes. They need vidssl of this version, the videos at the same path as here, and
for `pack` the workspace too. Dask balances the work, gives the videos of a worker that died to
another one, and shows it all on its dashboard. One thread per worker is best: one video, one core.
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
from vidssl.base.extras import require_extra
from vidssl.base.signals import StopRequest, stop_requests
from vidssl.dataset.video import Source
from vidssl.extraction.process_pool import (
    LOOK_UP_EVERY,
    Product,
    Work,
    attempt,
    end_if_asked,
)
from vidssl.version import VERSION

if TYPE_CHECKING:
    from distributed import Client, Future

CONNECT_SECONDS = 20
AHEAD = 3  # videos per thread of the cluster that are given out at once, so that none waits
COUNT_THREADS_EVERY = 5.0  # seconds; workers come and go
RETRIES = 2  # elsewhere, after an error that is not the video's


class UnfitWorker(VidsslError):
    """A worker that cannot do the work; the text says why."""


def require_dask() -> None:
    """Raises a :class:`VidsslError` where dask is not installed."""
    require_extra("dask", "--dask", "distributed", more=", here and on the workers")


def work_on_cluster(
    sources: Sequence[Source], work: Work, address: str
) -> Iterator[tuple[Source, Product]]:
    """Returns each video with what became of it, in the order in which they get done.

    Args:
        work: a function that can be pickled, which workers import from vidssl.
        address: of the scheduler, such as tcp://host:8786.

    Raises:
        Interrupted: SIGINT or SIGTERM came; nothing is lost that was given before.
        VidsslError: the cluster is out of reach or was lost, or its workers cannot do the work.
    """
    with _connect(address) as client, stop_requests() as stop:
        suspects: list[Source] = []
        for source, future, result in _in_turn(client, sources, work, stop):
            product = _understand(source, future, result, address)
            if product is None:
                suspects.append(source)
            else:
                yield source, product
        # A worker that dies casts suspicion on all that it had: alone, a video is guilty or not.
        for suspect in suspects:
            for source, future, result in _in_turn(client, [suspect], work, stop):
                product = _understand(source, future, result, address)
                yield source, product or Product(reason="the dask workers that had it died")


@contextmanager
def _connect(address: str) -> Iterator[Client]:
    """Returns the way to the cluster; errors of the network on it become one sentence."""
    from distributed import Client

    logging.getLogger("distributed").setLevel(logging.CRITICAL)  # it is told below, in a sentence
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


def _in_turn(
    client: Client, sources: Sequence[Source], work: Work, stop: StopRequest
) -> Iterator[tuple[Source, Future, Any]]:
    """Keeps the cluster busy, with no more at once than it soon needs: products are large."""
    from distributed import as_completed

    # A task of its own: it goes to each worker once, and is made again where it is lost.
    shared_work = client.submit(_hand_over, work, pure=False)
    at_work: dict[Future, Source] = {}
    done = as_completed(loop=client.loop, with_results=True, raise_errors=False)
    most, counted = 0, -COUNT_THREADS_EVERY
    left = list(reversed(sources))
    while left or at_work:
        if time.monotonic() - counted > COUNT_THREADS_EVERY:
            most, counted = AHEAD * max(1, sum(client.nthreads().values())), time.monotonic()
        while left and len(at_work) < most:
            source = left.pop()
            there = replace(source, path=source.path.absolute())  # workers begin in other folders
            future = client.submit(
                _attempt_there, there, shared_work, VERSION, pure=False, retries=RETRIES
            )
            at_work[future] = source
            done.add(future)
        batch = done.next_batch(block=False)
        for future, result in batch:
            yield at_work.pop(future), future, result
        end_if_asked(stop)
        if not batch:
            time.sleep(LOOK_UP_EVERY / 4)


def _understand(source: Source, future: Future, result: Any, address: str) -> Product | None:
    """Returns a task's product, None where its workers died.

    Raises:
        VidsslError: something else went wrong on the way, which is no fault of the video.
    """
    from distributed.scheduler import KilledWorker

    if isinstance(result, Product):  # whatever becomes of the worker that still holds it
        return result
    if future.status != "error":
        raise _lost(address)
    error = result[1]
    if isinstance(error, KilledWorker):
        return None
    if isinstance(error, FileNotFoundError):
        if not source.path.exists():
            return Product(reason="the file is gone")
        raise UnfitWorker(f"a dask worker does not see {error.filename}, which is here")
    if isinstance(error, VidsslError):
        raise error
    text = " ".join(str(error).split())
    raise UnfitWorker(f"the dask workers cannot do it: {type(error).__name__}: {text}")


# ── what runs on the workers


def _hand_over(work: Work) -> Work:
    return work


def _attempt_there(source: Source, work: Work, version: str) -> Product:
    """Works on one video; raises only what says that this worker is unfit."""
    if version != VERSION:
        raise UnfitWorker(f"a dask worker has vidssl {VERSION}, and here it is {version}")
    source.path.stat()
    cv2.setNumThreads(0)  # flow depends on it; it holds for the whole process
    return attempt(work, source, but=(FileNotFoundError,))
