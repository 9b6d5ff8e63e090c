"""Chooses where the videos of a stage are processed: in local processes, or on a dask cluster."""

from __future__ import annotations

from functools import partial

from vidssl.extraction.dask_pool import process_on_cluster, require_dask
from vidssl.extraction.process_pool import Pool, VideoFunction, process_videos


def check_pool(dask: str | None) -> None:
    """Raises a :class:`VidsslError` if a dask cluster is asked for and dask is not installed.

    Stages call it before they look at any video.
    """
    if dask is not None:
        require_dask()


def choose_pool(
    function: VideoFunction, workers: int | None, dask: str | None, bounded: bool = True
) -> Pool:
    """Returns the pool that the options of a stage ask for.

    Args:
        function: processes one video; as for
            :func:`vidssl.extraction.process_pool.process_videos`.
        workers: processes on this machine; None: one per core.
        dask: address of a scheduler, whose workers are used instead.
        bounded: whether the memory of processes on this machine is; dask bounds its own.
    """
    if dask is None:
        pool = partial(process_videos, function=function, workers=workers)
        return pool if bounded else partial(pool, bounded=False)
    return partial(process_on_cluster, function=function, address=dask)
