"""Reads in which part of a split a video is: from a table's column, or from its folders."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import PurePosixPath

# Words that stand in tables and name folders, and the word that is stored for each.
WORDS = {"train": "train", "training": "train", "test": "test", "testing": "test"} | {
    word: word
    for word in ("val", "valid", "validation", "validate", "dev", "unused", "none", "-", "")
}
VALIDATION = frozenset(("val", "valid", "validation", "validate", "dev"))
FOLDER_PARTS = frozenset(("train", "training", "test", "testing")) | VALIDATION
FOLDER_SPLIT = "folders"  # name of the split that folders give
NUMBERS = {"1": "train", "2": "test", "0": "unused", "": ""}  # as HMDB51's official files
_YES, _NO = frozenset(("true", "yes", "1")), frozenset(("false", "no", "0"))
_NUMBERED = re.compile(r"(?:train_?test_?|test_?|data_?)?(?:split|subset|partition)_?\d*")
_FLAG = re.compile(r"(?:is_?|in_?)?(train|test)(?:ing)?(?:_?(?:set|split|part))?")
_LIKE_SPLIT = re.compile(
    r"(?:is_?|in_?|data_?)?(?:(?:train|test|val|valid)_?)*"
    r"(?:split|subset|set|partition|part|fold|phase|usage|training|train|testing|test|validation|val)"
    r"(?:_?(?:set|split|part|id|no))?_?\d*"
)


def parts_of_column(name: str, cells: Sequence[str]) -> tuple[dict[str, str] | None, str]:
    """Returns what each word of a column means for a split, and a phrase on it for the user.

    Returns:
        {word in lower case: part}, None for a column that is no split. The phrase says how numbers
        and yes or no were read, or why a column that looks like a split is none; it is empty where
        there is nothing to say.
    """
    words = {cell.lower() for cell in cells}
    plain = name.lower().replace(" ", "_").replace("-", "_")
    if words <= WORDS.keys() and "train" in {WORDS[word] for word in words}:
        return WORDS, ""
    if _NUMBERED.fullmatch(plain) and {"1", "2"} <= words <= NUMBERS.keys():
        return NUMBERS, "1 is read as train, 2 as test, 0 as neither, as in HMDB51's files"
    flag = _FLAG.fullmatch(plain)
    if flag and words & _YES and words & _NO and words <= _YES | _NO | {""}:
        yes, no = ("train", "test") if flag[1] == "train" else ("test", "train")
        meaning = dict.fromkeys(_YES, yes) | dict.fromkeys(_NO, no) | {"": ""}
        said = {meaning[word]: word for word in sorted(words - {""})}
        return meaning, f"{said['train']} is read as train, {said['test']} as test"
    if not words & {"train", "training", "test", "testing"} and not _LIKE_SPLIT.fullmatch(plain):
        return None, ""
    strange = sorted(words - WORDS.keys())
    if strange:
        return None, f"it says {strange[0]!r}, where a split says train, test or unused"
    return None, "no row of it says train"


def validation_for_test(parts: Mapping[str, str]) -> dict[str, str] | None:
    """Returns the parts with validation as test, where there is no test part but a train part.

    So Kinetics is evaluated, whose test part has no labels. None where nothing is to be changed.

    Args:
        parts: of any keys.
    """
    found = set(parts.values())
    if "test" in found or not found & VALIDATION or "train" not in found:
        return None
    return {key: "test" if part in VALIDATION else part for key, part in parts.items()}


def split_of_folders(names: Sequence[str]) -> tuple[list[str] | None, list[str]]:
    """Returns the part of each video that its folders name, and the folders without that part.

    Folders such as train and test are parts of a split where both stand at one depth, above the
    classes or below them: train/run/1.mp4 or run/train/1.mp4. A lone folder of such a name may
    be a class (a train on rails), and is left as it is.

    Args:
        names: paths relative to the root, of V videos.

    Returns:
        A word of :data:`WORDS` for each video, "" where its folders name none; None if folders are
        no split. And for each video the name of its own folder, "" at the root.
    """
    folders = [PurePosixPath(name).parts[:-1] for name in names]
    for depth in range(max(map(len, folders), default=0)):
        at_depth = [parts[depth].lower() if depth < len(parts) else "" for parts in folders]
        parts = [WORDS[word] if word in FOLDER_PARTS else "" for word in at_depth]
        if "train" not in parts or set(parts) <= {"train", ""}:
            continue
        rest = [
            own[:depth] + own[depth + 1 :] if part else own
            for own, part in zip(folders, parts, strict=True)
        ]
        return parts, [own[-1] if own else "" for own in rest]
    return None, [own[-1] if own else "" for own in folders]
