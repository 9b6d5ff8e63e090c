"""Finds the encoders to evaluate: named checkpoints or the newest, and the pack to test them on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import zip_longest

from vidssl.base.device import choose_device
from vidssl.base.errors import MissingInput, UsageError, VidsslError
from vidssl.base.text import counted
from vidssl.views import get_view
from vidssl.workspace.artifacts import Artifact, check_name
from vidssl.workspace.checkpoints import checkpoint_views
from vidssl.workspace.find import find_checkpoint, find_pack
from vidssl.workspace.workspace import Workspace

DEFAULT_STREAM = "rgb"


@dataclass(frozen=True)
class EncoderOnPack:
    """A checkpoint's encoder of one stream, and the pack that it is tested on."""

    checkpoint: Artifact
    stream: str
    pack: Artifact


def checkpoints_of(subjects: Sequence[EncoderOnPack]) -> list[str]:
    """Returns the labels of the checkpoints, each once: one may hold several streams."""
    return list(dict.fromkeys(subject.checkpoint.label for subject in subjects))


def in_words(subjects: Sequence[EncoderOnPack]) -> str:
    """Returns the checkpoints' labels in one phrase, with streams if a checkpoint holds several."""
    streams: dict[str, list[str]] = {label: [] for label in checkpoints_of(subjects)}
    for subject in subjects:
        if len(checkpoint_views(subject.checkpoint)) > 1:
            streams[subject.checkpoint.label].append(subject.stream)
    return " + ".join(
        f"{label} ({' + '.join(meant)})" if meant else label for label, meant in streams.items()
    )


def check_words(
    checkpoints: Sequence[str] = (),
    streams: Sequence[str] = (),
    device: str | None = None,
    name: str | None = None,
) -> None:
    """Checks options by themselves, before anything is read from the workspace.

    Raises:
        UsageError: numbers of streams and checkpoints do not fit, or an unknown view or device, or
            a name that no artifact can have.
    """
    for stream in streams:
        get_view(stream)
    if len(checkpoints) > 1 and streams and len(checkpoints) != len(streams):
        raise UsageError(
            f"there are {len(checkpoints)} checkpoints and {counted(len(streams), 'stream')}: "
            "name a stream for each checkpoint, or none"
        )
    choose_device(device)
    if name is not None:
        check_name(name)


def find_subject(
    workspace: Workspace,
    checkpoint: str | None = None,
    stream: str | None = None,
    pack: str | None = None,
) -> EncoderOnPack:
    """Finds the encoder to evaluate: the named one, or the newest of the stream (default: rgb).

    Its pack is the named one, or else the pack that it was trained on. Imported weights have no
    such pack, and take the newest with the stream.

    Raises:
        VidsslError: there is none; the sentence names the command that makes one.
    """
    found, stream = find_encoder(workspace, checkpoint, stream)
    return EncoderOnPack(found, stream, _pack_for(workspace, found, stream, pack))


def find_subjects(
    workspace: Workspace,
    checkpoints: Sequence[str] = (),
    streams: Sequence[str] = (),
    pack: str | None = None,
) -> list[EncoderOnPack]:
    """Finds the encoders of one or several streams; all are tested on the pack of the first.

    Args:
        checkpoints: one for each stream, or one that holds the encoders of all streams; none: the
            newest of each stream.
        streams: none: the checkpoints' own, or rgb.

    Raises:
        UsageError: as for :func:`check_words`.
        VidsslError: as for :func:`find_subject`.
    """
    check_words(checkpoints, streams)
    if len(checkpoints) == 1:
        checkpoints = [*checkpoints] * max(1, len(streams))
    pairs = list(zip_longest(checkpoints, streams)) or [(None, None)]
    first = find_subject(workspace, *pairs[0], pack)
    # The others may be trained on other packs, but all are compared on the first one's videos.
    return [first, *(find_subject(workspace, *pair, first.pack.label) for pair in pairs[1:])]


def find_encoder(
    workspace: Workspace, checkpoint: str | None, stream: str | None
) -> tuple[Artifact, str]:
    """Returns the named checkpoint and its stream, or the newest of the stream (default: rgb).

    Raises:
        VidsslError: there is none; the sentence names the command that makes one.
    """
    if checkpoint is not None and stream is None:
        found = workspace.resolve("checkpoint", checkpoint)
        return found, _main_stream(found)
    stream = stream or DEFAULT_STREAM
    return find_checkpoint(workspace, stream, checkpoint), stream


def _main_stream(checkpoint: Artifact) -> str:
    """Returns the stream that a checkpoint was trained for; without one, its first encoder's."""
    views = checkpoint_views(checkpoint)
    if not views:
        raise VidsslError(f"{checkpoint.label} holds no encoder")
    stream = checkpoint.recipe.get("stream")
    return stream if stream in views else views[0]


def _pack_for(
    workspace: Workspace, checkpoint: Artifact, stream: str, text: str | None
) -> Artifact:
    if text is not None or "pack" not in checkpoint.parents:  # imported weights have none
        return find_pack(workspace, text, [stream])
    pack = workspace.by_digest(checkpoint.parents["pack"])
    if pack is None or pack.kind != "pack":
        raise MissingInput(
            f"the pack that {checkpoint.label} was trained on is not in {workspace.root} any "
            "more: name another with --pack, or make it again with: vidssl pack VIDEOS"
        )
    return pack
