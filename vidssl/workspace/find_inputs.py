"""Finds the inputs of a stage in a workspace: packs, annotations, checkpoints.

The rules are those of docs/architecture.md: what the user named, or else the newest that fits.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from vidssl.base.errors import MissingInput, VidsslError
from vidssl.views import get_view
from vidssl.workspace.artifacts import Artifact
from vidssl.workspace.checkpoints import checkpoint_spec, checkpoint_views
from vidssl.workspace.workspace import Workspace

ANY_CONTEXT = "any"  # the encoder may have a projection head or any context


def find_pack(workspace: Workspace, text: str | None, views: list[str]) -> Artifact:
    """Returns the pack the user named, or the newest that holds all of `views`.

    Raises:
        VidsslError: there is none; the sentence names the command that makes it.
    """
    if text is not None:
        pack = workspace.resolve("pack", text)
        lacking = [v for v in views if v not in pack.views]
        if lacking:
            raise VidsslError(f"{pack.label} has no {lacking[0]} view; {_how_to_pack(lacking[0])}")
        return pack
    if workspace.newest("pack") is None:
        raise MissingInput(
            f"there is no packed video in {workspace.root}; make some with: vidssl pack VIDEOS"
        )
    for view in views:
        missing = f"no pack in {workspace.root} has a {view} view; {_how_to_pack(view)}"
        workspace.require("pack", missing, partial(_has_views, [view]))
    missing = f"no pack in {workspace.root} holds {' and '.join(views)} together"
    return workspace.require("pack", missing, partial(_has_views, views))


def _has_views(views: Sequence[str], pack: Artifact) -> bool:
    return all(view in pack.views for view in views)


def _how_to_pack(view: str) -> str:
    first = get_view(view).how_to_make("VIDEOS")
    return f"make it with: {first}{', then ' if first else ''}vidssl pack VIDEOS"


def find_annotations(workspace: Workspace, pack: Artifact) -> Artifact | None:
    """Returns the newest annotations made for a pack, or None."""
    return workspace.newest("annotations", lambda a: a.parents.get("pack") == pack.digest)


def find_checkpoint(
    workspace: Workspace,
    view: str,
    text: str | None = None,
    *,
    pack: Artifact | None = None,
    pretrained_only: bool = False,
    context: str | None = ANY_CONTEXT,
    used_by: str | None = None,
) -> Artifact:
    """Returns the checkpoint the user named, or the newest of a view.

    A finetuned checkpoint is taken only when it is named: it was trained on labels, and is made to
    be tested.

    Args:
        text: what the user typed; None: the newest checkpoint that fits the other arguments.
        pack: only checkpoints that were trained on it, and imported ones, which have no pack.
        pretrained_only: only checkpoints that were not co-trained.
        context: only encoders with this context above the backbone
            (:attr:`vidssl.backbones.EncoderSpec.context`; None: a projection head).
        used_by: the method that the checkpoint is for; the error names it.

    Raises:
        VidsslError: there is none; the sentence names the command that makes it.
    """
    if text is not None:
        checkpoint = workspace.resolve("checkpoint", text)
        if view not in checkpoint_views(checkpoint):
            raise VidsslError(f"{checkpoint.label} has no {view} encoder")
        return checkpoint

    def fits(found: Artifact) -> bool:
        return (
            view in checkpoint_views(found)
            and (pack is None or found.parents.get("pack", pack.digest) == pack.digest)
            and found.recipe.get("stage") != "finetune"
            and not (pretrained_only and found.recipe.get("stage") == "cotrain")
            and (context == ANY_CONTEXT or checkpoint_spec(found, view).context == context)
        )

    of_pack = f" from {pack.label}" if pack else ""
    for_method = f" that {used_by} can go on from" if used_by else ""
    how = "" if context in (ANY_CONTEXT, None) else " --method cpc"
    return workspace.require(
        "checkpoint",
        f"there is no {view} checkpoint{of_pack} in {workspace.root}{for_method}; "
        f"make one with: vidssl pretrain --stream {view}{how}",
        fits,
    )


def pack_of(
    workspace: Workspace, checkpoint: Artifact, text: str | None, views: Sequence[str]
) -> Artifact:
    """Returns the pack a checkpoint was trained on.

    Args:
        text, views: as for :func:`find_pack`; used for imported weights, which have no pack.

    Raises:
        MissingInput: the pack is not in the workspace any more.
    """
    if "pack" not in checkpoint.parents:
        return find_pack(workspace, text, list(views))
    pack = workspace.by_digest(checkpoint.parents["pack"])
    if pack is None or pack.kind != "pack":
        raise MissingInput(
            f"the pack that {checkpoint.label} was trained on is not in {workspace.root} any more"
        )
    return pack
