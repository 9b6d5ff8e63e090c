"""Checks and repairs workspace.json: its next number must be above those of all artifacts."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from vidssl.base.errors import VidsslError
from vidssl.base.locks import file_lock
from vidssl.base.text import counted
from vidssl.workspace.sequence import (
    WORKSPACE_FILE,
    highest_sequence,
    read_next_sequence,
    write_next_sequence,
)
from vidssl.workspace.workspace import Workspace


@dataclass(frozen=True)
class Repair:
    """What was done about one damaged artifact or file.

    Attributes:
        what: its label or path.
        done: whether it is repaired.
        said: a sentence for the user.
    """

    what: str
    done: bool
    said: str


def repair_numbers(workspace: Workspace) -> list[Repair]:
    """Writes workspace.json anew from the manifests, if it is damaged, too low or missing."""
    path = workspace.root / WORKSPACE_FILE
    with file_lock(workspace.root / ".lock"):
        highest, silent = highest_sequence(workspace.root)
        try:
            found = read_next_sequence(workspace.root)
        except VidsslError as error:
            if not path.is_file():  # a folder, or a device: nothing that may be replaced
                return [Repair(str(path), False, str(error))]
            found = None
        if (found is not None and found > highest) or not (path.exists() or highest):
            return []
        # An artifact whose number cannot be read may have one above: a number may be lost.
        write_next_sequence(workspace.root, highest + 1 + len(silent))
    said = f"{path} was written anew, with a next number above all {highest} so far"
    if silent:
        said += f"; {counted(len(silent), 'manifest')} told no number, such as {silent[0]}"
    return [Repair(str(path), True, said)]


def number_problems(root: Path) -> list[str]:
    """Returns a sentence if workspace.json is damaged, or its number was given before."""
    highest, _ = highest_sequence(root)  # first: an artifact may be published meanwhile
    try:
        found = read_next_sequence(root)
    except VidsslError as error:
        return [str(error)]
    if found is None or found > highest:
        return []
    return [
        f"{root / WORKSPACE_FILE} is damaged: its next number is {found}, and there is an artifact "
        f"of number {highest}; the next artifact gets one above all, or run: vidssl verify --repair"
    ]
