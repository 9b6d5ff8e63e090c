"""Reads shards: any frame of any video, from many threads and processes at once."""

from __future__ import annotations

import os
import resource
import threading
import zlib
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property, partial
from pathlib import Path
from typing import Any, TypeAlias

import h5py
import numpy as np

from vidssl.base.errors import VidsslError, nearest_name
from vidssl.base.files import named_error
from vidssl.shards.format import (
    DamagedShard,
    Params,
    VideoRecord,
    check_same_views,
    data_digest,
    shard_files,
    video_digest,
)
from vidssl.shards.index import ShardTables, join_tables
from vidssl.views import get_view
from vidssl.views.flow import read_pixels
from vidssl.views.frame_interpolation import read_strided

FrameNumbers: TypeAlias = Sequence[int] | np.ndarray

MOST_GAP = 1 << 16  # bytes: up to this gap between frames one read is cheaper than two


class ShardReader:
    """Reads frames from shards with `pread`, without HDF5 and its lock.

    Opening reads a few numbers per video and nothing per frame. The reader can be pickled and works
    after a fork: each process opens the files itself, at its first read.

    Args:
        source: a folder of shards, or the files.

    Attributes:
        videos: one row per video, sorted by id (:class:`vidssl.shards.VideoTable`).
        views: {view: parameters}.

    Raises:
        VidsslError: there is no shard, one has an unknown version, or they do not belong together.
        DamagedShard: a file cannot be read, or a video comes twice.
    """

    def __init__(self, source: Path | str | Sequence[Path]) -> None:
        files = shard_files(Path(source)) if isinstance(source, str | Path) else list(source)
        if not files:
            where = f" in {source}" if isinstance(source, str | Path) else " to read"
            raise VidsslError(f"there is no shard{where}")
        self._shards = [ShardTables.load(path) for path in files]
        self.views: dict[str, Params] = dict(self._shards[0].views)
        for shard in self._shards[1:]:
            check_same_views(shard.path, shard.views, self.views)
        self.videos = join_tables(self._shards)
        self._check_ids()
        self._begin_process()

    def _check_ids(self) -> None:
        """Checks that no video comes twice; the table is sorted by id."""
        ids = self.videos.id
        twice = np.flatnonzero(ids[1:] == ids[:-1])
        if len(twice):
            first, second = (self.file_of(int(twice[0]) + n) for n in (0, 1))
            where = f"twice in {first}" if first == second else f"both in {first} and in {second}"
            raise DamagedShard(f"{self.video_id(int(twice[0]))} is {where}")

    def __len__(self) -> int:
        return len(self.videos)

    @property
    def folder(self) -> Path:
        """The folder of the shards."""
        return self._shards[0].path.parent

    def file_of(self, video: int) -> Path:
        """Returns the shard that holds a video."""
        return self._shards[self.videos.shard[video]].path

    def video_id(self, video: int) -> str:
        """Returns the id of one video."""
        return str(self.videos.id[video].decode())

    def first_frame(self, video: int) -> int:
        """Returns the number in the whole video of the first frame here: 0, but for a segment."""
        return 0

    def whole_id(self, video: int) -> str:
        """Returns the id of the whole video: a segment's is another."""
        return self.video_id(video)

    def find(self, video_id: str) -> int | None:
        """Returns the number of a video; None if no shard has it."""
        wanted = video_id.encode()
        number = int(np.searchsorted(self.videos.id, wanted))
        found = number < len(self) and self.videos.id[number] == wanted
        return number if found else None

    def record(self, video: int) -> VideoRecord:
        """Returns the row of one video, without its note."""
        table = self.videos
        return VideoRecord(
            id=self.video_id(video),
            path=table.path[video].decode(),
            fps=float(table.fps[video]),
            frames=int(table.frames[video]),
            width=int(table.width[video]),
            height=int(table.height[video]),
        )

    def notes(self) -> dict[str, str]:
        """Returns the notes of the videos that have one: {id: sentence}."""
        found = {}
        for shard in self._shards:
            with h5py.File(shard.path, "r", locking=False) as file:
                notes = file["videos/note"][()]
            for row in np.flatnonzero(notes != b""):
                found[shard.columns["id"][row].decode()] = notes[row].decode(
                    "utf-8", "backslashreplace"
                )
        return found

    @cached_property
    def digest(self) -> str:
        """Digest of all the data, from the digests recorded per video."""
        rows = zip(self.videos.id, self.videos.digest, strict=True)
        return data_digest((video.decode(), mark.decode()) for video, mark in rows)

    def frame_count(self, view: str) -> np.ndarray:
        """Returns the stored frames of every video: int [V].

        Raises:
            VidsslError: the shards do not have the view.
        """
        if view not in self.views:
            raise VidsslError(
                f"{self.folder} holds no view named {view!r}"
                f"{nearest_name(view, self.views)}: it has {', '.join(self.views)}"
            )
        return self.videos.length[view]

    def frame_bytes(self, view: str) -> float:
        """Returns the mean size in bytes of a view's stored frames.

        Raises:
            As :meth:`frame_count`.
        """
        frames = int(self.frame_count(view).sum())
        return sum(shard.places[view].size for shard in self._shards) / max(frames, 1)

    # ── frames

    def read(self, view: str, video: int, frames: FrameNumbers) -> list[bytes]:
        """Returns the blobs of some frames of one video, in the order asked for.

        Frames near each other are read together, and a frame asked for twice is read once. Every
        checksum is checked at every read.

        Raises:
            VidsslError: the shards do not have the view.
            IndexError: the video has no such frame.
            DamagedShard: a checksum is wrong; the text names file, video, view and frame.
        """
        unique, back = self._sort(view, video, frames)
        blobs = self._read_sorted(view, video, unique) if len(unique) else []
        return [blobs[i] for i in back]

    def frames(self, view: str, video: int, frames: FrameNumbers) -> np.ndarray:
        """Returns decoded frames: uint8 [T, H, W, C], in the order asked for, T at least 1.

        Where a view is stored at a stride, the frames in between are interpolated.

        Raises:
            As :meth:`read`.
        """
        _, back = self._sort(view, video, frames)
        pictures = list(self.pictures(view, video, frames))
        return np.stack([pictures[i] for i in back])

    def pictures(
        self, view: str, video: int, frames: FrameNumbers, *, for_copying: bool = False
    ) -> Iterator[np.ndarray]:
        """Returns decoded frames one by one, uint8 [H, W, C]: in ascending order, each once.

        A frame is decoded when it is asked for. A caller that drops each frame before it takes the
        next needs the memory of one frame, which stays in the core's cache.

        Args:
            for_copying: the caller only copies pixels out, so their order in memory is free
                (:meth:`vidssl.views.View.decode_for_copying`).

        Raises:
            As :meth:`read`.
        """
        unique, _ = self._sort(view, video, frames)
        stride = self.views[view].get("stride", 1)
        if stride == 1:
            decode = get_view(view).decode_for_copying if for_copying else get_view(view).decode
            codec = self.views[view]["codec"]
            return self._decoded(view, video, unique, partial(decode, codec=codec))
        count = int(self.frame_count(view)[video])
        return iter(read_strided(unique, stride, count, partial(self._decoded, view, video)))

    def flow(self, video: int, frames: FrameNumbers) -> np.ndarray:
        """Returns flow in pixels of the recorded working size, whatever its codec.

        Returns:
            float32 [T, H, W, 2], u to the right and v downward, in the order asked for.

        Raises:
            As :meth:`read`.
        """
        unique, back = self._sort("flow", video, frames)
        params = self.views["flow"]
        decode = partial(read_pixels, codec=params["codec"], bound=params["bound"])
        pictures = list(self._decoded("flow", video, unique, decode))
        return np.stack([pictures[i] for i in back])

    def _decoded(
        self,
        view: str,
        video: int,
        frames: np.ndarray,
        decode: Callable[[bytes], np.ndarray] | None = None,
    ) -> Iterator[np.ndarray]:
        """Yields stored frames, decoded: uint8 [H, W, C] each, or as `decode` makes them.

        Args:
            frames: in ascending order, each once.
        """
        decode = decode or partial(get_view(view).decode, codec=self.views[view]["codec"])
        for frame, blob in zip(frames, self._read_sorted(view, video, frames), strict=True):
            try:
                picture = decode(blob)
            except ValueError as error:
                what = f"cannot be decoded ({error})"
                raise self._damage(video, view, int(frame), what) from error
            yield picture

    def _sort(self, view: str, video: int, frames: FrameNumbers) -> tuple[np.ndarray, np.ndarray]:
        """Returns the frames sorted, each once, and the place of each one asked for among them."""
        count = int(self.frame_count(view)[video])
        unique, back = np.unique(np.asarray(frames, dtype=np.int64), return_inverse=True)
        if len(unique) and not 0 <= unique[0] <= unique[-1] < count:
            raise IndexError(f"{self.video_id(video)} has {count} frames of {view}, not {frames}")
        return unique, back

    def _read_sorted(self, view: str, video: int, frames: np.ndarray) -> list[bytes]:
        shard = self._shards[self.videos.shard[video]]
        place = shard.places[view]
        base = int(place.first_frame[self.videos.row[video]]) + self.first_frame(video)
        low, high = base + int(frames[0]), base + int(frames[-1]) + 1
        offsets = self._table(shard, place.offsets, low, high + 1, "<i8")
        crc32 = self._table(shard, place.crc32, low, high, "<u4")
        if offsets[0] < 0 or offsets[-1] > place.size or np.any(np.diff(offsets) < 0):
            raise self._damage(video, view, int(frames[0]), "has impossible offsets")
        wanted = frames - frames[0]
        begins, ends = offsets[wanted], offsets[wanted + 1]
        blobs: list[bytes] = []
        for run in np.split(np.arange(len(frames)), gaps_above(MOST_GAP, begins, ends)):
            edges = np.stack([begins[run], ends[run]], axis=1).tolist()
            (first, _), (_, end) = edges[0], edges[-1]
            data = self._pread(shard.path, end - first, place.blobs + first)
            blobs += [data[a - first : b - first] for a, b in edges]
        for frame, blob, crc in zip(frames, blobs, crc32[wanted].tolist(), strict=True):
            if zlib.crc32(blob) != crc:
                raise self._damage(video, view, int(frame), "does not match its checksum")
        return blobs

    def _table(self, shard: ShardTables, place: int, low: int, high: int, kind: str) -> np.ndarray:
        """Reads rows low..high of a per-frame table; the whole table has a gigabyte for K400."""
        width = np.dtype(kind).itemsize
        data = self._pread(shard.path, (high - low) * width, place + low * width)
        return np.frombuffer(data, kind)

    def _damage(self, video: int, view: str, frame: int, what: str) -> DamagedShard:
        return DamagedShard(
            f"{self.file_of(video)} is damaged: frame {frame} of view {view} of video "
            f"{self.video_id(video)} {what}",
            "run `vidssl verify` to see what else is, and type the command that made the artifact "
            "again with --new",
        )

    # ── file descriptors, one set per process

    def _pread(self, path: Path, count: int, place: int) -> bytes:
        try:
            data = os.pread(self._descriptor(path), count, place)
        except OSError as error:
            raise named_error(error, path) from error
        if len(data) != count:
            raise DamagedShard(f"{path} is damaged: it ends too early")
        return data

    def _descriptor(self, path: Path) -> int:
        if self._process != os.getpid():
            self._begin_process()
        descriptor = self._descriptors.get(path)
        if descriptor is None:
            with self._lock:
                if path not in self._descriptors:
                    self._descriptors[path] = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
                descriptor = self._descriptors[path]
        return descriptor

    def _begin_process(self) -> None:
        """Starts an empty set of descriptors; after a fork the parent's stay open and unused."""
        self._process = os.getpid()
        self._descriptors: dict[Path, int] = {}
        self._lock = threading.Lock()
        _allow_open_files(len(self._shards) + 256)

    def close(self) -> None:
        """Closes this process's files; a later read opens them again."""
        if self._process == os.getpid():
            for descriptor in self._descriptors.values():
                os.close(descriptor)
        self._begin_process()

    def __enter__(self) -> ShardReader:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def __getstate__(self) -> dict[str, Any]:
        of_process = ("_descriptors", "_lock", "_process")
        return {name: value for name, value in vars(self).items() if name not in of_process}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._begin_process()

    # ── verifying

    def verify(self, tell: Callable[[int], None] = lambda done: None) -> Iterator[str]:
        """Reads everything and yields one sentence per problem.

        Args:
            tell: is called with the number of videos read, after each of them.
        """
        for video in range(len(self)):
            yield from self._verify_video(video)
            tell(video + 1)

    def _verify_video(self, video: int) -> Iterator[str]:
        blobs: dict[str, list[bytes]] = {view: [] for view in self.views}
        sound = True
        for view in self.views:
            for frame in range(int(self.frame_count(view)[video])):
                try:
                    blobs[view] += self.read(view, video, [frame])
                except DamagedShard as error:
                    sound = False
                    yield error.fault
        if sound and video_digest(blobs, self.views) != self.videos.digest[video].decode():
            path, name = self.file_of(video), self.video_id(video)
            yield f"{path} is damaged: {name} does not match its digest"


def _allow_open_files(count: int) -> None:
    """Raises this process's limit of open files as far as allowed, for sets of many shards."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < count:
        most = count if hard == resource.RLIM_INFINITY else min(count, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))


def gaps_above(most: int, begins: np.ndarray, ends: np.ndarray) -> np.ndarray:
    """Returns the numbers of the blobs that begin more than `most` bytes after the one before."""
    return np.flatnonzero(begins[1:] - ends[:-1] > most) + 1
