"""Computes a checkpoint's features of a pack once, and keeps them as an artifact.

The artifact's identity is the protocol and the digests of checkpoint and pack. So features of
another epoch or of other videos are never taken for these.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np

from vidssl.base.device import choose_device
from vidssl.base.errors import Interrupted, VidsslError
from vidssl.base.files import file_digest
from vidssl.base.progress import SILENT, Progress
from vidssl.base.text import counted
from vidssl.evaluation import feature_file, features
from vidssl.evaluation.evaluated_encoders import EncoderOnPack, find_subject
from vidssl.evaluation.features import Features, WindowNetwork, WindowProtocol
from vidssl.evaluation.kept_windows import KeptWindows
from vidssl.evaluation.kept_windows_of_pack import kept_windows_of
from vidssl.shards import ShardReader, open_shards
from vidssl.workspace.artifacts import Artifact, canonical_digest
from vidssl.workspace.checkpoints import checkpoint_encoder, checkpoint_spec, checkpoint_views
from vidssl.workspace.stage_result import StageResult
from vidssl.workspace.workspace import Workspace

FEATURES_FILE = "features.h5"
PART_VIDEOS = 512


@dataclass(frozen=True)
class EmbedOptions:
    """Which encoder embeds which pack.

    Attributes:
        checkpoint: None: the newest of the view.
        stream: the view; None: the checkpoint's own, or rgb.
        pack: None: the pack that the checkpoint was trained on.
        name: of the artifact; None: that of :func:`name_of`.
    """

    checkpoint: str | None = None
    stream: str | None = None
    pack: str | None = None
    protocol: WindowProtocol = field(default_factory=WindowProtocol)
    name: str | None = None
    new: bool = False
    device: str | None = None
    dry_run: bool = False


def embed(workspace: Workspace, options: EmbedOptions, progress: Progress = SILENT) -> StageResult:
    """Embeds all windows of all videos of a pack, or finds the finished artifact.

    Raises:
        VidsslError: an input is missing or damaged.
        Interrupted: Ctrl-C was pressed; the same command continues.
    """
    subject = find_subject(workspace, options.checkpoint, options.stream, options.pack)
    if options.dry_run:
        plan = {
            "makes": f"features/{options.name or name_of(subject)}",
            "inputs": {"checkpoint": subject.checkpoint.label, "pack": subject.pack.label},
            "recipe": recipe_of(subject, options.protocol),
        }
        return StageResult(None, plan=plan)
    return _embed_or_find(workspace, subject, options, progress)


def features_of(
    workspace: Workspace,
    subject: EncoderOnPack,
    protocol: WindowProtocol,
    device: str | None = None,
    progress: Progress = SILENT,
) -> tuple[Artifact, Features]:
    """Returns a checkpoint's features of a pack, and their artifact; computes them if needed."""
    options = EmbedOptions(protocol=protocol, device=device)
    result = _embed_or_find(workspace, subject, options, progress)
    artifact = result.artifact
    assert artifact is not None
    found = load_features(artifact)
    _check_ids(artifact, found, subject.pack)
    return artifact, found


def _check_ids(artifact: Artifact, found: Features, pack: Artifact) -> None:
    """Checks that features are of the videos of a pack: a row of one is taken for the other's."""
    with open_shards(pack) as reader:
        ids = [video.decode() for video in reader.videos.id]
    if list(found.ids) != ids:
        raise VidsslError(
            f"{artifact.files.where(FEATURES_FILE)} of {artifact.label} is not of the videos of "
            f"{pack.label}: remove that folder and run the command again"
        )


def load_features(artifact: Artifact) -> Features:
    """Reads a features artifact after checking its bytes.

    Raises:
        VidsslError: the file is missing or was changed.
    """
    return feature_file.load_features(artifact.files.checked(FEATURES_FILE))


def recipe_of(subject: EncoderOnPack, protocol: WindowProtocol) -> dict[str, object]:
    """Returns the recipe of a features artifact."""
    spec = checkpoint_spec(subject.checkpoint, subject.view)
    return {"stage": "embed", "stream": subject.view, "protocol": protocol.as_dict(spec)}


def _embed_or_find(
    workspace: Workspace, subject: EncoderOnPack, options: EmbedOptions, progress: Progress
) -> StageResult:
    parents = {"checkpoint": subject.checkpoint, "pack": subject.pack}
    recipe = recipe_of(subject, options.protocol)
    name = options.name or name_of(subject)
    # Several evaluations of one checkpoint may need the same features at the same time.
    wait = partial(progress.say, f"another process computes features/{name}: waiting for them")
    opened = workspace.open_run("features", name, recipe, parents, options.new, before_waiting=wait)
    with opened as run:
        if run.finished is not None:
            return StageResult(run.finished, reused=True)
        encoder = checkpoint_encoder(subject.checkpoint, subject.view)
        device = choose_device(options.device)
        with open_shards(subject.pack) as reader:
            videos = range(len(reader))
            kept = kept_windows_of(subject.pack, reader, encoder, options.protocol, device)
            whole = embed_in_parts(
                run.folder, encoder, reader, videos, options.protocol, device, progress, kept=kept
            )
        feature_file.save_features(whole, run.folder / FEATURES_FILE)
        drop_parts(run.folder)
        summary = {
            "videos": len(whole.ids),
            "windows": len(whole.starts),
            "width": whole.windows.shape[1],
        }
        return StageResult(run.publish(_digest(recipe, parents, run.folder), summary))


def name_of(subject: EncoderOnPack) -> str:
    """Returns the name of artifacts that are made from one encoder.

    It is the checkpoint's name, with the view's if the checkpoint has several encoders: results of
    one view must not look like newer versions of another view's.
    """
    checkpoint = subject.checkpoint
    several = len(checkpoint_views(checkpoint)) > 1
    return f"{checkpoint.name}-{subject.view}" if several else checkpoint.name


def _digest(recipe: dict[str, object], parents: dict[str, Artifact], folder: Path) -> str:
    of_parents = {role: parent.digest for role, parent in parents.items()}
    content = file_digest(folder / FEATURES_FILE)
    return canonical_digest({"recipe": recipe, "parents": of_parents, "content": content})


# ── embedding in parts ───────────────────────────────────────────────────────────────────────


def embed_in_parts(
    folder: Path,
    network: WindowNetwork,
    reader: ShardReader,
    videos: Sequence[int] | np.ndarray,
    protocol: WindowProtocol,
    device: str,
    progress: Progress = SILENT,
    description: str = "embed",
    kept: KeptWindows | None = None,
) -> Features:
    """Embeds some videos of a pack in parts of 512, so that a killed run loses only one part.

    Args:
        folder: of the run; each part is a file in it until :func:`drop_parts`.
        videos: their numbers in the pack.
        kept: as of :func:`~vidssl.evaluation.features.embed_videos`.

    Raises:
        Interrupted: Ctrl-C was pressed; the same command continues.
    """
    view = network.spec.view
    lengths = reader.frame_count(view)
    parts = [videos[v : v + PART_VIDEOS] for v in range(0, len(videos), PART_VIDEOS)]
    paths = [folder / f"part-{number:05d}.h5" for number in range(len(parts))]
    ids = [[reader.video_id(v) for v in part] for part in parts]
    windows = [features.count_windows(network.spec, protocol, lengths[part]) for part in parts]
    for names, path in zip(ids, paths, strict=True):
        if path.exists() and not _is_sound(path, names):
            progress.say(
                f"{path} is damaged: its {counted(len(names), 'video')} are embedded again"
            )
            path.unlink()
    before = sum(n for n, path in zip(windows, paths, strict=True) if path.exists())
    try:
        with progress.task(f"{description} {view}", sum(windows), "window", before) as task:
            for some, names, path in zip(parts, ids, paths, strict=True):
                if not path.exists():
                    part = features.embed_videos(
                        network, reader, some, names, protocol, device,
                        embedded=task.advance, kept=kept,
                    )  # fmt: skip
                    feature_file.save_part(part, path)
    except KeyboardInterrupt:
        raise Interrupted(
            "interrupted; the parts that were finished are kept, and the same command goes on"
        ) from None
    return features.join_features([feature_file.load_part(path) for path in paths])


def _is_sound(path: Path, ids: Sequence[str]) -> bool:
    """Whether a part that an earlier process left is as it was written, and of these videos."""
    try:
        return feature_file.load_part(path).ids == tuple(ids)
    except VidsslError:
        return False


def drop_parts(folder: Path) -> None:
    """Deletes the files of :func:`embed_in_parts`, once the whole is written."""
    for path in folder.glob("part-*.h5"):
        path.unlink()
