"""Where a workspace keeps arrays that are computed from a pack, and may be computed again."""

from __future__ import annotations

from vidssl.base.kept_arrays import Keeper
from vidssl.version import VERSION
from vidssl.workspace.artifacts import Artifact

KEPT = ".kept"
FORM = 1  # one more whenever arrays of the same key are computed otherwise


def keeper_of(pack: Artifact, backbone: str) -> Keeper:
    """Returns what opens the kept outputs of a backbone's fixed part for the videos of a pack."""
    computed_from = {"pack": pack.digest, "backbone": backbone, "version": VERSION, "form": FORM}
    return Keeper(pack.path.parents[2] / KEPT, computed_from)
