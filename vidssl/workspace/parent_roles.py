"""Names the roles of parents in an artifact's manifest, and reads them back.

If several parents have one role, the first has its plain name and the others are numbered: `init`,
`init2`, `init3`; `checkpoint`, `checkpoint2`. The identities of runs depend on these names.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import TypeVar

from vidssl.workspace.artifacts import Artifact

Value = TypeVar("Value")

START = "init"  # the role of a checkpoint that training starts from
# Roles of checkpoints that an encoder learns from. A partner only chooses positives, but its choice
# depends on the videos that it was trained on.
TEACHERS = ("student", "partner", START)


def numbered(role: str, number: int) -> str:
    """Returns the name of a role's parent number 1, 2, …"""
    return role if number == 1 else f"{role}{number}"


def in_role(role: str, parents: Iterable[Value]) -> dict[str, Value]:
    """Returns {name: parent} for the parents of one role."""
    return {numbered(role, number): parent for number, parent in enumerate(parents, 1)}


def role_of(name: str) -> str:
    """Returns the role in the name of a parent, without the number."""
    return re.sub(r"\d+$", "", name)


def start_parents(starts: Iterable[Artifact]) -> dict[str, Artifact]:
    """Returns {name: checkpoint} for the checkpoints that training starts from, each once."""
    return in_role(START, {start.digest: start for start in starts}.values())


def trained_before(parents: Mapping[str, str]) -> list[str]:
    """Returns the digests of those parents that an encoder learnt from.

    Args:
        parents: {name: digest}, as in an artifact's manifest.
    """
    return [digest for name, digest in parents.items() if role_of(name) in TEACHERS]
