"""The contact sheet: what is on it, and that no name or frame can break it."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from vidssl.base.errors import VidsslError
from vidssl.retrieval import contact_sheet, text_drawing
from vidssl.retrieval.contact_sheet import Card, draw_sheet, render_sheet
from vidssl.retrieval.overlay import overlay_pictures


def card(colour: tuple[int, int, int], size: tuple[int, int] = (36, 48), **fields) -> Card:
    frames = [np.full((*size, 3), colour, np.uint8) for _ in range(3)]
    return Card(frames, fields.pop("name", "clip.mp4"), **fields)


def neighbours(count: int) -> list[Card]:
    return [
        card((200, 20 * n, 10), rank=n + 1, similarity=1 - n / 5, label="walk", detail="0.0 s")
        for n in range(count)
    ]


def has(picture: np.ndarray, colour: tuple[int, int, int]) -> bool:
    return bool((np.abs(picture.astype(int) - colour).max(-1) <= 1).any())


def test_query_is_left_of_its_neighbours() -> None:
    picture = render_sheet(card((10, 220, 10)), neighbours(4))
    middle = 400  # the query is 320 wide
    assert has(picture[:, :middle], (10, 220, 10))
    for n in range(4):
        assert has(picture[:, middle:], (200, 20 * n, 10))
        assert not has(picture[:, :middle], (200, 20 * n, 10))


def test_ranks_run_from_left_to_right() -> None:
    picture = render_sheet(card((10, 220, 10)), neighbours(4))
    first, second, third = (
        np.argwhere((picture == (200, 20 * n, 10)).all(-1)).mean(0) for n in range(3)
    )
    assert first[0] == second[0] and first[1] < second[1] and third[0] > first[0]


@pytest.mark.parametrize("count", [0, 1, 3, 10, 37])
def test_any_number_of_neighbours(count: int) -> None:
    picture = render_sheet(card((1, 2, 3)), neighbours(count), footer="checkpoint")
    assert picture.dtype == np.uint8 and picture.shape[2] == 3
    assert (picture[:10] == contact_sheet.GROUND).all() and (
        picture[:, -10:] == contact_sheet.GROUND
    ).all()


@pytest.mark.parametrize("size", [(16, 200), (200, 16), (1, 1), (720, 1280)])
def test_odd_frames(size: tuple[int, int]) -> None:
    render_sheet(card((9, 9, 9), size), [card((99, 9, 9), size, rank=1, similarity=-0.3)])


def test_same_label_stands_out_only_when_the_query_has_one() -> None:
    other = [card((5, 5, 5), rank=1, similarity=0.5, label="walk")]
    assert has(render_sheet(card((1, 1, 1), label="walk"), other), contact_sheet.SAME)
    assert not has(render_sheet(card((1, 1, 1), label="run"), other), contact_sheet.SAME)
    assert not has(render_sheet(card((1, 1, 1)), other), contact_sheet.SAME)


def test_the_file_is_a_picture(tmp_path: Path) -> None:
    for name in ("Übung 日本.png", "b.jpg"):
        draw_sheet(tmp_path / name, card((10, 220, 10)), neighbours(2), "footer")
        data = np.frombuffer((tmp_path / name).read_bytes(), np.uint8)
        read = cv2.cvtColor(cv2.imdecode(data, cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB)
        expected = render_sheet(card((10, 220, 10)), neighbours(2), "footer")
        assert np.abs(read.astype(int) - expected).mean() < 3
    with pytest.raises(VidsslError, match="name it"):
        draw_sheet(tmp_path / "c.txt", card((1, 1, 1)), [])


# ── letters


@pytest.mark.parametrize("unicode_font", [True, False])
def test_names_of_any_script_fit(monkeypatch: pytest.MonkeyPatch, unicode_font: bool) -> None:
    if not unicode_font:  # OpenCV 4 has none
        monkeypatch.setattr(text_drawing, "_unicode_face", lambda: None)
    elif not hasattr(cv2, "FontFace"):
        pytest.skip("this OpenCV has no Unicode font")
    for name in (
        "Grüße – sehr langer Name einer Datei.mp4",
        "日本語の動画ファイル名、とても長い.mp4",
        "x" * 300,
    ):
        short = text_drawing.fit(name, 180, 16)
        assert text_drawing.text_width(short, 16) <= 180
        assert short[0] == name[0] and short[-1] == name[-1] and text_drawing.ELLIPSIS in short
        picture = np.zeros((40, 200, 3), np.uint8)
        text_drawing.draw_text(picture, short, (4, 28), 16, (255, 255, 255))
        assert picture.any() and not picture[:, 190:].any()
    assert text_drawing.fit("short.mp4", 180, 16) == "short.mp4"
    render_sheet(card((1, 1, 1), name="Привет.mp4", label="día"), neighbours(3), "… – −")


LONG = "a_folder_of_many_letters_that_fills_the_line"


@pytest.mark.parametrize(
    "paths",
    [
        ["a/clip.mp4", "b/clip.mp4"],
        [f"{LONG}/a/{LONG}/clip.mp4", f"{LONG}/b/{LONG}/clip.mp4"],
        [f"{LONG}/a/{LONG}/1.mp4", f"{LONG}/b/{LONG}/1.mp4", f"{LONG}/b/{LONG}/2.mp4", "c/1.mp4"],
        [f"{LONG}/a/x/{LONG}/c.mp4", f"{LONG}/a/y/{LONG}/c.mp4", f"{LONG}/b/y/{LONG}/c.mp4"],
        [f"{LONG}1{LONG}.mp4", f"{LONG}2{LONG}.mp4"],
    ],
)
def test_paths_that_differ_look_different(paths: list[str]) -> None:
    shown = text_drawing.fit_apart(paths, 200, 16)
    assert len(set(shown)) == len(paths)
    for path, short in zip(paths, shown, strict=True):
        assert text_drawing.text_width(short, 16) <= 200
        assert path.endswith(short.rpartition(text_drawing.ELLIPSIS)[2])
    assert text_drawing.fit_apart(["a.mp4", "a.mp4"], 200, 16) == ["a.mp4", "a.mp4"]


def test_the_sheet_tells_folders_apart() -> None:
    def sheet_of(*names: str) -> np.ndarray:
        return render_sheet(card((1, 1, 1)), [card((9, 9, 9), name=name, rank=1) for name in names])

    for folder in ("b", f"b/{LONG}/{LONG}"):
        one, other = (f"{LONG}/{f}/{LONG}/clip.mp4" for f in ("a", folder))
        assert (sheet_of(one, other) != sheet_of(one, one)).any()


def test_ascii_for_opencv_4() -> None:
    assert text_drawing.to_ascii("Müßig – 0.5…1 日.mp4") == "Mussig - 0.5..1 _.mp4"


def test_what_a_view_sees_is_laid_over_the_dimmed_frame() -> None:
    frame = np.full((20, 40, 3), 100, np.uint8)
    picture = np.zeros((10, 20, 3), np.uint8)
    picture[4:6, 4:8] = (0, 250, 0)
    shown = overlay_pictures(frame, [picture])
    assert shown[10, 12].tolist() == [45, 250, 45] and shown[2, 30].tolist() == [45, 45, 45]
    assert overlay_pictures(frame, []) is frame
