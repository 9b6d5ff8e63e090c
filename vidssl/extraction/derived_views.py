"""Finds the artifacts of derived views (flow, pose, …) that go into a pack."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from vidssl.base.errors import MissingInput, UsageError, VidsslError
from vidssl.base.progress import Progress
from vidssl.dataset.video import Source
from vidssl.extraction.quarantine import quarantine_of
from vidssl.shards import ShardReader, open_shards
from vidssl.views import all_views, get_view
from vidssl.views.plugins import VARIABLE
from vidssl.workspace.artifacts import Artifact
from vidssl.workspace.workspace import Workspace

DERIVED_KINDS = ("flow", "view")


@dataclass(frozen=True)
class DerivedView:
    """The opened artifact of a derived view.

    Attributes:
        reader: of its shards.
        left_out: {id of a video that it lacks: reason}.
        reasons_lost: it left out more videos than that: its list is damaged.
    """

    reader: ShardReader
    left_out: Mapping[str, str]
    reasons_lost: bool = False

    @classmethod
    def open(cls, artifact: Artifact) -> DerivedView:
        """Opens an artifact by its absolute path: workers of a cluster run in other folders."""
        left_out = {video: reason for video, _, reason in quarantine_of(artifact)}
        lost = len(left_out) < artifact.summary.get("quarantined", 0)
        return cls(open_shards(replace(artifact, path=artifact.path.absolute())), left_out, lost)

    def why_without(self, video_id: str, view: str) -> str:
        """Returns why it lacks a video, or the command that would add it."""
        if video_id in self.left_out:
            return self.left_out[video_id]
        if self.reasons_lost:  # the same command would answer "finished before"
            return (
                "it is new, or was left out for a reason that is lost: "
                f"run vidssl {get_view(view).command} again with --new"
            )
        return f"run vidssl {get_view(view).command} again to add it"


def check_views(wanted: Sequence[str] | None) -> None:
    """Raises a :class:`UsageError` if one of these is no view, or if rgb is not among them."""
    for name in wanted or ():
        get_view(name)
    if wanted is not None and "rgb" not in wanted:
        raise UsageError("a pack holds at least the rgb view: give --views rgb or rgb,flow")


def choose_derived_views(
    workspace: Workspace,
    videos: Path,
    sources: Sequence[Source],
    wanted: Sequence[str] | None,
    labels: Sequence[str],
    progress: Progress,
) -> dict[str, Artifact]:
    """Finds the artifact of each derived view to pack, and tells the user which.

    It takes the artifact that holds most of the videos, and of equals the newest.

    Args:
        videos: the path that the user gave; used in messages.
        sources: the videos found there.
        wanted: views to pack, rgb among them; None: every view that exists of these videos.
        labels: artifacts that the user named.

    Returns:
        {view: artifact}, without rgb.

    Raises:
        UsageError: there is no such view, or rgb is not among those asked for.
        MissingInput: a view that is asked for was not made yet.
    """
    check_views(wanted)
    named = _named(workspace, labels)
    ids = {source.id for source in sources}
    known = _existing_views(workspace, progress) if wanted is None else []
    chosen = {}
    for view in (v for v in wanted or known if v != "rgb"):
        best = named.get(view) or _best(workspace, view, ids)
        if best is not None:
            chosen[view] = best
            progress.say(f"{view}: {best.label}")
        elif wanted is not None:
            how = get_view(view).how_to_make(str(videos))
            raise MissingInput(f"there is no {view} for these videos; make it with: {how}")
    packed_labels = {artifact.label for artifact in chosen.values()}
    unwanted = {v for v, artifact in named.items() if artifact.label not in packed_labels}
    if unwanted:
        raise UsageError(f"{named[min(unwanted)].label} holds no view that is packed")
    if wanted is None and "flow" not in chosen:
        how = get_view("flow").how_to_make(str(videos))
        packed = ", ".join(["rgb", *chosen])
        progress.say(f"no flow for these videos yet: packing {packed} only (to have it: {how})")
    return chosen


def _existing_views(workspace: Workspace, progress: Progress) -> list[str]:
    """Returns the derived views in the workspace that this vidssl knows; flow in any case."""
    newest = {view: a.label for a in workspace.artifacts("view") for view in a.views}
    for view in sorted(newest.keys() - all_views().keys()):
        progress.say(
            f"{newest[view]} is left out: there is no view named {view} here; a view of your own "
            f"is named in {VARIABLE}"
        )
    return sorted({"flow"} | (newest.keys() & all_views().keys()))


def _named(workspace: Workspace, labels: Sequence[str]) -> dict[str, Artifact]:
    """Returns the artifacts that the user named: {view: artifact that holds it}."""
    found: dict[str, Artifact] = {}
    for label in labels:
        kinds = [k for k in DERIVED_KINDS if label.startswith(f"{k}/")] or DERIVED_KINDS
        artifact = _resolve(workspace, kinds, label)
        found |= {view: artifact for view in artifact.views}
    return found


def _resolve(workspace: Workspace, kinds: Sequence[str], label: str) -> Artifact:
    for kind in kinds[:-1]:
        try:
            return workspace.resolve(kind, label)
        except VidsslError:
            continue
    return workspace.resolve(kinds[-1], label)


def _best(workspace: Workspace, view: str, ids: set[str]) -> Artifact | None:
    holders = [
        artifact
        for kind in DERIVED_KINDS
        for artifact in workspace.artifacts(kind)
        if view in artifact.views
    ]
    known = [(a, len(ids & _known_ids(a))) for a in reversed(holders)]
    best = max(known, key=lambda pair: pair[1], default=None)  # of equals the first, the newest
    return best[0] if best is not None and best[1] else None


def _known_ids(derived: Artifact) -> set[str]:
    """Returns the ids of the videos that an artifact holds, or left out for a reason."""
    stored = {video.decode() for video in open_shards(derived).videos.id}
    return stored | {video for video, _, _ in quarantine_of(derived)}
