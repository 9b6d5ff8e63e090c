"""Shards: what one process writes any other reads, whatever was killed in between."""

from __future__ import annotations

import errno
import multiprocessing
import os
import pickle
import signal
import subprocess
import sys
import time
import zlib
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest
from paths import SUPPORT
from patience import PATIENCE

from vidssl.base.errors import VidsslError
from vidssl.shards import DamagedShard, ShardReader, ShardWriter, VideoRecord, video_digest
from vidssl.shards import spool as spool_module
from vidssl.views import VIEWS

PARAMS = {"rgb": {"codec": "png", "size": 16}, "flow": {"codec": "png", "bound": 10.0}}


def pictures(seed: int, frames: int) -> dict[str, np.ndarray]:
    """Random frames of both views; flow has one fewer."""
    draw = np.random.default_rng(seed)
    return {
        "rgb": draw.integers(0, 256, (frames, 6, 8, 3), np.uint8),
        "flow": draw.integers(1, 256, (frames - 1, 6, 8, 2), np.uint8),
    }


def encoded(frames: dict[str, np.ndarray]) -> dict[str, list[bytes]]:
    return {name: [VIEWS[name].encode(f, "png") for f in frames[name]] for name in frames}


def record(number: int, frames: int) -> VideoRecord:
    return VideoRecord(f"ä/v{number}.mp4#00", f"ä/v{number}.mp4", 25.0, frames, 32, 24)


def fill(folder: Path, numbers: range, shard_bytes: int = 4000) -> ShardWriter:
    writer = ShardWriter(folder, PARAMS, shard_bytes)
    for number in numbers:
        if record(number, 5).id not in writer.finished:
            writer.add(record(number, 5 + number % 3), encoded(pictures(number, 5 + number % 3)))
    return writer


@pytest.fixture
def shards(tmp_path: Path) -> Path:
    fill(tmp_path, range(7)).finish()
    return tmp_path


def test_reader_gives_back_what_was_written(shards: Path):
    reader = ShardReader(shards)
    assert len(list(shards.glob("shard-*.h5"))) > 2
    assert len(reader) == 7
    for video in range(7):
        number = int(reader.video_id(video).split("/v")[1].split(".")[0])
        for view, expected in pictures(number, 5 + number % 3).items():
            assert reader.frame_count(view)[video] == len(expected)
            every = reader.frames(view, video, range(len(expected)))
            np.testing.assert_array_equal(every, expected)


def test_videos_are_sorted_and_found_by_id(tmp_path: Path):
    fill(tmp_path, range(8, -1, -1)).finish()
    reader = ShardReader(tmp_path)
    ids = [reader.video_id(i) for i in range(9)]
    assert ids == sorted(ids)
    assert [reader.find(video) for video in ids] == list(range(9))
    assert reader.find("ä/v9.mp4#00") is reader.find("a") is reader.find("ä/v0.mp4#00x") is None


def test_notes_are_kept(tmp_path: Path):
    with ShardWriter(tmp_path, PARAMS) as writer:
        for number, note in enumerate(["", "damaged after frame 3"]):
            video = replace(record(number, 5), note=note)
            writer.add(video, encoded(pictures(number, 5)))
        writer.finish()
    assert ShardReader(tmp_path).notes() == {record(1, 5).id: "damaged after frame 3"}


def test_frames_come_in_the_order_asked_for_and_repeats_are_read_once(
    shards: Path, monkeypatch: pytest.MonkeyPatch
):
    reader = ShardReader(shards)
    expected = pictures(0, 5)["rgb"]
    sizes: list[int] = []
    real = os.pread
    monkeypatch.setattr(os, "pread", lambda fd, n, at: sizes.append(n) or real(fd, n, at))
    wanted = [4, 0, 0, 1, 4]
    np.testing.assert_array_equal(reader.frames("rgb", 0, wanted), expected[wanted])
    # offsets, checksums, the run 0..1 and the run 4
    blobs = [len(b) for b in encoded({"rgb": expected})["rgb"]]
    assert sizes == [6 * 8, 5 * 4, sum(blobs[:5])]
    assert reader.read("rgb", 0, []) == []


@pytest.mark.parametrize(("not_read", "reads"), [(0, 3), (1 << 16, 1)])
def test_frames_near_each_other_are_one_read(shards: Path, monkeypatch, not_read, reads):
    seen = []
    pread = os.pread
    monkeypatch.setattr("vidssl.shards.reader.MOST_GAP", not_read)
    monkeypatch.setattr(os, "pread", lambda *a: seen.append(a) or pread(*a))
    with ShardReader(shards) as reader:
        every = reader.read("rgb", 1, range(5))
        seen.clear()
        assert reader.read("rgb", 1, [4, 0, 2]) == [every[4], every[0], every[2]]
    assert len(seen) == 2 + reads  # offsets and checksums are two


def test_any_h5py_user_can_read_a_shard(shards: Path):
    with h5py.File(shards / "shard-0000.h5") as file:
        view = file["views/flow"]
        assert view["blobs"].chunks is None
        assert view["blobs"].compression is None
        assert view["blobs"].dtype == np.uint8
        assert view["offsets"].dtype == np.dtype("<i8")
        assert view["crc32"].dtype == np.dtype("<u4")
        low, high = view["offsets"][1:3]
        frame = VIEWS["flow"].decode(view["blobs"][low:high].tobytes(), "png")
        assert file["videos/id"].asstr()[0] == "ä/v0.mp4#00"
        assert file.userblock_size == 0
    np.testing.assert_array_equal(frame, pictures(0, 5)["flow"][1])


def test_impossible_requests_are_refused(shards: Path, tmp_path: Path):
    reader = ShardReader(shards)
    with pytest.raises(IndexError, match="has 5 frames of rgb"):
        reader.read("rgb", 0, [5])
    with pytest.raises(IndexError):
        reader.read("rgb", 0, [-1])
    with pytest.raises(VidsslError, match=r"no view named 'flo' \(did you mean flow\?\)"):
        reader.read("flo", 0, [0])
    with pytest.raises(VidsslError, match="there is no shard in"):
        ShardReader(tmp_path / "nowhere")
    writer = ShardWriter(tmp_path / "other", PARAMS)
    with pytest.raises(ValueError, match="views"):
        writer.add(record(0, 5), {"rgb": []})


# ── digests


def test_digest_of_data_does_not_depend_on_order_or_sharding(tmp_path: Path):
    one = fill(tmp_path / "one", range(6), shard_bytes=1 << 30).finish()
    many = fill(tmp_path / "many", range(5, -1, -1), shard_bytes=1000).finish()
    other = fill(tmp_path / "other", range(1, 7)).finish()
    assert len(list((tmp_path / "one").glob("*.h5"))) == 1
    assert len(list((tmp_path / "many").glob("*.h5"))) == 6
    assert one == many == ShardReader(tmp_path / "many").digest
    assert one != other


def test_video_digest_covers_parameters_and_where_frames_end():
    params = {"rgb": {"codec": "png"}}
    digests = {
        video_digest({"rgb": [b"ab", b"c"]}, params),
        video_digest({"rgb": [b"a", b"bc"]}, params),
        video_digest({"rgb": [b"ab", b"c"]}, {"rgb": {"codec": "jpeg90"}}),
    }
    assert len(digests) == 3


# ── many readers


def test_threads_read_what_one_reader_reads(shards: Path):
    reader = ShardReader(shards)
    with ThreadPoolExecutor(8) as pool:
        jobs = [pool.submit(reader.frames, "rgb", n % 7, [3, 1]) for n in range(200)]
        for n, job in enumerate(jobs):
            np.testing.assert_array_equal(job.result(), reader.frames("rgb", n % 7, [3, 1]))


def test_a_pickled_reader_reads(shards: Path):
    reader = ShardReader(shards)
    reader.read("rgb", 0, [0])
    copy = pickle.loads(pickle.dumps(reader))
    assert copy._descriptors == {}
    assert copy.read("flow", 3, [2]) == reader.read("flow", 3, [2])


def _read_in_child(reader: ShardReader, queue: multiprocessing.Queue) -> None:
    own = set(reader._descriptors)
    blobs = reader.read("rgb", 0, [1])
    queue.put((bool(own), reader._process == os.getpid(), blobs))


@pytest.mark.filterwarnings("ignore:This process")
def test_a_forked_reader_opens_files_for_itself(shards: Path):
    reader = ShardReader(shards)
    expected = reader.read("rgb", 0, [1])
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    child = context.Process(target=_read_in_child, args=(reader, queue))
    child.start()
    assert queue.get(timeout=PATIENCE) == (True, True, expected)
    child.join()


# ── damage


def flip_byte(path: Path, place: int) -> None:
    data = bytearray(path.read_bytes())
    data[place] ^= 0x10
    path.write_bytes(data)


def blob_place(path: Path, view: str, frame: int) -> int:
    with h5py.File(path) as file:
        group = file["views"][view]
        return group["blobs"].id.get_offset() + int(group["offsets"][frame]) + 3


def test_a_flipped_byte_is_named_and_found(shards: Path):
    assert list(ShardReader(shards).verify()) == []
    flip_byte(shards / "shard-0001.h5", blob_place(shards / "shard-0001.h5", "flow", 2))
    reader = ShardReader(shards)
    video = int(np.flatnonzero(reader.videos.shard == 1)[0])
    expected = f"frame 2 of view flow of video {reader.video_id(video)} does not match"
    with pytest.raises(DamagedShard, match=expected) as caught:
        reader.frames("flow", video, [1, 2, 3])
    assert "shard-0001.h5" in str(caught.value)
    assert "vidssl verify" in str(caught.value)
    assert len(reader.frames("flow", video, [1, 3])) == 2
    problems = list(reader.verify())
    assert len(problems) == 1
    assert expected in problems[0]


def test_a_flipped_byte_in_any_table_is_noticed(shards: Path):
    path = shards / "shard-0000.h5"
    whole = path.read_bytes()
    with h5py.File(path) as file:
        places = {
            name: file[name].id.get_offset()
            for name in ("views/rgb/offsets", "views/rgb/crc32", "views/rgb/first_frame")
        }
    for name, start in places.items():
        for byte in (9, 12, 14, 15):
            path.write_bytes(whole)
            flip_byte(path, start + byte)
            try:
                problems = list(ShardReader(shards).verify())
            except DamagedShard as error:
                problems = [str(error)]
            assert problems, f"{name} byte {byte}"
            assert all("damaged" in problem for problem in problems)


def test_a_swapped_frame_does_not_match_the_digest(shards: Path):
    path = shards / "shard-0000.h5"
    with h5py.File(path, "r+") as file:
        group = file["views/rgb"]
        low, high = group["offsets"][0:2]
        other = VIEWS["rgb"].encode(np.zeros((6, 8, 3), np.uint8), "png")
        blob = np.zeros(high - low, np.uint8)
        blob[: min(len(other), high - low)] = np.frombuffer(other, np.uint8)[: high - low]
        group["blobs"][low:high] = blob
        group["crc32"][0] = zlib.crc32(blob.tobytes())
    assert ["does not match its digest" in p for p in ShardReader(shards).verify()] == [True]


def test_a_shard_that_may_not_be_read_is_not_called_damaged(
    shards: Path, monkeypatch: pytest.MonkeyPatch
):
    def closed(*given: object, **named: object) -> None:
        raise PermissionError(errno.EACCES, "Unable to synchronously open file (…)")

    monkeypatch.setattr(h5py, "File", closed)
    with pytest.raises(VidsslError, match=r"shard-0000\.h5 cannot be read: permission denied") as e:
        ShardReader(shards)
    assert not isinstance(e.value, DamagedShard)


@pytest.mark.parametrize("keep", [0, 100, 0.5, 0.999])
def test_a_truncated_shard_is_one_sentence(shards: Path, keep: float):
    path = shards / "shard-0000.h5"
    data = path.read_bytes()
    path.write_bytes(data[: int(keep * len(data)) if keep < 1 else int(keep)])
    with pytest.raises(DamagedShard, match="damaged or cut short"):
        ShardReader(shards)


def test_an_unknown_version_is_one_sentence(shards: Path):
    with h5py.File(shards / "shard-0000.h5", "r+") as file:
        file.attrs["format_version"] = 99
    with pytest.raises(VidsslError, match="has shard format version 99, and this vidssl"):
        ShardReader(shards)


def test_strange_files_are_refused(shards: Path):
    with h5py.File(shards / "shard-0009.h5", "w"):
        pass
    with pytest.raises(VidsslError, match="is no vidssl shard"):
        ShardReader(shards)


def test_shards_of_different_parameters_do_not_mix(shards: Path, tmp_path: Path):
    others = {**PARAMS, "rgb": {"codec": "png", "size": 99}}
    with pytest.raises(VidsslError, match="other parameters"):
        ShardWriter(shards, others)
    fill(tmp_path / "begun", range(1), 1 << 30).close()
    with pytest.raises(VidsslError, match="other parameters"):
        ShardWriter(tmp_path / "begun", others)


# ── a writer that is stopped


def all_there(folder: Path, numbers: range) -> None:
    """The set is exactly what one undisturbed writer makes."""
    digest = fill(folder, numbers).finish()
    assert not list(folder.glob("spool*"))
    assert not list(folder.glob("*.tmp"))
    reader = ShardReader(folder)
    assert len(reader) == len(numbers)
    assert list(reader.verify()) == []
    twin = folder.with_name(folder.name + "-twin")
    assert digest == reader.digest == fill(twin, numbers).finish()


@pytest.mark.parametrize("cut", [1, 40, 400])
def test_a_torn_journal_line_costs_its_video_only(tmp_path: Path, cut: int):
    folder = tmp_path / "torn"
    fill(folder, range(3), 1 << 30).close()
    journal = folder / "spool-0000.journal"
    data = journal.read_bytes()
    journal.write_bytes(data[:-cut])
    writer = ShardWriter(folder, PARAMS)
    assert len(writer.finished) == 2
    writer.close()
    all_there(folder, range(5))


def test_blobs_without_a_journal_line_are_cut_off(tmp_path: Path):
    folder = tmp_path / "cut"
    fill(folder, range(2), 1 << 30).close()
    with (folder / "spool-0000.bin").open("ab") as file:
        file.write(b"half a video")
    all_there(folder, range(4))


def test_a_journal_line_without_its_blobs_does_not_count(tmp_path: Path):
    folder = tmp_path / "lost"
    fill(folder, range(2), 1 << 30).close()
    spool = folder / "spool-0000.bin"
    os.truncate(spool, spool.stat().st_size - 1)
    all_there(folder, range(4))


def test_a_kill_between_rename_and_clean_up(tmp_path: Path):
    folder = tmp_path / "sealed"
    fill(folder, range(2), 1 << 30).close()
    spool = {path.name: path.read_bytes() for path in folder.glob("spool-0000*")}
    fill(folder, range(2), 1 << 30).finish()
    for name, data in spool.items():
        (folder / name).write_bytes(data)
    (folder / "shard-0001.h5.tmp").write_bytes(b"half a shard")
    all_there(folder, range(4))


WRITE_SLOWLY = """
import sys
from pathlib import Path
sys.path[:0] = sys.argv[2:]
from test_shards import fill
fill(Path(sys.argv[1]), range(40), 6000).finish()
"""


@pytest.mark.parametrize("delay", [0.0, 0.02, 0.05])
def test_a_writer_killed_at_any_moment_goes_on(tmp_path: Path, delay: float):
    folder = tmp_path / "killed"
    command = [
        sys.executable,
        "-c",
        WRITE_SLOWLY,
        str(folder),
        str(Path(__file__).parent),
        str(SUPPORT),
    ]
    process = subprocess.Popen(command)
    deadline = time.monotonic() + PATIENCE
    while not list(folder.glob("spool-*.journal")) and time.monotonic() < deadline:
        time.sleep(0.001)
    time.sleep(delay)
    process.send_signal(signal.SIGKILL)
    process.wait()
    all_there(folder, range(40))


@pytest.mark.parametrize("full_after", [0, 1, 2, 5])
def test_a_full_disk_loses_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, full_after: int
):
    folder = tmp_path / "full"
    fill(folder, range(2), 1 << 30).close()
    writer = ShardWriter(folder, PARAMS)
    left = [full_after]

    def write(descriptor: int, data: bytes) -> int:
        if not left[0]:
            raise OSError(errno.ENOSPC, "No space left on device")
        left[0] -= 1
        return os.write(descriptor, bytes(data[:100]))

    monkeypatch.setattr(spool_module, "os", _OsWith(write=write))
    with pytest.raises(VidsslError, match="the disk is full"):
        writer.add(record(2, 7), encoded(pictures(2, 7)))
    monkeypatch.undo()
    assert len(writer.finished) == 2
    writer.add(record(2, 7), encoded(pictures(2, 7)))
    writer.close()
    all_there(folder, range(4))


def test_a_disk_that_fills_up_under_a_shard_loses_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    def no_room(descriptor: int, start: int, size: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    folder = tmp_path / "full"
    monkeypatch.setattr(os, "posix_fallocate", no_room)
    with pytest.raises(VidsslError, match="the disk is full"):
        fill(folder, range(3)).finish()
    monkeypatch.undo()
    assert not list(folder.glob("*.h5*"))
    all_there(folder, range(4))


def test_a_shard_holds_no_more_than_it_needs(tmp_path: Path):
    fill(tmp_path, range(30), 1 << 30).finish()
    blobs = sum(
        len(b) for n in range(30) for v in encoded(pictures(n, 5 + n % 3)).values() for b in v
    )
    assert (tmp_path / "shard-0000.h5").stat().st_size < blobs + 30_000


def test_blobs_are_on_the_disk_before_the_journal_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    writer = ShardWriter(tmp_path, PARAMS)
    calls: list[tuple[str, str]] = []

    def name(descriptor: int) -> str:
        return os.readlink(f"/proc/self/fd/{descriptor}").rpartition(".")[2]

    def write(descriptor: int, data: bytes) -> int:
        calls.append(("write", name(descriptor)))
        return os.write(descriptor, data)

    def fsync(descriptor: int) -> None:
        calls.append(("fsync", name(descriptor)))

    monkeypatch.setattr(spool_module, "os", _OsWith(write=write, fsync=fsync))
    writer.add(record(0, 5), encoded(pictures(0, 5)))
    assert calls == [
        ("write", "bin"),
        ("fsync", "bin"),
        ("write", "journal"),
        ("fsync", "journal"),
    ]


class _OsWith:
    """The os module with some functions of its own."""

    def __init__(self, **functions):
        vars(self).update(functions)

    def __getattr__(self, name: str):
        return getattr(os, name)
