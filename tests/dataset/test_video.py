"""Finding, naming and decoding video files."""

from __future__ import annotations

import errno
import os
import socket
import struct
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from video_files import moving_square, write_sound, write_video

from vidssl.base.errors import VidsslError
from vidssl.dataset.decoding import decode, duration, frame_rate
from vidssl.dataset.video import find_videos, fingerprint
from vidssl.dataset.video_bounds import UnreadableVideo


def names(path: Path) -> list[str]:
    return [source.name for source in find_videos(path)]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("b/two.mp4", "a/one.AVI", "root.mov"):
        path = tmp_path / "videos" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(name.encode())
    return tmp_path / "videos"


# ── finding


def test_a_folder_gives_its_videos_at_any_depth_sorted(folder: Path):
    for name in ("a/notes.txt", "a/splits.csv", ".hidden.mp4", "a/._one.mp4", "b/sound.wav"):
        (folder / name).write_bytes(b"x")
    assert names(folder) == ["a/one.AVI", "b/two.mp4", "root.mov"]


def test_typescript_is_no_transport_stream(folder: Path):
    (folder / "code.ts").write_text("export const x = 1;" * 40)
    (folder / "empty.ts").write_bytes(b"")
    (folder / "stream.ts").write_bytes((b"G" + bytes(187)) * 3)
    (folder / "starts_with_G.ts").write_bytes(b"Good morning" * 40)
    assert [n for n in names(folder) if n.endswith(".ts")] == ["empty.ts", "stream.ts"]


def test_ids_do_not_depend_on_where_the_folder_lies(folder: Path, tmp_path: Path):
    before = [source.id for source in find_videos(folder)]
    folder.rename(tmp_path / "elsewhere")
    after = [source.id for source in find_videos(tmp_path / "elsewhere")]
    assert before == after
    (tmp_path / "elsewhere/root.mov").write_bytes(b"another video")
    changed = [source.id for source in find_videos(tmp_path / "elsewhere")]
    assert changed[:2] == before[:2]
    assert changed[2] != before[2]


@pytest.mark.parametrize("place", [0, 500_000, 999_999])
def test_fingerprint_sees_start_middle_and_end(tmp_path: Path, place: int):
    path = tmp_path / "large.mp4"
    data = bytearray(1_000_000)
    path.write_bytes(data)
    before = fingerprint(path)
    data[place] = 1
    path.write_bytes(data)
    assert fingerprint(path) != before
    assert len(before) == 12


def test_a_single_file(folder: Path):
    (source,) = find_videos(folder / "a/one.AVI")
    assert source.name == "one.AVI"
    assert source.id == f"one.AVI#{source.fingerprint}"


def test_a_list_of_paths(folder: Path, monkeypatch: pytest.MonkeyPatch):
    listed = folder / "list.txt"
    listed.write_text(f"# a comment\n\nb/two.mp4\n{folder / 'root.mov'}\nb/../b/two.mp4\n")
    assert names(listed) == ["b/two.mp4", "root.mov"]
    monkeypatch.chdir(folder)
    elsewhere = folder.parent / "list.txt"
    elsewhere.write_text("b/two.mp4\na/one.AVI\n")
    assert names(elsewhere) == ["videos/a/one.AVI", "videos/b/two.mp4"]


def test_a_list_elsewhere_names_videos_as_their_folder_does(folder: Path, tmp_path: Path):
    (tmp_path / "lists").mkdir()
    listed = tmp_path / "lists/all.txt"
    listed.write_text("\n".join(str(s.path) for s in find_videos(folder)))
    assert [s.id for s in find_videos(listed)] == [s.id for s in find_videos(folder)]


def test_a_link_that_leads_back_up_is_followed_once(folder: Path):
    (folder / "a/loop").symlink_to(folder, target_is_directory=True)
    assert names(folder) == ["a/one.AVI", "b/two.mp4", "root.mov"]


def test_a_name_that_is_no_utf8(folder: Path):
    (folder / os.fsdecode(b"caf\xe9.mp4")).write_bytes(b"x")
    assert "caf\\xe9.mp4" in names(folder)
    find_videos(folder)[1].id.encode()


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("nowhere", "there is no such folder or file"),
        ("empty", "there is no video in"),
        ("notes.doc", "is no video"),
        ("list.txt", "names files that do not exist, 2 of 3: gone.mp4, lost.mp4"),
        ("comments.txt", "there is no video in the list"),
        ("binary.txt", "it is not text"),
    ],
)
def test_bad_inputs_cost_one_sentence(folder: Path, name: str, text: str):
    (folder / "empty").mkdir()
    (folder / "notes.doc").write_bytes(b"")
    (folder / "list.txt").write_text("gone.mp4\nroot.mov\nlost.mp4\n")
    (folder / "comments.txt").write_text("# nothing\n")
    (folder / "binary.txt").write_bytes(b"\xff\xfe\x80")
    with pytest.raises(VidsslError, match=text) as caught:
        find_videos(folder / name)
    assert "\n" not in str(caught.value)


def test_what_is_no_regular_file_is_not_opened_and_is_left_out_by_name(folder: Path):
    os.mkfifo(folder / "a/pipe.mp4")
    os.mkfifo(folder / "a/pipe.ts")
    (folder / "gone.mkv").symlink_to(folder / "nowhere.mkv")
    (folder / "circle.avi").symlink_to(folder / "circle.avi")
    with socket.socket(socket.AF_UNIX) as end:
        end.bind(os.path.relpath(folder / "s.mp4"))
        found = {source.name: source for source in find_videos(folder)}
    assert set(found) == {
        "a/one.AVI", "b/two.mp4", "root.mov", "a/pipe.mp4", "gone.mkv", "circle.avi", "s.mp4",
    }  # fmt: skip
    for name, why in [("a/pipe.mp4", "it is no regular file"), ("gone.mkv", "the file is gone"),
                      ("s.mp4", "it is no regular file")]:  # fmt: skip
        assert found[name].fingerprint == "0" * 12
        with pytest.raises(UnreadableVideo, match=why):
            read(found[name].path)
        assert duration(found[name].path) == 0
    with pytest.raises(UnreadableVideo):
        read(found["circle.avi"].path)


def test_a_pipe_as_a_list_or_in_a_list(folder: Path):
    os.mkfifo(folder / "pipe.txt")
    with pytest.raises(VidsslError, match=r"pipe\.txt is no regular file"):
        find_videos(folder / "pipe.txt")
    os.mkfifo(folder / "pipe.mp4")
    (folder / "list.txt").write_text("pipe.mp4\nroot.mov\n")
    assert names(folder / "list.txt") == ["pipe.mp4", "root.mov"]


@pytest.fixture
def deep(tmp_path: Path) -> Iterator[Path]:
    """A folder with a video 1,500 folders deep; taken away again, since rmtree cannot."""
    here, depth = os.getcwd(), 1500
    os.chdir(tmp_path)
    try:
        for _ in range(depth):
            os.mkdir("d")
            os.chdir("d")
        Path("v.mp4").touch()
        yield tmp_path
        os.remove("v.mp4")
        for _ in range(depth):
            os.chdir("..")
            os.rmdir("d")
    finally:
        os.chdir(here)


def test_folders_without_end_are_one_sentence(deep: Path):
    with pytest.raises(VidsslError, match="has folders more than 500 deep, from /d/d") as caught:
        find_videos(deep)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 400


def test_a_list_of_any_line_ends_and_with_a_mark(folder: Path):
    (folder / "list.txt").write_bytes(b"\xef\xbb\xbfroot.mov\r\nb/two.mp4\ra/one.AVI")
    assert names(folder / "list.txt") == ["a/one.AVI", "b/two.mp4", "root.mov"]
    (folder / "list.txt").write_text("x" * 5000 + "\n" + "no\0thing\n")
    with pytest.raises(VidsslError, match="names files that do not exist, 2 of 2: xxx") as caught:
        find_videos(folder / "list.txt")
    assert len(str(caught.value)) < 600


# ── decoding


def read(path: Path, notes: list[str] | None = None) -> np.ndarray:
    return np.stack(list(decode(path, notes)))


def near(a: np.ndarray, b: np.ndarray) -> bool:
    return a.shape == b.shape and float(np.abs(a.astype(int) - b).mean()) < 6


def test_frames_are_those_that_were_filmed(tmp_path: Path):
    clip = moving_square()
    path = write_video(tmp_path / "v.mp4", clip)
    assert near(read(path), clip)
    assert frame_rate(path) == 25


def test_odd_sizes(tmp_path: Path):
    clip = moving_square(4, 51, 37)
    assert near(read(write_video(tmp_path / "v.mkv", clip)), clip)


@pytest.mark.parametrize(("degrees", "turns"), [(90, 1), (-90, 3), (180, 2)])
def test_rotated_video_is_put_upright(tmp_path: Path, degrees: int, turns: int):
    clip = moving_square(3)
    path = write_video(tmp_path / "v.mp4", clip, rotation=degrees)
    assert near(read(path), np.rot90(clip, turns, axes=(1, 2)))


def test_mpeg4_in_avi(tmp_path: Path):
    clip = moving_square(12)
    assert near(read(write_video(tmp_path / "v.avi", clip, codec="mpeg4")), clip)


def test_frames_of_changing_size_take_the_first_ones(tmp_path: Path):
    small, large = moving_square(3, 64, 48), moving_square(4, 128, 96)
    one = write_video(tmp_path / "a.ts", small, codec="mpeg2video")
    two = write_video(tmp_path / "b.ts", large, codec="mpeg2video")
    both = tmp_path / "both.ts"
    both.write_bytes(one.read_bytes() + two.read_bytes())
    notes: list[str] = []
    frames = read(both, notes)
    assert frames.shape[1:] == (48, 64, 3)
    assert len(frames) > 3
    assert "changed size" in notes[0]


def test_damage_ends_the_video_with_a_note(tmp_path: Path):
    clip = np.random.default_rng(0).integers(0, 256, (30, 48, 64, 3), np.uint8)
    path = write_video(tmp_path / "v.mp4", clip)
    data = bytearray(path.read_bytes())
    start = len(data) // 3
    data[start : start + len(data) // 3] = b"\xff" * (len(data) // 3)
    path.write_bytes(data)
    notes: list[str] = []
    frames = read(path, notes)
    assert 0 < len(frames) < 30
    assert f"damaged after frame {len(frames)}" in notes[0]


def test_a_damaged_start_is_skipped(tmp_path: Path):
    clip = moving_square(10)
    path = write_video(tmp_path / "v.mp4", clip, key_frames_only=True)
    data = bytearray(path.read_bytes())
    first = data.index(b"mdat") + 4
    data[first : first + 1000] = b"\xff" * 1000
    path.write_bytes(data)
    notes: list[str] = []
    frames = read(path, notes)
    assert 6 < len(frames) < 10
    assert near(frames, clip[-len(frames) :])
    assert "the start is damaged and was skipped" in notes[0]


def test_unreadable_files_say_why(tmp_path: Path):
    whole = write_video(tmp_path / "whole.mp4", moving_square(8))
    truncated = tmp_path / "truncated.mp4"
    truncated.write_bytes(whole.read_bytes()[:300])
    (tmp_path / "empty.mp4").write_bytes(b"")
    (tmp_path / "text.mp4").write_text("not a video at all\n" * 30)
    write_sound(tmp_path / "sound.mp4")
    expected = {
        "empty": "the file is empty",
        "truncated": "it cannot be opened as video",
        "text": "it cannot be opened as video",
        "sound": "it has no moving picture, only audio",
        "gone": "the file is gone",
    }
    for name, reason in expected.items():
        with pytest.raises(UnreadableVideo, match=reason) as caught:
            read(tmp_path / f"{name}.mp4")
        assert "\n" not in str(caught.value)


def test_a_list_of_other_files_is_no_video(tmp_path: Path):
    write_video(tmp_path / "real.mp4", moving_square(3))
    (tmp_path / "list.mp4").write_text("ffconcat version 1.0\nfile real.mp4\n")
    with pytest.raises(UnreadableVideo, match=r"a list of other files \(concat\), not a video"):
        read(tmp_path / "list.mp4")


@pytest.mark.parametrize(
    "text",
    [
        "#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\n{url}\n#EXT-X-ENDLIST\n",
        "ffconcat version 1.0\nfile {url}\n",
        '<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011"><Period><AdaptationSet '
        'mimeType="video/mp4"><Representation id="1" bandwidth="1"><BaseURL>{url}</BaseURL>'
        "</Representation></AdaptationSet></Period></MPD>",
        "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=video 5004 RTP/AVP 96\n",
    ],
    ids=["hls", "concat", "dash", "sdp"],
)
def test_no_video_opens_a_connection(tmp_path: Path, monkeypatch, text: str):
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(0)
        url = f"http://127.0.0.1:{server.getsockname()[1]}/x.mp4"
        (tmp_path / "v.mp4").write_text(text.format(url=url))
        with pytest.raises(UnreadableVideo):
            read(tmp_path / "v.mp4")
        # A name that looks like an address is a name.
        monkeypatch.chdir(tmp_path)
        name = url.replace("http://", "tcp:").replace("/x.mp4", ".mp4")
        write_video(tmp_path / name, moving_square(3))
        assert len(read(Path(name))) == 3
        with pytest.raises(BlockingIOError):
            server.accept()


def test_a_folder_that_cannot_be_read_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    real = os.scandir

    def closed(path: str) -> object:
        if Path(path).name in ("closed", "lost+found"):
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return real(path)

    for name in ("open", "lost+found"):  # that of a disk's root is nobody's
        write_video(tmp_path / name / "v.mp4", moving_square(2))
    monkeypatch.setattr(os, "scandir", closed)
    assert [source.name for source in find_videos(tmp_path)] == ["open/v.mp4"]
    write_video(tmp_path / "closed" / "v.mp4", moving_square(2))
    with pytest.raises(VidsslError, match="closed cannot be read: Permission denied"):
        find_videos(tmp_path)


def test_duration_is_what_the_header_says(tmp_path: Path):
    video = write_video(tmp_path / "v.mp4", moving_square(10), fps=5)
    assert duration(video) == pytest.approx(2.0)
    (tmp_path / "broken.mp4").write_bytes(b"no video")
    assert duration(tmp_path / "broken.mp4") == duration(write_sound(tmp_path / "s.mp4")) == 0
    assert duration(tmp_path / "gone.mp4") == 0


def test_a_line_break_in_a_name_is_escaped(tmp_path):
    write_video(tmp_path / "new\nline\tor two.mp4", moving_square(2))
    (source,) = find_videos(tmp_path)
    assert source.name == r"new\x0aline\x09or two.mp4"
    assert source.path.exists()


# ── what messy folders hold


def test_a_link_to_a_missing_disk_is_listed(tmp_path: Path):
    (tmp_path / "jump").mkdir()
    (tmp_path / "jump/1.mp4").write_bytes(b"x")
    (tmp_path / "run").symlink_to(tmp_path / "disk/run")
    (tmp_path / "jump/2.ts").symlink_to(tmp_path / "disk/2.ts")
    (tmp_path / "notes.txt").symlink_to(tmp_path / "disk/notes.txt")
    assert names(tmp_path) == ["jump/1.mp4", "jump/2.ts", "run"]
    with pytest.raises(UnreadableVideo, match="the file is gone"):
        read(tmp_path / "run")


@pytest.mark.parametrize("cut", [1, 100, 1000])
def test_a_transport_stream_captured_in_mid_packet(tmp_path: Path, cut: int):
    clip = moving_square(30)
    whole = write_video(tmp_path / "whole.mpegts.ts", clip, codec="mpeg2video").read_bytes()
    whole = (whole * 4)[cut:]
    (tmp_path / "cut.ts").write_bytes(whole)
    (tmp_path / "code.ts").write_text("export const G = 'GGGG';\n" * 500)
    assert "cut.ts" in names(tmp_path) and "code.ts" not in names(tmp_path)
    assert len(read(tmp_path / "cut.ts")) > 20


def test_folders_of_deleted_files_are_no_classes(tmp_path: Path):
    for folder in ("run", "$RECYCLE.BIN", "#recycle", "@eaDir", ".Trash-1000", "__MACOSX"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "1.mp4").write_bytes(b"x")
    assert names(tmp_path) == ["run/1.mp4"]


def test_an_existing_file_goes_before_the_syntax_of_a_list(tmp_path: Path):
    for name in ("#20_Rhythm_clap_u_nm_np1_fr_goo_0.mp4", "end .mp4", "b.mp4 "):
        (tmp_path / name).write_bytes(b"x")
    lines = "# a comment\n#20_Rhythm_clap_u_nm_np1_fr_goo_0.mp4\nend .mp4\nb.mp4 \n#gone.mp4\n"
    (tmp_path / "list.txt").write_text(lines)
    assert names(tmp_path / "list.txt") == [
        "#20_Rhythm_clap_u_nm_np1_fr_goo_0.mp4",
        "b.mp4 ",
        "end .mp4",
    ]


MIRRORS = {  # a b c d of the matrix: x' = a x + c y, y' = b x + d y; what is meant to be seen
    (-1, 0, 0, 1): lambda clip: clip[:, :, ::-1],
    (1, 0, 0, -1): lambda clip: clip[:, ::-1],
    (0, 1, 1, 0): lambda clip: clip.swapaxes(1, 2),
    (0, -1, -1, 0): lambda clip: clip.swapaxes(1, 2)[:, ::-1, ::-1],
    (0, 1, -1, 0): lambda clip: np.rot90(clip, -1, axes=(1, 2)),
    (-1, 0, 0, -1): lambda clip: clip[:, ::-1, ::-1],
}


@pytest.mark.parametrize("matrix", MIRRORS)
def test_a_display_matrix_may_mirror(tmp_path: Path, matrix: tuple[int, int, int, int]):
    """Computed from the definition of the matrix, that each pixel goes to (x', y')."""
    clip = moving_square(3)
    path = write_video(tmp_path / "v.mp4", clip)
    data = bytearray(path.read_bytes())
    plain = struct.pack(">9i", 1 << 16, 0, 0, 0, 1 << 16, 0, 0, 0, 1 << 30)
    place = data.index(plain, data.index(b"tkhd"))
    a, b, c, d = (value << 16 for value in matrix)
    data[place : place + len(plain)] = struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, 1 << 30)
    path.write_bytes(data)
    assert near(read(path), MIRRORS[matrix](clip))
