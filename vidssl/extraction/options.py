"""Options that every stage over videos has: which processes do the work, and how it is stored."""

from __future__ import annotations

from dataclasses import dataclass

from vidssl.dataset.video_bounds import DEFAULT_BOUNDS, VideoBounds
from vidssl.extraction.partition import Part
from vidssl.shards import SHARD_BYTES


@dataclass(frozen=True, kw_only=True)
class ExtractionOptions:
    """What extract-flow, extract-view and pack have in common.

    Attributes:
        workers: processes, each for one video at a time; None: as many as the stage chooses.
        part: what falls to this process, where several divide the work; None: all.
        dask: address of a dask scheduler whose workers do it.
        new: repeat a finished run under a new version.
        retry_quarantined: try again the videos that were left out, and those only.
        dry_run: only say what would be done.
        shard_bytes: about how large a shard gets.
        bounds: of each video; no part of the run's identity.
    """

    workers: int | None = None
    part: Part | None = None
    dask: str | None = None
    new: bool = False
    retry_quarantined: bool = False
    dry_run: bool = False
    shard_bytes: int = SHARD_BYTES
    bounds: VideoBounds = DEFAULT_BOUNDS
