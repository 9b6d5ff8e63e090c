"""Names the roles that parents have in an artifact's record, and reads them back.

Where several parents have one role, the first bears its plain name and the others are numbered:
`init`, `init2`, `init3`; `checkpoint`, `checkpoint2`. Digests of runs are made over these names, so
they stay as they are.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import TypeVar

from vidssl.workspace.artifacts import Artifact

Value = TypeVar("Value")

START = "init"  # a checkpoint whose encoders training begins with
# Roles of checkpoints that a trained encoder owes something to. A partner only chooses among
# videos, but what it chooses by it has learnt from videos of its own.
TEACHERS = ("student", "partner", START)


def numbered(role: str, number: int) -> str:
    """Returns the name of the `number`-th parent (from 1) of a role."""
    return role if number == 1 else f"{role}{number}"


def in_role(role: str, parents: Iterable[Value]) -> dict[str, Value]:
    """Returns parents of one role under the names they are recorded by."""
    return {numbered(role, number): parent for number, parent in enumerate(parents, 1)}


def role_of(name: str) -> str:
    """Returns the role that a parent is recorded by, without its number."""
    return re.sub(r"\d+$", "", name)


def start_parents(starts: Iterable[Artifact]) -> dict[str, Artifact]:
    """Returns the checkpoints that training starts from as parents, each checkpoint once."""
    return in_role(START, {start.digest: start for start in starts}.values())


def trained_before(parents: Mapping[str, str]) -> list[str]:
    """Returns the digests of all checkpoints that an encoder learnt from, of its recorded parents.

    Args:
        parents: {role: digest}, as an artifact has them.
    """
    return [digest for name, digest in parents.items() if role_of(name) in TEACHERS]
