"""Puts files, or a folder, of the same content in the place of a damaged artifact's.

These are the only changes of a finished artifact that there are, and its digest stays what it was.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from vidssl.base.files import fsync_folder, write_json
from vidssl.base.locks import file_lock
from vidssl.base.stored_json import read_json
from vidssl.workspace.artifacts import MANIFEST, Artifact, canonical_digest


def put_back(artifact: Artifact, made: Artifact, names: Sequence[str]) -> None:
    """Moves files from one artifact to another, whose manifest records the same bytes.

    Raises:
        DamagedArtifact: a file to be moved is not what its own manifest records.
    """
    for name in names:
        target = artifact.path / name
        target.parent.mkdir(parents=True, exist_ok=True)
        os.replace(made.files.checked(name), target)
        fsync_folder(target.parent)


def take_place(root: Path, artifact: Artifact, made: Artifact) -> Path:
    """Puts a folder of the same digest in the place of an artifact, under its sequence number.

    Args:
        root: of the artifact's workspace.

    Returns:
        Where the damaged folder is set aside, beside it, under a name that readers ignore.
    """
    body = read_json(artifact.path / MANIFEST)
    del body["checksum"]
    body["payload"] = {name: dict(each) for name, each in made.payload.items()}
    write_json(made.path / MANIFEST, body | {"checksum": canonical_digest(body)})
    shelf, number = artifact.path.parent, 1
    with file_lock(root / ".lock"):
        while (aside := shelf / f".damaged-{artifact.path.name}-{number}").exists():
            number += 1
        os.rename(artifact.path, aside)
        os.rename(made.path, artifact.path)
        fsync_folder(shelf)
    return aside
