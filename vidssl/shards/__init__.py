"""Shards: encoded frames of many videos in plain HDF5 (docs/formats.md).

:class:`ShardWriter` writes them, :class:`ShardReader` reads them; :func:`open_shards` opens those
of an artifact.

    shard-0000.h5
      /videos/id path note fps frames width height digest  one row per video
      /views/VIEW/blobs        uint8, contiguous, unfiltered: the blobs of all frames, end to end
                 /offsets      <i8 [frames + 1]   where each blob begins in blobs
                 /crc32        <u4 [frames]       checksum of each blob
                 /first_frame  <i8 [videos + 1]   where each video begins in offsets

Nothing here decodes video files or computes a view.
"""

from __future__ import annotations

from vidssl.shards.format import (
    DamagedShard,
    VideoRecord,
    data_digest,
    shard_files,
    video_digest,
)
from vidssl.shards.index import VideoTable
from vidssl.shards.published import SHARDS, check_set, open_shards
from vidssl.shards.reader import ShardReader
from vidssl.shards.segments import SEGMENTS_FILE, Segment, segments_digest, write_segments
from vidssl.shards.writer import SHARD_BYTES, ShardWriter, finished_videos, shard_videos

__all__ = [
    "SEGMENTS_FILE",
    "SHARDS",
    "SHARD_BYTES",
    "DamagedShard",
    "Segment",
    "ShardReader",
    "ShardWriter",
    "VideoRecord",
    "VideoTable",
    "check_set",
    "data_digest",
    "finished_videos",
    "open_shards",
    "segments_digest",
    "shard_files",
    "shard_videos",
    "video_digest",
    "write_segments",
]
