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
from vidssl.workspace.find_inputs import find_checkpoint, find_pack
from vidssl.workspace.workspace import Workspace

DEFAULT_VIEW = "rgb"


@dataclass(frozen=True)
class EncoderOnPack:
    """A checkpoint's encoder of one view, and the pack that it is tested on."""

    checkpoint: Artifact
    view: str
    pack: Artifact


def checkpoint_labels(subjects: Sequence[EncoderOnPack]) -> list[str]:
    """Returns the labels of the checkpoints, each once: one may hold several views."""
    return list(dict.fromkeys(subject.checkpoint.label for subject in subjects))


def describe_subjects(subjects: Sequence[EncoderOnPack]) -> str:
    """Returns the checkpoints' labels in one phrase, with views if a checkpoint holds several."""
    views: dict[str, list[str]] = {label: [] for label in checkpoint_labels(subjects)}
    for subject in subjects:
        if len(checkpoint_views(subject.checkpoint)) > 1:
            views[subject.checkpoint.label].append(subject.view)
    return " + ".join(
        f"{label} ({' + '.join(meant)})" if meant else label for label, meant in views.items()
    )


def check_encoder_options(
    checkpoints: Sequence[str] = (),
    views: Sequence[str] = (),
    device: str | None = None,
    name: str | None = None,
) -> None:
    """Checks options by themselves, before anything is read from the workspace.

    Raises:
        UsageError: numbers of views and checkpoints do not fit, or an unknown view or device, or
            a name that no artifact can have.
    """
    for view in views:
        get_view(view)
    if len(checkpoints) > 1 and views and len(checkpoints) != len(views):
        raise UsageError(
            f"there are {len(checkpoints)} checkpoints and {counted(len(views), 'stream')}: "
            "name a stream for each checkpoint, or none"
        )
    choose_device(device)
    if name is not None:
        check_name(name)


def find_subject(
    workspace: Workspace,
    checkpoint: str | None = None,
    view: str | None = None,
    pack: str | None = None,
) -> EncoderOnPack:
    """Finds the encoder to evaluate: the named one, or the newest of the view (default: rgb).

    Its pack is the named one, or else the pack that it was trained on. Imported weights have no
    such pack, and take the newest with the view.

    Raises:
        VidsslError: there is none; the sentence names the command that makes one.
    """
    found, view = find_encoder(workspace, checkpoint, view)
    return EncoderOnPack(found, view, _pack_for(workspace, found, view, pack))


def find_subjects(
    workspace: Workspace,
    checkpoints: Sequence[str] = (),
    views: Sequence[str] = (),
    pack: str | None = None,
) -> list[EncoderOnPack]:
    """Finds the encoders of one or several views; all are tested on the pack of the first.

    Args:
        checkpoints: one for each view, or one that holds the encoders of all views; none: the
            newest of each view.
        views: none: the checkpoints' own, or rgb.

    Raises:
        UsageError: as for :func:`check_encoder_options`.
        VidsslError: as for :func:`find_subject`.
    """
    check_encoder_options(checkpoints, views)
    if len(checkpoints) == 1:
        checkpoints = [*checkpoints] * max(1, len(views))
    pairs = list(zip_longest(checkpoints, views)) or [(None, None)]
    first = find_subject(workspace, *pairs[0], pack)
    # The others may be trained on other packs, but all are compared on the first one's videos.
    return [first, *(find_subject(workspace, *pair, first.pack.label) for pair in pairs[1:])]


def find_encoder(
    workspace: Workspace, checkpoint: str | None, view: str | None
) -> tuple[Artifact, str]:
    """Returns the named checkpoint and its view, or the newest of the view (default: rgb).

    Raises:
        VidsslError: there is none; the sentence names the command that makes one.
    """
    if checkpoint is not None and view is None:
        found = workspace.resolve("checkpoint", checkpoint)
        return found, _main_view(found)
    view = view or DEFAULT_VIEW
    return find_checkpoint(workspace, view, checkpoint), view


def _main_view(checkpoint: Artifact) -> str:
    """Returns the view that a checkpoint was trained for; without one, its first encoder's."""
    views = checkpoint_views(checkpoint)
    if not views:
        raise VidsslError(f"{checkpoint.label} holds no encoder")
    view = checkpoint.recipe.get("stream")
    return view if view in views else views[0]


def _pack_for(workspace: Workspace, checkpoint: Artifact, view: str, text: str | None) -> Artifact:
    if text is not None or "pack" not in checkpoint.parents:  # imported weights have none
        return find_pack(workspace, text, [view])
    pack = workspace.by_digest(checkpoint.parents["pack"])
    if pack is None or pack.kind != "pack":
        raise MissingInput(
            f"the pack that {checkpoint.label} was trained on is not in {workspace.root} any "
            "more: name another with --pack, or make it again with: vidssl pack VIDEOS"
        )
    return pack
