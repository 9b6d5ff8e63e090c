"""Labels, groups and splits of a pack's videos, as stored in an artifact (docs/formats.md).

    annotations.csv    id,label,group,SPLIT,SPLIT,...    one row per video

A pack does not depend on it, so new splits or better labels never mean packing again. An empty
label means none.

Legend: V videos, N of them.
"""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from vidssl.base.errors import VidsslError, nearest_name
from vidssl.base.files import atomic_write
from vidssl.base.stored_json import read_bytes
from vidssl.dataset.splits import EVERYTHING, SEEDED, Selection, draw_test, selection_of

ANNOTATIONS_FILE = "annotations.csv"
FIXED_COLUMNS = ("id", "label", "group")
LARGEST_TABLE = 1 << 30  # bytes


@dataclass(frozen=True)
class Annotations:
    """Labels, groups and splits of V videos, in the order of the videos.

    Attributes:
        labels: index into `classes`, -1 for none: int64 [V].
        classes: names of the classes, sorted.
        groups: index into `group_names`: int64 [V]. Clips of one source video are one group.
        group_names: names of the groups, sorted.
        splits: {column: "train", "test" or another word, for each video [V]}.
    """

    labels: np.ndarray
    classes: Sequence[str]
    groups: np.ndarray
    group_names: Sequence[str]
    splits: Mapping[str, np.ndarray]

    @classmethod
    def load(cls, folder: Path, ids: Sequence[str]) -> Annotations:
        """Reads an annotation artifact for the videos `ids`; those it lacks have no label.

        Raises:
            VidsslError: the file is missing, or is no table of annotations.
        """
        path = folder / ANNOTATIONS_FILE
        return cls.parse(_read(path), path, ids)

    @classmethod
    def parse(cls, data: bytes, path: Path, ids: Sequence[str]) -> Annotations:
        """Returns the annotations in the bytes of an `annotations.csv`.

        Args:
            path: of the file, for the sentence of an error.

        Raises:
            VidsslError: it is no table of annotations, or has a video twice.
        """
        header, rows = _parse_table(data, path)
        if tuple(header[:3]) != FIXED_COLUMNS:
            raise VidsslError(f"{path} is no table of annotations: it begins with {header[:3]}")
        known = {row["id"]: row for row in rows}
        if len(known) < len(rows):
            twice, _ = Counter(row["id"] for row in rows).most_common(1)[0]
            raise VidsslError(f"{path} is damaged: it has {twice} twice")
        found = [known.get(video, {"id": video}) for video in ids]
        return cls.from_rows(found, header[3:])

    @classmethod
    def unlabelled(cls, ids: Sequence[str]) -> Annotations:
        """Returns annotations without labels, in which each video is a group of its own."""
        return cls.from_rows([{"id": video} for video in ids], [])

    @classmethod
    def from_rows(
        cls, rows: Sequence[Mapping[str, str]], split_columns: Sequence[str]
    ) -> Annotations:
        """Builds annotations from rows of id, label, group and split columns."""
        labels, classes = _number_names([row.get("label", "") for row in rows])
        groups, group_names = _number_names([row.get("group") or row["id"] for row in rows])
        splits = {name: np.array([row.get(name, "") for row in rows]) for name in split_columns}
        return cls(labels, classes, groups, group_names, splits)

    def __len__(self) -> int:
        return len(self.labels)

    def select(self, split: str | None, seed: int) -> Selection:
        """Returns the train and test part of a split: a column, "80/20" or "all".

        Args:
            split: None chooses the first column; without columns a seeded 80/20 split by group,
                stratified by label; without labels all videos for training.
            seed: of the 80/20 split.

        Raises:
            VidsslError: there is no split of that name; the message lists the names.
        """
        if split is None:
            split = next(iter(self.splits), SEEDED if np.any(self.labels >= 0) else EVERYTHING)
        if split in self.splits:
            part = self.splits[split]
            return selection_of(split, part == "train", part == "test", f"split {split}")
        if split == SEEDED:
            test = draw_test(self.labels, self.groups, seed)
            what = f"a seeded 80/20 split by group, seed {seed}"
            return selection_of(SEEDED, ~test, test, what)
        if split != EVERYTHING:
            listed = f"there are {', '.join(self.splits)}" if self.splits else "there is none"
            raise VidsslError(
                f"the annotations have no split named {split!r}"
                f"{nearest_name(split, self.splits)}: {listed}"
            )
        note = f"no label and no split: all {len(self)} to train"
        return Selection(EVERYTHING, np.arange(len(self)), np.array([], np.int64), note)


def write_annotations(
    folder: Path, rows: Sequence[Mapping[str, str]], split_columns: Sequence[str]
) -> None:
    """Writes `annotations.csv`, sorted by id."""
    text = io.StringIO()
    table = csv.DictWriter(text, [*FIXED_COLUMNS, *split_columns], lineterminator="\n")
    table.writeheader()
    table.writerows(sorted(rows, key=lambda row: row["id"]))
    atomic_write(folder / ANNOTATIONS_FILE, text.getvalue().encode())


def _read(path: Path) -> bytes:
    try:
        return read_bytes(path, LARGEST_TABLE)
    except FileNotFoundError as error:
        raise VidsslError(f"{path} cannot be read: {error.strerror}") from error


def _parse_table(data: bytes, path: Path) -> tuple[list[str], list[dict[str, str]]]:
    try:
        text = io.TextIOWrapper(io.BytesIO(data), "utf-8-sig").read()  # any line ends
        lines = [[cell.strip() for cell in line] for line in csv.reader(io.StringIO(text)) if line]
    except UnicodeDecodeError:
        raise VidsslError(f"{path} is no table: it is not UTF-8 text") from None
    except csv.Error as error:  # such as a quoted cell without end
        raise VidsslError(f"{path} is no table: {error}") from None
    if not lines:
        raise VidsslError(f"{path} is empty")
    header = lines[0]
    if twice := [name for name in header if name and header.count(name) > 1]:
        raise VidsslError(f"{path} has two columns named {twice[0]:.60}")
    for line in lines[1:]:
        if any(line[len(header) :]):
            raise VidsslError(
                f"{path} has a line of more cells than its header, which begins with "
                f"{line[0]:.100}: put cells that hold a comma in quotes"
            )
    empty = dict.fromkeys(header, "")
    # A short line lacks its last cells.
    return header, [empty | dict(zip(header, line, strict=False)) for line in lines[1:]]


def _number_names(names: Sequence[str]) -> tuple[np.ndarray, list[str]]:
    """Returns the number of each name in sorted order, -1 for an empty one, and the names."""
    known = sorted(set(names) - {""})
    number = {name: i for i, name in enumerate(known)} | {"": -1}
    return np.array([number[name] for name in names], np.int64), known
