"""Numbers artifacts in the order of their publication: workspace.json has the next number.

No number is given twice, even where workspace.json was lost or damaged: the numbers in all
manifests count as well, also in those of unknown kinds and versions.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from vidssl.base.errors import VidsslError
from vidssl.base.files import write_json
from vidssl.base.stored_json import DamagedFile, bounded, read_json, record
from vidssl.version import VERSION
from vidssl.workspace.artifacts import MANIFEST, MOST_ARTIFACTS

WORKSPACE_FORMAT = 1
WORKSPACE_FILE = "workspace.json"


@dataclass(frozen=True)
class _WorkspaceFile:
    workspace_format: int
    next_sequence: int = field(metadata=bounded(at_least=1, at_most=MOST_ARTIFACTS))


def read_next_sequence(root: Path) -> int | None:
    """Returns the number in a workspace's workspace.json; None if it has no such file.

    Raises:
        VidsslError: the file is damaged, cannot be read, or is of an unknown format.
    """
    path = root / WORKSPACE_FILE
    try:
        value = read_json(path)
        if isinstance(value, Mapping) and isinstance(value.get("workspace_format"), int):
            _check_format(root, value["workspace_format"])
        return record(_WorkspaceFile, value, path, ignore=True).next_sequence
    except FileNotFoundError:
        return None
    except DamagedFile as error:
        raise DamagedFile(
            f"{error}: remove it, and the next artifact brings it back, or run: vidssl verify "
            "--repair"
        ) from None


def _check_format(root: Path, found: Any) -> None:
    if found != WORKSPACE_FORMAT:
        raise VidsslError(
            f"{root} is a workspace of format {found}, and this vidssl ({VERSION}) "
            f"reads format {WORKSPACE_FORMAT}"
        )


def write_next_sequence(root: Path, number: int) -> None:
    """Writes workspace.json, atomically."""
    value = {"workspace_format": WORKSPACE_FORMAT, "next_sequence": number}
    write_json(root / WORKSPACE_FILE, value)


def highest_sequence(root: Path) -> tuple[int, list[Path]]:
    """Returns the highest number of an artifact, 0 without one, and manifests that tell none."""
    highest, silent = 0, []
    for path in sorted(root.glob(f"*/*/v[0-9]*/{MANIFEST}")):
        try:
            found = read_json(path)
            number = found["sequence"] if isinstance(found, Mapping) else None
        except (VidsslError, OSError, KeyError):
            number = None
        if isinstance(number, int) and 1 <= number <= MOST_ARTIFACTS:
            highest = max(highest, number)
        else:
            silent.append(path)
    return highest, silent
