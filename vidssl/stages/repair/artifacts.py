"""Repairs a workspace, for `vidssl verify --repair`: makes again what sources and parents can make.

Only what is proved to be the same takes the place of what is damaged: a file of the recorded
SHA-256, or a set of shards of the recorded digest. Everything else is said with the command that
makes it again. Nothing is deleted: a damaged folder is set aside under a name that readers ignore.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from vidssl.base.errors import Interrupted, VidsslError
from vidssl.base.progress import SILENT, Progress
from vidssl.stages.repair.make_again import SHARD_KINDS, CannotMake, Sources, made_again
from vidssl.stages.repair.numbers import Repair
from vidssl.workspace.artifacts import Artifact
from vidssl.workspace.replacement import put_back, take_place
from vidssl.workspace.workspace import Workspace


def repair(
    workspace: Workspace,
    artifact: Artifact,
    faulty: Sequence[str],
    sources: Sources,
    progress: Progress = SILENT,
) -> Repair:
    """Makes the damaged files of an artifact again.

    Args:
        faulty: names of files that are missing, or whose bytes are not those that were written.
    """
    if not faulty:
        return _cannot(artifact, "none of its own files is missing or changed")
    progress.say(f"repair: {artifact.label}, {', '.join(sorted(faulty)[:3])}")
    try:
        with made_again(workspace, artifact, faulty, sources, progress) as made:
            return _put_in_place(workspace, artifact, made, faulty)
    except Interrupted:
        raise
    except VidsslError as error:
        return _cannot(artifact, str(error))
    except OSError as error:
        return _cannot(artifact, f"{error.filename or artifact.path}: {error.strerror}")


def _put_in_place(
    workspace: Workspace, artifact: Artifact, made: Artifact, faulty: Sequence[str]
) -> Repair:
    if all(made.payload.get(name) == artifact.payload[name] for name in faulty):
        put_back(artifact, made, faulty)
        shown = ", ".join(artifact.files.where(name) for name in sorted(faulty))
        return Repair(artifact.label, True, f"{shown} was made again, byte for byte")
    if artifact.kind not in SHARD_KINDS or made.digest != artifact.digest:
        raise CannotMake(
            "what is made of its parents here is not what was written: other videos, or another "
            "machine or version, whose last digits differ"
        )
    aside = take_place(workspace.root, artifact, made)
    return Repair(
        artifact.label,
        True,
        f"{artifact.path} was made again, with the same videos, frames and digest; the damaged "
        f"folder is set aside as {aside}, and can be removed",
    )


def _cannot(artifact: Artifact, why: str) -> Repair:
    return Repair(
        artifact.label,
        False,
        f"{artifact.label} was not repaired: {why.rstrip('.')}; bring its files back, or move "
        f"{artifact.path} away and make it again with the options it had: {command_of(artifact)}",
    )


def command_of(artifact: Artifact) -> str:
    """Returns the command that makes an artifact of this kind and name, without its options."""
    return _command(artifact.kind, artifact.name, artifact.recipe)


def _command(kind: str, name: str, recipe: Mapping[str, Any]) -> str:
    stage, named = recipe.get("stage"), f"--name {name}"
    stream = f" --stream {recipe['stream']}" if isinstance(recipe.get("stream"), str) else ""
    mode = f" --mode {recipe['mode']}" if "mode" in recipe else ""
    commands = {
        "flow": f"vidssl extract-flow VIDEOS {named}",
        "view": f"vidssl extract-view VIDEOS --view VIEW {named}",
        "pack": f"vidssl pack VIDEOS {named}",
        "annotations": f"vidssl pack VIDEOS --labels LABELS {named}",
        "checkpoint": f"vidssl {stage or 'pretrain'}{stream} {named}",
        "features": f"vidssl probe{stream}",
        "probe": f"vidssl probe{mode}{stream} {named}",
        "retrieval": f"vidssl retrieve --evaluate{stream} {named}",
        "finetune": f"vidssl finetune{stream} {named}",
    }
    return "vidssl baselines" if stage == "baseline" else commands[kind]


def say_unreadable(folder: Path) -> Repair:
    """Returns what to do about an artifact without a readable manifest, and why."""
    command = _command(folder.parent.parent.name, folder.parent.name, {})
    return Repair(
        str(folder),
        False,
        f"{folder} was not repaired: its recipe and digests are in artifact.json alone; bring that "
        f"file back, or move {folder} away and make it again with: {command}",
    )
