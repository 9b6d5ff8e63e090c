"""Defines artifacts: kinds, format versions, names, digests, and the manifest `artifact.json`.

An artifact is a folder `KIND/NAME/vNNN/` with payload files and a manifest. The manifest holds its
kind, recipe and parents, and the digest of each file. docs/formats.md describes the format.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from vidssl.base.errors import UsageError, VidsslError
from vidssl.base.files import file_digest
from vidssl.base.stored_json import DamagedFile, bounded, read_json, record
from vidssl.version import VERSION
from vidssl.workspace.payload import MANIFEST as MANIFEST
from vidssl.workspace.payload import FileRecord as FileRecord
from vidssl.workspace.payload import Payload

FORMAT_VERSIONS: dict[str, int] = {
    "flow": 1,
    "view": 1,
    "pack": 1,
    "annotations": 1,
    "checkpoint": 1,
    "features": 1,
    "probe": 1,
    "retrieval": 1,
    "finetune": 1,
}
FRAMES_ROLE = "frames"  # of the pack that was cut into segments
LONGEST_NAME = 200  # file systems allow 255 bytes
VERSION_PATTERN = re.compile(r"v\d{3,9}")
NAME_PATTERN = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
MOST_ARTIFACTS = 10**12  # sequence numbers beyond are taken for damage


def check_name(name: str) -> None:
    """Checks that an artifact can have a name.

    Raises:
        UsageError: the name is too long, or has characters that are not allowed.
    """
    if not NAME_PATTERN.fullmatch(name):
        raise UsageError(f"{name!r} is no artifact name: use letters, digits, . _ and -")
    if len(name) > LONGEST_NAME:
        raise UsageError(
            f"an artifact's name has at most {LONGEST_NAME} characters, and this has {len(name)}: "
            f"{name[:20]}…"
        )


def canonical_digest(value: Any) -> str:
    """Returns the SHA-256 (hex) of a JSON value in canonical form: sorted keys, no spaces."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


@dataclass(frozen=True)
class Artifact:
    """One finished artifact: its folder and the content of its artifact.json.

    Attributes:
        sequence: number in the workspace's order of publication; newest is highest.
        digest: identity of the content.
        run: identity of the run that made it.
        recipe: all settings that it was made with.
        parents: {role: digest} of the artifacts that it was made from.
        summary: some figures for `vidssl status`.
        payload: {path in the folder: record of the file}.
    """

    path: Path
    kind: str
    name: str
    version: int
    sequence: int
    digest: str
    run: str
    recipe: Mapping[str, Any]
    parents: Mapping[str, str]
    summary: Mapping[str, Any]
    payload: Mapping[str, FileRecord]

    @property
    def label(self) -> str:
        """KIND/NAME/vNNN, as the user types it."""
        return f"{self.kind}/{self.name}/v{self.version:03d}"

    @property
    def files(self) -> Payload:
        """The payload, which checks each file that it opens."""
        return Payload(self.path, self.label, self.payload)

    @property
    def views(self) -> list[str]:
        """Names of the views that a pack, flow or view artifact holds, as its summary says."""
        views = self.summary.get("views")
        return list(views) if isinstance(views, Mapping) else []

    def frames_of_segments(self) -> Artifact | None:
        """Returns the pack that holds the frames, where this one holds a table of segments.

        Raises:
            VidsslError: that pack is not in the workspace any more.
        """
        digest = self.parents.get(FRAMES_ROLE)
        if digest is None:
            return None
        for path in sorted(self.path.parents[2].glob("pack/*/v[0-9]*")):
            with suppress(VidsslError):
                found = Artifact.load(path)
                if found.digest == digest and FRAMES_ROLE not in found.parents:
                    return found
        raise VidsslError(
            f"the pack that holds the frames of {self.label} is not in {self.path.parents[2]} any "
            "more: bring it back, or pack the videos again with --new"
        )

    @classmethod
    def load(cls, path: Path) -> Artifact:
        """Reads the manifest in an artifact's folder.

        Raises:
            VidsslError: the manifest is missing, unreadable, of an unknown version, or was edited.
        """
        try:
            text = read_json(path / MANIFEST)
        except FileNotFoundError:
            raise VidsslError(
                f"{path} is no vidssl artifact: it has no {MANIFEST}; bring the file back, or "
                "remove the folder"
            ) from None
        found = _checked_manifest(path, text)
        return cls(
            path=path,
            kind=found.kind,
            name=path.parent.name,
            version=int(path.name[1:]) if VERSION_PATTERN.fullmatch(path.name) else 0,
            sequence=found.sequence,
            digest=found.digest,
            run=found.run,
            recipe=found.recipe,
            parents=found.parents,
            summary=found.summary,
            payload={name: vars(each) for name, each in found.payload.items()},
        )


@dataclass(frozen=True)
class _File:
    """The record of one file in a manifest."""

    bytes: int = field(metadata=bounded(at_least=0))
    sha256: str = field(metadata=bounded(pattern="[0-9a-f]{64}"))


@dataclass(frozen=True)
class _Manifest:
    """The fields of artifact.json that are used."""

    kind: str
    sequence: int = field(metadata=bounded(at_least=1, at_most=MOST_ARTIFACTS))
    digest: str
    run: str
    recipe: Mapping[str, Any]
    parents: Mapping[str, str]
    summary: Mapping[str, Any]
    payload: Mapping[str, _File]


def _checked_manifest(path: Path, text: Any) -> _Manifest:
    kind = text.get("kind") if isinstance(text, dict) else None
    if not isinstance(kind, str) or kind not in FORMAT_VERSIONS:
        raise VidsslError(f"{path} holds an artifact of unknown kind {kind!r:.60}")
    version = text.get("format_version")
    if version != FORMAT_VERSIONS[kind]:
        raise VidsslError(
            f"{path} has {kind} format version {version!r:.60}, and this vidssl ({VERSION}) reads "
            f"version {FORMAT_VERSIONS[kind]}: use the vidssl that wrote it "
            f"({text.get('vidssl_version', 'unknown')!s:.60}) or move the folder away"
        )
    body = {key: value for key, value in text.items() if key != "checksum"}
    if text.get("checksum") != _digest_or_none(body):
        raise DamagedFile(f"{path / MANIFEST} is damaged: its checksum does not fit its content")
    found = record(_Manifest, body, path / MANIFEST, ignore=True)
    for name in found.payload:
        inside = PurePosixPath(name)
        if inside.is_absolute() or ".." in inside.parts or name in ("", ".", MANIFEST):
            raise DamagedFile(f"{path / MANIFEST} is damaged: {name!r:.60} is no file of a payload")
    return found


def _digest_or_none(body: Any) -> str | None:
    """Returns the canonical digest of a value; None if it has a number that is not finite."""
    try:
        return canonical_digest(body)
    except ValueError:
        return None


def file_record(path: Path) -> FileRecord:
    """Returns the record of a file for artifact.json."""
    return {"bytes": path.stat().st_size, "sha256": file_digest(path)}


def payload_of(folder: Path, known: Mapping[str, FileRecord]) -> dict[str, FileRecord]:
    """Returns the records of all files in a folder but the manifest.

    Args:
        known: {path in the folder: record} of files that need not be read again.
    """
    files = sorted(p for p in folder.rglob("*") if p.is_file() and p.name != MANIFEST)
    names = {path.relative_to(folder).as_posix(): path for path in files}
    return {name: known.get(name) or file_record(path) for name, path in names.items()}
