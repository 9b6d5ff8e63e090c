"""Labels videos by their folders or by a CSV file, and groups them by their file names."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from vidssl.base.errors import UsageError, VidsslError, nearest_name
from vidssl.base.text import agree, counted
from vidssl.dataset.annotations import read_table
from vidssl.dataset.video import Source

LabelRow = dict[str, str]

LABEL_WORDS = ("folders", "none")
SPLIT_WORDS = frozenset(("train", "test", "val", "valid", "validation", "unused", "none", "-", ""))

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
    """Rows of id, label, group and split columns, and notes on them for the user."""

    rows: list[LabelRow]
    split_columns: list[str]
    notes: list[str]


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
    found = label_classes(sources, labels)
    _group_by_name(found.rows, sources, group_pattern, found.notes)
    return found


def label_classes(sources: Sequence[Source], labels: str | Path = "folders") -> Labelling:
    """Returns labels and splits of videos as :func:`label_videos`, and groups of a table only.

    Raises:
        VidsslError: as :func:`label_videos`.
    """
    check_labelling(labels, None)
    rows: list[LabelRow] = [{"id": s.id, "label": "", "group": ""} for s in sources]
    split_columns: list[str] = []
    notes: list[str] = []
    if str(labels) == "folders":
        notes += _label_by_folder(rows, sources)
    elif str(labels) != "none":
        split_columns = _label_by_table(rows, sources, Path(labels), notes)
    return Labelling(rows, split_columns, notes)


# ── folders ──────────────────────────────────────────────────────────────────────────────────


def _label_by_folder(rows: list[LabelRow], sources: Sequence[Source]) -> list[str]:
    folders = [PurePosixPath(source.name).parent.name for source in sources]
    if len(folders) > 1 and max(Counter(folders).values()) == 1:
        return ["every folder holds one video, so folder names are not taken as labels"]
    for row, folder in zip(rows, folders, strict=True):
        row["label"] = folder
    return []


# ── a table ──────────────────────────────────────────────────────────────────────────────────


def _label_by_table(
    rows: list[LabelRow], sources: Sequence[Source], path: Path, notes: list[str]
) -> list[str]:
    """Fills the rows from a CSV file; returns its split columns."""
    header, table = read_table(path)
    for column in ("path", "label"):
        if column not in header:
            raise VidsslError(
                f"{path} has no column named {column}: its columns are {', '.join(header)}"
            )
    others = [column for column in header if column not in ("path", "label", "group", "id", "")]
    split_columns = [column for column in others if _is_split(table, column)]
    notes += [
        f"the column {column} of {path.name} is not taken for a split: {why}"
        for column in others
        if column not in split_columns and (why := _why_no_split(table, column))
    ]
    notes += [
        f"the column {column or 'without a name'} of {path.name} is not taken for a split: give "
        "it another name"
        for column in ("id", "")
        if column in header and _is_split(table, column)
    ]
    find_video = _VideoFinder(sources)
    filled: dict[int, LabelRow] = {}
    unmatched = []
    for line in table:
        video = find_video(line["path"])
        if video is None:
            unmatched.append(line["path"])
            continue
        found = {"label": line["label"], "group": line.get("group", "")}
        found |= {column: line[column].lower() for column in split_columns}
        if filled.setdefault(video, found) != found:
            raise VidsslError(f"{path} says two different things of {sources[video].name}")
    if not filled:
        raise VidsslError(
            f"not one of the {len(table)} paths in {path} is one of the videos: the first is "
            f"{table[0]['path'] if table else 'missing'}, and a video is {sources[0].name}"
        )
    for video, row in enumerate(rows):
        row |= dict.fromkeys(split_columns, "") | filled.get(video, {})
    if unmatched:
        notes.append(
            f"{len(unmatched)} of {counted(len(table), 'row')} of {path.name} "
            f"{agree(len(unmatched), 'matches', 'match')} no packed video, such as {unmatched[0]}"
        )
    if len(filled) < len(rows):
        left = len(rows) - len(filled)
        notes.append(
            f"{counted(left, 'video')} {agree(left, 'has', 'have')} no row in {path.name}: no label"
        )
    return split_columns


def _is_split(table: Sequence[LabelRow], column: str) -> bool:
    words = {line[column].lower() for line in table}
    return "train" in words and words <= SPLIT_WORDS


def _why_no_split(table: Sequence[LabelRow], column: str) -> str:
    """Returns why a column is no split although it looks like one; empty if it does not."""
    words = {line[column].lower() for line in table}
    if not words & {"train", "test"}:
        return ""
    strange = sorted(words - SPLIT_WORDS)
    if strange:
        return f"it says {strange[0]!r}, where a split says train, test or unused"
    return "no row of it says train"


class _VideoFinder:
    """Finds the video that a path in a table names: exactly, absolute, or by a unique file name."""

    def __init__(self, sources: Sequence[Source]) -> None:
        self._exact: dict[str, int] = {}
        stems = Counter(_stem(source.name) for source in sources)
        self._stem: dict[str, int] = {}
        for number, source in enumerate(sources):
            self._exact[source.name] = number
            self._exact[str(PurePosixPath(source.name).with_suffix(""))] = number
            absolute = os.fsencode(source.path.absolute())  # a table is UTF-8 in any locale
            self._exact[absolute.decode("utf-8", "backslashreplace")] = number
            if stems[_stem(source.name)] == 1:
                self._stem[_stem(source.name)] = number

    def __call__(self, path: str) -> int | None:
        written = PurePosixPath(path.replace("\\", "/"))
        if not written.name:
            return None
        for known, names in (
            (self._exact, (str(written), str(written.with_suffix("")))),
            (self._stem, (written.name, written.stem)),  # a name can hold a dot: v.4
        ):
            for name in names:
                if name in known:
                    return known[name]
        return None


def _stem(name: str) -> str:
    return PurePosixPath(name).stem


# ── groups ───────────────────────────────────────────────────────────────────────────────────


def _group_by_name(
    rows: list[LabelRow], sources: Sequence[Source], pattern: str | None, notes: list[str]
) -> None:
    """Fills the groups that are still empty."""
    missing = [i for i, row in enumerate(rows) if not row["group"]]
    stems = {i: _stem(sources[i].name) for i in missing}
    if pattern is None:
        pattern = next((n for n in GROUP_PATTERNS if _fits_all(n, list(stems.values()))), None)
        if pattern is not None:
            notes.append(f"file names look like {pattern}'s: groups are taken from them")
    found = {i: _group_of(stem, pattern) for i, stem in stems.items()} if pattern else {}
    alike: dict[str, str] = {}  # the same file under several names is one group
    for i in missing:
        own = alike.setdefault(sources[i].fingerprint, rows[i]["id"])
        rows[i]["group"] = found.get(i) or own
    copies = sum(rows[i]["group"] not in (rows[i]["id"], found.get(i)) for i in missing)
    if copies:
        notes.append(
            f"{counted(copies, 'video')} {agree(copies, 'is a copy', 'are copies')} of another: "
            "copies are one group, so that no split parts them"
        )
    without = sum(group is None for group in found.values())
    if without:
        notes.append(
            f"{counted(without, 'name')} {agree(without, 'does', 'do')} not fit the group pattern: "
            "each is a group of its own"
        )


def _fits_all(name: str, stems: Sequence[str]) -> bool:
    return bool(stems) and all(re.fullmatch(GROUP_PATTERNS[name], stem) for stem in stems)


def _group_of(stem: str, pattern: str) -> str | None:
    """Returns the group that a file name contains, None if the pattern does not fit."""
    if pattern in GROUP_PATTERNS:
        match = re.fullmatch(GROUP_PATTERNS[pattern], stem)
    else:
        match = re.search(pattern, stem)
    if match is None:
        return None
    return match[1] if match.re.groups else match[0]
