"""Labels videos by their folders or by a CSV file, and groups them by their file names."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from vidssl.base.errors import UsageError, VidsslError, nearest_name
from vidssl.base.text import agree, counted
from vidssl.dataset.label_table import LabelTable, read_label_table
from vidssl.dataset.split_parts import (
    FOLDER_PARTS,
    FOLDER_SPLIT,
    parts_of_column,
    split_of_folders,
    validation_for_test,
)
from vidssl.dataset.video import Source
from vidssl.dataset.video_matching import VideoFinder

LabelRow = dict[str, str]

LABEL_WORDS = ("folders", "none")

_HMDB51 = (
    "brush_hair cartwheel catch chew clap climb climb_stairs dive draw_sword dribble drink eat "
    "fall_floor fencing flic_flac golf handstand hit hug jump kick kick_ball kiss laugh pick pour "
    "pullup punch push pushup ride_bike ride_horse run shake_hands shoot_ball shoot_bow shoot_gun "
    "sit situp smile smoke somersault stand swing_baseball sword sword_exercise talk throw turn "
    "walk wave"
)
# How the file names of published data sets name the video that a clip was cut from.
GROUP_PATTERNS = {
    "ucf101": r"(v_\w+_g\d+)_c\d+",
    "hmdb51": rf"(.+?)_(?:{'|'.join(_HMDB51.split())})"
    r"_[fhlu]_(?:cm|nm)_np\d+_(?:ba|fr|le|ri)_(?:bad|goo|med)_\d+",
}


@dataclass(frozen=True)
class Labelling:
    """Rows of id, label, group and split columns, and notes on them for the user.

    Attributes:
        summary: one line: labels, classes, groups and splits, from where, and what was not used.
    """

    rows: list[LabelRow]
    split_columns: list[str]
    notes: list[str]
    summary: str = ""


def check_labelling(labels: str | Path, group_pattern: str | None) -> None:
    """Checks the options of :func:`label_videos` before any video is looked at.

    Raises:
        UsageError: `labels` is neither a known word nor a table, or the pattern is wrong.
        VidsslError: there is no such table.
    """
    text = str(labels)
    if text not in LABEL_WORDS and not Path(text).exists():
        if not Path(text).suffix:
            raise UsageError(
                f"--labels takes folders, none or a CSV file, not {text}"
                f"{nearest_name(text, LABEL_WORDS)}"
            )
        raise VidsslError(f"there is no table of labels {text}")
    if group_pattern is not None and group_pattern not in GROUP_PATTERNS:
        try:
            re.compile(group_pattern)
        except re.error as error:
            raise UsageError(
                f"--group-pattern {group_pattern!r} is no regular expression ({error}) and none "
                f"of {', '.join(GROUP_PATTERNS)}"
            ) from error


def label_videos(
    sources: Sequence[Source], labels: str | Path = "folders", group_pattern: str | None = None
) -> Labelling:
    """Returns labels, groups and splits of videos.

    Args:
        labels: "folders" (each video's own folder names its class, unless that is the root),
            "none", or a CSV file: path,label[,group][,any columns of train/test].
        group_pattern: a name in :data:`GROUP_PATTERNS`, or a regular expression for the file's
            name without suffix, whose first bracket (or whole match) is the group. None tries
            the known patterns; if none fits, each video is a group of its own, and copies of a
            file are one group. A group column of the table comes before the pattern.

    Raises:
        VidsslError: as :func:`check_labelling`; or the table lacks a column or matches no video.
    """
    check_labelling(labels, group_pattern)
    rows: list[LabelRow] = [{"id": s.id, "label": "", "group": ""} for s in sources]
    split_columns: list[str] = []
    notes: list[str] = []
    unused: list[str] = []
    origin = "folders" if str(labels) == "folders" else ""
    if str(labels) not in LABEL_WORDS:
        origin = Path(labels).name
        split_columns, unused = _label_by_table(rows, sources, Path(labels), notes)
    _read_folders(rows, sources, str(labels) == "folders", split_columns, notes)
    by_column = sum(bool(row["group"]) for row in rows)
    by_name = _group_by_name(rows, sources, group_pattern, notes)
    groups = _groups_from(len(rows), by_column, by_name, origin)
    _replace_validation(rows, split_columns, notes)
    summary = "; ".join(
        (_label_summary(rows, origin), groups, *_split_summary(rows, split_columns, origin))
    )
    if unused:
        summary += f"; not used: {', '.join(unused)}"
    return Labelling(rows, split_columns, notes, summary)


def label_classes(sources: Sequence[Source], labels: str | Path = "folders") -> Labelling:
    """Returns labels and splits as :func:`label_videos`, and no groups that are guessed by name.

    Raises:
        VidsslError: as :func:`label_videos`.
    """
    check_labelling(labels, None)
    rows: list[LabelRow] = [{"id": s.id, "label": "", "group": ""} for s in sources]
    columns: list[str] = []
    notes: list[str] = []
    if str(labels) not in LABEL_WORDS:
        columns, _ = _label_by_table(rows, sources, Path(labels), notes)
    _read_folders(rows, sources, str(labels) == "folders", columns, notes)
    return Labelling(rows, columns, notes)


# ── the line on what was found


def _label_summary(rows: Sequence[LabelRow], origin: str) -> str:
    labels = [row["label"] for row in rows if row["label"]]
    if not labels:
        return f"no labels of {counted(len(rows), 'video')}"
    return (
        f"labels of {len(labels)} of {counted(len(rows), 'video')}, "
        f"{counted(len(set(labels)), 'class')}, from {origin}"
    )


def _groups_from(videos: int, by_column: int, by_name: int, origin: str) -> str:
    places = ((by_column, origin), (by_name, "file names"))
    from_where = [f"of {count} from {place}" for count, place in places if count]
    alone = videos - by_column - by_name
    if alone and not from_where:
        return "each video is a group of its own, but for copies"
    more = f", the other {alone} each of its own" if alone else ""
    return f"groups {' and '.join(from_where)}{more}"


def _split_summary(
    rows: Sequence[LabelRow], split_columns: Sequence[str], origin: str
) -> list[str]:
    if not split_columns:
        return ["no split: an 80/20 one by group is drawn where one is needed"]
    parts = []
    for column in split_columns:
        count = Counter(row[column] for row in rows)
        neither = len(rows) - count["train"] - count["test"]
        place = "folders" if column == FOLDER_SPLIT and origin != column else origin
        said = f"split {column} from {place} ({count['train']} train, {count['test']} test"
        parts.append(said + (f", {neither} in neither)" if neither else ")"))
    return parts


# ── folders ──────────────────────────────────────────────────────────────────────────────────


def _read_folders(
    rows: list[LabelRow],
    sources: Sequence[Source],
    labels: bool,
    split_columns: list[str],
    notes: list[str],
) -> None:
    """Fills in the split that folders give, unless a table gave one, and labels if wanted."""
    parts, folders = split_of_folders([source.name for source in sources])
    if parts is not None and not split_columns:
        split_columns.append(FOLDER_SPLIT)
        for row, part in zip(rows, parts, strict=True):
            row[FOLDER_SPLIT] = part
        named = " and ".join(sorted({part for part in parts if part}))
        notes.append(
            f"the folders named {named} are parts of a split, named {FOLDER_SPLIT}, and no classes"
        )
        if left := parts.count(""):
            notes.append(
                f"{counted(left, 'video')} {agree(left, 'lies', 'lie')} in none of these folders, "
                "and so in no part of the split"
            )
    if not labels:
        return
    if len(folders) > 1 and max(Counter(folders).values()) == 1:
        notes.append("every folder holds one video, so folder names are not taken as labels")
        return
    for row, folder in zip(rows, folders, strict=True):
        row["label"] = folder
    for name in sorted({name for name in folders if name.lower() in FOLDER_PARTS}):
        notes.append(
            f"the folder {name} is taken for a class: there are no train and test folders beside "
            "each other"
        )


def _replace_validation(
    rows: list[LabelRow], split_columns: Sequence[str], notes: list[str]
) -> None:
    for column in split_columns:
        parts = validation_for_test({row["id"]: row[column] for row in rows})
        if parts is None:
            continue
        for row in rows:
            row[column] = parts[row["id"]]
        notes.append(f"the split {column} has no test part: its validation part is taken for it")


# ── a table ──────────────────────────────────────────────────────────────────────────────────


def _label_by_table(
    rows: list[LabelRow], sources: Sequence[Source], path: Path, notes: list[str]
) -> tuple[list[str], list[str]]:
    """Fills the rows from a table; returns its split columns, and what of it is not used."""
    find_video = VideoFinder(sources)
    table = read_label_table(path, lambda text: _names_any(find_video, text))
    notes += table.notes
    for column in ("path", "label"):
        if column not in table.columns:
            raise VidsslError(
                f"{path} has no column named {column}: its columns are {', '.join(table.columns)}"
            )
    if table.columns == ["path", "label"]:
        _refuse_hmdb51_parts(path, table)
    splits = _splits_of(table, path, notes)
    others = [c for c in table.columns if c and c not in ("path", "label", "group", *splits)]
    unused = [f"the column {column}" for column in others]
    lost = _fill(rows, sources, path, table, splits, find_video, notes)
    if lost:
        unused.append(f"{counted(lost, 'row')} of {path.name}")
    return list(splits), unused


def _names_any(find_video: VideoFinder, text: str) -> bool:
    found = find_video(text)
    return found.video is not None or found.several


def _refuse_hmdb51_parts(path: Path, table: LabelTable) -> None:
    """Raises for HMDB51's files of splits, in which a number is no class."""
    names = [_stem(line["path"]) for line in table.rows]
    numbers = {line["label"] for line in table.rows} <= {"0", "1", "2"}
    if names and numbers and all(_group_of(name, "hmdb51") for name in names):
        raise VidsslError(
            f"{path} says in which part of HMDB51's split a video is, not its class: make a table "
            "of it with the columns path,label,split1 (1 train, 2 test, 0 neither)"
        )


def _splits_of(table: LabelTable, path: Path, notes: list[str]) -> dict[str, dict[str, str]]:
    """Returns the split columns, and what each of their words means."""
    splits = {}
    for column in table.columns:
        if column in ("path", "label", "group"):
            continue
        words, why = parts_of_column(column, [line[column] for line in table.rows])
        where = f"the column {column or 'without a name'} of {path.name}"
        if column in ("id", ""):
            if words is not None and not why:
                notes.append(f"{where} is not taken for a split: give it another name")
        elif words is None:
            notes += [f"{where} is not taken for a split: {why}"] if why else []
        else:
            splits[column] = words
            notes += [f"{where} is a split: {why}"] if why else []
    return splits


def _fill(
    rows: list[LabelRow],
    sources: Sequence[Source],
    path: Path,
    table: LabelTable,
    splits: dict[str, dict[str, str]],
    find_video: VideoFinder,
    notes: list[str],
) -> int:
    """Fills the rows of videos that the table names; returns how many of its rows name none."""
    filled: dict[int, LabelRow] = {}
    unmatched, ambiguous, by_name = [], [], []
    for line in table.rows:
        match = find_video(line["path"])
        if match.video is None:
            (ambiguous if match.several else unmatched).append(line["path"])
            continue
        if match.folders_differ:
            by_name.append(line["path"])
        found = {"label": line["label"], "group": line.get("group", "")}
        found |= {column: words[line[column].lower()] for column, words in splits.items()}
        if filled.setdefault(match.video, found) != found:
            raise VidsslError(f"{path} says two different things of {sources[match.video].name}")
    if not filled:
        raise VidsslError(
            f"not one of the {len(table.rows)} paths in {path} is one of the videos: the first is "
            f"{table.rows[0]['path'] if table.rows else 'missing'}, and a video is "
            f"{sources[0].name}"
        )
    for video, row in enumerate(rows):
        row |= dict.fromkeys(splits, "") | filled.get(video, {})
    total = f"of {counted(len(table.rows), 'row')} of {path.name}"
    for paths, one, many in (
        (unmatched, "matches no packed video", "match no packed video"),
        (ambiguous, "could be any of several videos", "could be any of several videos"),
        (
            by_name,
            "matches by the file's name alone, not its folder",
            "match by the file's name alone, not its folder",
        ),
    ):
        if paths:
            notes.append(f"{len(paths)} {total} {agree(len(paths), one, many)}, such as {paths[0]}")
    if len(filled) < len(rows):
        left = len(rows) - len(filled)
        notes.append(
            f"{counted(left, 'video')} {agree(left, 'has', 'have')} no row in {path.name}: no label"
        )
    return len(unmatched) + len(ambiguous)


def _stem(name: str) -> str:
    return PurePosixPath(name).stem


# ── groups ───────────────────────────────────────────────────────────────────────────────────


def _group_by_name(
    rows: list[LabelRow], sources: Sequence[Source], pattern: str | None, notes: list[str]
) -> int:
    """Fills the groups that are still empty; returns how many are from file names."""
    missing = [i for i, row in enumerate(rows) if not row["group"]]
    patterns = GROUP_PATTERNS if pattern is None else (pattern,)
    found: dict[int, str] = {}
    fitted: Counter[str] = Counter()
    for i in missing:
        for name in patterns:
            group = _group_of(_stem(sources[i].name), name)
            if group:
                found[i] = group
                fitted[name] += 1
                break
    alike: dict[str, str] = {}  # the same file under several names is one group
    for i in missing:
        own = alike.setdefault(sources[i].fingerprint, rows[i]["id"])
        rows[i]["group"] = found.get(i) or own
    without = len(missing) - len(found)
    if pattern is None:
        notes += _guessed_groups(fitted, len(missing))
    copies = sum(rows[i]["group"] not in (rows[i]["id"], found.get(i)) for i in missing)
    if copies:
        notes.append(
            f"{counted(copies, 'video')} {agree(copies, 'is a copy', 'are copies')} of another: "
            "copies are one group, so that no split parts them"
        )
    if without and pattern is not None:
        notes.append(
            f"{counted(without, 'name')} {agree(without, 'does', 'do')} not fit the group pattern: "
            "each is a group of its own"
        )
    return len(found)


def _guessed_groups(fitted: Counter[str], videos: int) -> list[str]:
    """Returns what the user is told of groups that were guessed from names, file by file."""
    if sum(fitted.values()) == videos and len(fitted) == 1:
        return [f"file names look like {next(iter(fitted))}'s: groups are taken from them"]
    return [
        f"{count} of {counted(videos, 'file name')} {agree(count, 'looks', 'look')} like {name}'s: "
        "their groups are taken from them, each other video is a group of its own"
        for name, count in fitted.items()
    ]


def _group_of(stem: str, pattern: str) -> str | None:
    """Returns the group that a file name contains, None if the pattern does not fit."""
    if pattern in GROUP_PATTERNS:
        match = re.fullmatch(GROUP_PATTERNS[pattern], stem)
    else:
        match = re.search(pattern, stem)
    if match is None:
        return None
    return match[1] if match.re.groups else match[0]
