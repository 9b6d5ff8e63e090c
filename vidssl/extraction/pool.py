"""Who works on the videos of a stage: processes here, or the workers of a cluster."""

from __future__ import annotations

from functools import partial

from vidssl.extraction.dask_pool import require_dask, work_on_cluster
from vidssl.extraction.process_pool import Pool, Work, work_on_videos


def check_pool(dask: str | None) -> None:
    """Raises a :class:`VidsslError` where the pool that is asked for is not installed.

    Stages do this first, before they look at any video.
    """
    if dask is not None:
        require_dask()


def choose_pool(work: Work, workers: int | None, dask: str | None) -> Pool:
    """Returns the pool that the options of a stage ask for.

    Args:
        work: as for :func:`vidssl.extraction.process_pool.work_on_videos`.
        workers: processes on this machine; None: one per core.
        dask: address of a scheduler, whose workers do it instead.
    """
    if dask is None:
        return partial(work_on_videos, work=work, workers=workers)
    return partial(work_on_cluster, work=work, address=dask)
