"""Labels, groups and splits: where they come from and what they select."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from vidssl.base.errors import VidsslError
from vidssl.dataset.annotations import Annotations, write_annotations
from vidssl.dataset.labels import GROUP_PATTERNS, label_videos
from vidssl.dataset.video import Source


def sources(*names: str) -> list[Source]:
    return [
        Source(f"{name}#00", Path("/data") / name, name, str(n)) for n, name in enumerate(names)
    ]


def labels_of(videos: list[Source], table: Path | str, **options: str) -> list[str]:
    return [row["label"] for row in label_videos(videos, table, **options).rows]


def table(folder: Path, text: str) -> Path:
    path = folder / "labels.csv"
    path.write_text(text)
    return path


def annotations(labels: list[str], groups: list[str], **splits: list[str]) -> Annotations:
    rows = [
        {"id": f"v{i}", "label": label, "group": group} | {c: splits[c][i] for c in splits}
        for i, (label, group) in enumerate(zip(labels, groups, strict=True))
    ]
    return Annotations.from_rows(rows, list(splits))


# ── the file


def test_what_is_written_is_read_for_any_ids(tmp_path: Path):
    rows = [
        {"id": "b#1", "label": "run", "group": "g1", "split1": "train"},
        {"id": "a#1", "label": "", "group": "g,2", "split1": "test"},
        {"id": "ü#1", "label": "jump", "group": "g1", "split1": "unused"},
    ]
    write_annotations(tmp_path, rows, ["split1"])
    found = Annotations.load(tmp_path, ["a#1", "new#1", "ü#1", "b#1"])
    assert found.classes == ["jump", "run"]
    assert found.labels.tolist() == [-1, -1, 0, 1]
    assert [found.group_names[g] for g in found.groups] == ["g,2", "new#1", "g1", "g1"]
    assert found.splits["split1"].tolist() == ["test", "", "unused", "train"]
    with pytest.raises(VidsslError, match="cannot be read"):
        Annotations.load(tmp_path / "nowhere", [])


def test_nothing_known():
    found = Annotations.unlabelled(["b", "a", "c"])
    assert found.labels.tolist() == [-1, -1, -1]
    assert len(set(found.groups.tolist())) == 3
    selection = found.select(None, 0)
    assert selection.train.tolist() == [0, 1, 2]
    assert len(selection.test) == 0
    assert selection.note == "no label and no split: all 3 to train"


# ── selecting


def test_a_named_split_and_the_first_one():
    found = annotations(
        ["a"] * 4,
        list("wxyz"),
        one=["train", "test", "unused", ""],
        two=["test", "train", "train", "test"],
    )
    first = found.select(None, 0)
    assert (first.name, first.train.tolist(), first.test.tolist()) == ("one", [0], [1])
    assert first.note == "split one: 1 to train, 1 to test, 2 in neither"
    assert found.select("two", 0).train.tolist() == [1, 2]
    with pytest.raises(
        VidsslError, match=r"no split named 'tow' \(did you mean two\?\): there are one, two"
    ):
        found.select("tow", 0)
    with pytest.raises(VidsslError, match="no split named 'one': there is none"):
        annotations(["a"], ["g"]).select("one", 0)


def many() -> Annotations:
    draw = np.random.default_rng(3)
    labels = [f"class{i % 4}" for i in range(200)]
    groups = [f"{label}-{draw.integers(12)}" for label in labels]
    return annotations(labels, groups)


def test_the_drawn_split_keeps_groups_whole_and_classes_balanced():
    found = many()
    chosen = found.select(None, 7)
    train, test = chosen.train, chosen.test
    assert not set(found.groups[train]) & set(found.groups[test])
    assert sorted([*train, *test]) == list(range(200))
    for label in range(4):
        share = np.mean(found.labels[test] == label) * len(test) / 50
        assert 0.1 < share <= 0.2
    assert "80/20 split by group, seed 7" in chosen.note


def test_the_drawn_split_depends_on_the_seed_and_on_nothing_else():
    found = many()
    assert found.select(None, 1).test.tolist() == found.select(None, 1).test.tolist()
    assert found.select(None, 1).test.tolist() != found.select(None, 2).test.tolist()
    order = np.random.default_rng(0).permutation(200)
    rows = [
        {
            "id": f"v{i}",
            "label": found.classes[found.labels[i]],
            "group": found.group_names[found.groups[i]],
        }
        for i in order
    ]
    shuffled = Annotations.from_rows(rows, []).select(None, 1)
    assert sorted(order[shuffled.test]) == found.select(None, 1).test.tolist()


def test_small_classes_in_the_drawn_split():
    found = annotations(["a", "b", "b", "", ""], ["g1", "g2", "g3", "g4", "g2"])
    chosen = found.select(None, 0)
    assert 0 in chosen.train, "a class of one group is for training"
    assert 3 in chosen.train, "so is what has no label"
    assert len({1, 2} & set(chosen.test.tolist())) == 1
    assert (4 in chosen.test) == (1 in chosen.test), "a group stays together"


# ── folders


def test_labels_from_folders():
    videos = sources("x/run/1.mp4", "x/run/2.mp4", "y/jump/3.mp4", "4.mp4")
    assert labels_of(videos, "folders") == ["run", "run", "jump", ""]
    assert labels_of(videos, "none") == [""] * 4
    assert labels_of(sources("1.mp4", "2.mp4"), "folders") == ["", ""]


def test_a_folder_for_every_video_is_no_label():
    found = label_videos(sources("a/1.mp4", "b/2.mp4"), "folders")
    assert [row["label"] for row in found.rows] == ["", ""]
    assert "every folder holds one video" in found.notes[0]


# ── tables


def test_paths_match_relative_absolute_or_by_a_unique_name(tmp_path: Path):
    videos = sources("x/1.mp4", "x/2.avi", "y/3.mp4", "y/v.4.mp4", "y/same.mp4", "x/same.mp4")
    text = "path,label\n./x/1.mp4,a\n/data/x/2.avi,b\nold/y/3.webm,c\nv.4,d\ny/same,e\n"
    found = label_videos(videos, table(tmp_path, text))
    assert [row["label"] for row in found.rows] == ["a", "b", "c", "d", "e", ""]
    assert found.notes[0] == "1 video has no row in labels.csv: no label"


def test_a_name_that_two_videos_bear_matches_neither(tmp_path: Path):
    videos = sources("x/same.mp4", "y/same.mp4", "y/other.mp4")
    found = label_videos(videos, table(tmp_path, "path,label\nsame.mp4,a\nother,b\n"))
    assert [row["label"] for row in found.rows] == ["", "", "b"]
    assert found.summary.endswith("not used: 1 row of labels.csv")
    assert (
        "1 of 2 rows of labels.csv could be any of several videos, such as same.mp4" in found.notes
    )


def test_a_column_that_is_nearly_a_split_is_told(tmp_path: Path):
    text = "path,label,s1,s2,s3,fps\n1.mp4,a,train,test,train,25\n2.mp4,b,tset,test,test,30\n"
    found = label_videos(sources("1.mp4", "2.mp4"), table(tmp_path, text))
    assert found.split_columns == ["s3"]
    assert found.notes == [
        "the column s1 of labels.csv is not taken for a split: it says 'tset', where a split says "
        "train, test or unused",
        "the column s2 of labels.csv is not taken for a split: no row of it says train",
    ]


def test_split_columns_are_those_that_hold_train(tmp_path: Path):
    text = "path,label,group,frames,split1,weird\n1.mp4,a,g,40,Train,x\n2.mp4,b,h,30,test,train\n"
    found = label_videos(sources("1.mp4", "2.mp4"), table(tmp_path, text))
    assert found.split_columns == ["split1"]
    assert [row["split1"] for row in found.rows] == ["train", "test"]
    assert [row["group"] for row in found.rows] == ["g", "h"]


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("file,label\n1.mp4,a\n", "has no column named path: its columns are file, label"),
        ("path,class\n1.mp4,a\n", "has no column named label"),
        ("path,label\nother.mp4,a\n", "not one of the 1 paths in .* the first is other.mp4, and a"),
        ("path,label\n", "not one of the 0 paths"),
        ("", "is empty"),
        ("path,label\n1.mp4,a\n./1.mp4,b\n", "says two different things of 1.mp4"),
        ("path,label,label\n1.mp4,a,b\n", "has two columns named label"),
        ("path,label\na, b.mp4,x\n", "more cells than its header, which begins with a: put cells"),
        ('path,label\n1.mp4,"' + "x" * 200_000, "is no table: field larger"),
    ],
)
def test_bad_tables_cost_one_sentence(tmp_path: Path, text: str, sentence: str):
    with pytest.raises(VidsslError, match=sentence):
        label_videos(sources("1.mp4"), table(tmp_path, text))
    with pytest.raises(VidsslError, match="there is no table of labels"):
        label_videos(sources("1.mp4"), tmp_path / "nowhere.csv")


def test_a_table_that_is_no_text_or_no_file(tmp_path: Path):
    (tmp_path / "labels.csv").write_bytes(b"path,label\n\xff\xfe,a\n")
    with pytest.raises(VidsslError, match="it is not UTF-8 text"):
        label_videos(sources("1.mp4"), tmp_path / "labels.csv")
    os.mkfifo(tmp_path / "pipe.csv")
    with pytest.raises(VidsslError, match=r"pipe\.csv is no regular file"):
        label_videos(sources("1.mp4"), tmp_path / "pipe.csv")


def test_a_split_is_not_named_as_the_ids_are(tmp_path: Path):
    found = label_videos(sources("1.mp4"), table(tmp_path, "path,label,id\n1.mp4,a,train\n"))
    assert found.split_columns == [] and found.rows[0]["id"].startswith("1.mp4#")
    assert "the column id of labels.csv is not taken for a split" in found.notes[0]


def test_excel_writes_a_mark_and_short_lines(tmp_path: Path):
    path = tmp_path / "labels.csv"
    path.write_bytes("\ufeffpath,label,split\r\n1.mp4, a ,train\r\n2.mp4\r\n".encode())
    found = label_videos(sources("1.mp4", "2.mp4"), path)
    assert [row["label"] for row in found.rows] == ["a", ""]
    assert found.rows[1]["split"] == ""


# ── groups


def groups_of(names: list[str], pattern: str | None) -> list[str]:
    found = label_videos(sources(*names), "none", pattern)
    return [row["group"].removesuffix("#00") for row in found.rows]


def test_groups_of_the_published_sets():
    ucf = ["Archery/v_Archery_g01_c01.avi", "Archery/v_Archery_g01_c07.avi", "v_YoYo_g25_c05.avi"]
    expected = ["v_Archery_g01", "v_Archery_g01", "v_YoYo_g25"]
    assert groups_of(ucf, "ucf101") == groups_of(ucf, None) == expected
    hmdb = [
        "April_09_brush_hair_u_nm_np1_ba_goo_0.avi",
        "Bad_run_shoot_ball_f_nm_np1_fr_med_12.avi",
        "Run_run_run_f_cm_np2_le_bad_3.avi",
        "prideandprejudice1_draw_sword_h_cm_np1_ri_goo_1.avi",
    ]
    expected = ["April_09", "Bad_run", "Run_run", "prideandprejudice1"]
    assert groups_of(hmdb, "hmdb51") == groups_of(hmdb, None) == expected
    assert len(GROUP_PATTERNS["hmdb51"].split("(?:")[1].split("|")) == 51


def test_groups_by_a_pattern_of_ones_own():
    names = ["tape1_cut1.mp4", "tape1_cut2.mp4", "tape2_cut1.mp4", "other.mp4"]
    assert groups_of(names, r"^(tape\d)_") == ["tape1", "tape1", "tape2", "other.mp4"]
    assert groups_of(names, r"^tape\d") == ["tape1", "tape1", "tape2", "other.mp4"]
    assert groups_of(names, None) == names
    notes = label_videos(sources(*names), "none", r"^(tape\d)_").notes
    assert notes == ["1 name does not fit the group pattern: each is a group of its own"]
    with pytest.raises(VidsslError, match="no regular expression"):
        groups_of(names, "(tape")


def test_copies_of_a_file_are_one_group():
    """Else a drawn split would test on what it trained on."""
    a, b, c = sources("a/one.mp4", "b/two.mp4", "b/three.mp4")
    copies = [a, replace(b, fingerprint=a.fingerprint), replace(c, fingerprint="other")]
    found = label_videos(copies)
    assert [row["group"] for row in found.rows] == [a.id, a.id, c.id]
    assert found.notes == [
        "1 video is a copy of another: copies are one group, so that no split parts them"
    ]
    assert [row["group"] for row in label_videos(copies, "none", r"(o)\w*$").rows][:2] == ["o", "o"]


def test_a_group_column_goes_before_a_pattern(tmp_path: Path):
    text = "path,label,group\nv_A_g01_c01.avi,a,mine\nv_A_g01_c02.avi,a,\n"
    found = label_videos(
        sources("v_A_g01_c01.avi", "v_A_g01_c02.avi"), table(tmp_path, text), "ucf101"
    )
    assert [row["group"] for row in found.rows] == ["mine", "v_A_g01"]


# ── what tables, lists and folders of the field say


def test_a_label_never_reaches_another_file(tmp_path: Path):
    videos = sources("s3/cam2.mp4", "clip.mp4", "y/3.mp4")
    text = "path,label\ns4/cam2.mp4,fall\nclip.2,b\nelsewhere/3.webm,c\ny/3.mp4,d\n"
    found = label_videos(videos, table(tmp_path, text))
    assert [row["label"] for row in found.rows] == ["", "", "d"]
    assert "3 of 4 rows of labels.csv match no packed video, such as s4/cam2.mp4" in found.notes


def test_a_match_by_the_name_alone_is_told(tmp_path: Path):
    found = label_videos(sources("1.mp4"), table(tmp_path, "path,label\n/old/train/1.mp4,a\n"))
    assert found.rows[0]["label"] == "a"
    assert "matches by the file's name alone, not its folder" in found.notes[0]


@pytest.mark.parametrize(
    ("column", "first", "second"),
    [
        ("split1", "1", "2"),
        ("subset", "training", "Testing"),
        ("is_train", "True", "False"),
        ("is_test", "0", "1"),
        ("split", "train", "val"),
    ],
)
def test_words_for_the_parts_of_a_split(tmp_path: Path, column: str, first: str, second: str):
    text = f"path,label,{column}\n1.mp4,a,{first}\n2.mp4,b,{second}\n"
    found = label_videos(sources("1.mp4", "2.mp4"), table(tmp_path, text))
    assert found.split_columns == [column]
    assert [row[column] for row in found.rows] == ["train", "test"]
    assert f"split {column} from labels.csv (1 train, 1 test)" in found.summary


@pytest.mark.parametrize(("column", "cells"), [("split", "01"), ("fold", "12"), ("set", "ab")])
def test_a_split_that_is_not_understood_is_told(tmp_path: Path, column: str, cells: str):
    text = f"path,label,{column},fps\n1.mp4,a,{cells[0]},25\n2.mp4,b,{cells[1]},25\n"
    found = label_videos(sources("1.mp4", "2.mp4"), table(tmp_path, text))
    assert found.split_columns == []
    assert f"the column {column} of labels.csv is not taken for a split" in found.notes[0]
    assert "no split: an 80/20 one by group is drawn where one is needed" in found.summary
    assert found.summary.endswith(f"not used: the column {column}, the column fps")


@pytest.mark.parametrize("layout", ["{part}/{label}/{n}.mp4", "{label}/{part}/{n}.mp4"])
def test_train_and_test_folders_are_a_split(layout: str):
    places = [("train", "run"), ("train", "run"), ("train", "jump"), ("Test", "run")]
    names = [layout.format(part=p, label=c, n=n) for n, (p, c) in enumerate(places)]
    found = label_videos(sources(*names))
    assert [row["label"] for row in found.rows] == ["run", "run", "jump", "run"]
    assert [row["folders"] for row in found.rows] == ["train", "train", "train", "test"]
    assert "no classes" in found.notes[0]
    assert label_videos(sources(*names), "none").split_columns == ["folders"]


def test_a_train_on_rails_is_a_class():
    found = label_videos(sources("train/1.mp4", "train/2.mp4", "bus/1.mp4"))
    assert [row["label"] for row in found.rows] == ["train", "train", "bus"]
    assert found.split_columns == [] and "the folder train is taken for a class" in found.notes[0]


@pytest.mark.parametrize(
    "text", ["1.mp4 a b\nx y.mp4 7\n", "1.mp4,a b\nx y.mp4,7\n", "1.mp4\ta b\nx y.mp4\t7\n"]
)
def test_a_table_without_a_header(tmp_path: Path, text: str):
    found = label_videos(sources("1.mp4", "x y.mp4"), table(tmp_path, text))
    assert [row["label"] for row in found.rows] == ["a b", "7"]
    assert "has no header" in found.notes[0]


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ('path,label\n1.mp4,a\n2.mp4,"b\n1.mp4,a\n', "line 3 has a quote that is not closed"),
        ('path,label\n2.mp4,"b\n1.mp4,"c\n', "line 2 has a quote that is not closed"),
        ("path,label,\n1.mp4,shoot, gun\n", r"more cells than its header.*\(line 2\)"),
        ("path,label,label\n1.mp4,a,b\n", r"two columns named label \(line 1\)"),
        ("1.mp4,shoot, gun\n", "no header.* line 1 has 3 cells"),
        ("A_run_f_cm_np1_fr_med_2.avi 1\n", "in which part of HMDB51's split"),
    ],
)
def test_cells_that_are_wrong_are_told_by_their_line(tmp_path: Path, text: str, sentence: str):
    with pytest.raises(VidsslError, match=sentence):
        label_videos(sources("1.mp4"), table(tmp_path, text))


def test_quotes_after_a_blank_hold_commas(tmp_path: Path):
    found = label_videos(sources("1.mp4"), table(tmp_path, 'path, label\n1.mp4, "shoot, gun"\n'))
    assert found.rows[0]["label"] == "shoot, gun"


def test_groups_are_guessed_file_by_file():
    ucf = [f"v_Archery_g01_c0{n}.avi" for n in range(1, 4)]
    assert groups_of([*ucf, "my_clip.mp4"], None) == ["v_Archery_g01"] * 3 + ["my_clip.mp4"]
    notes = label_videos(sources(*ucf, "my_clip.mp4"), "none").notes
    assert notes[0].startswith("3 of 4 file names look like ucf101's")
