"""`vidssl embed`: vectors of video files by any encoder, without a pack; also from Python."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from vidssl.base.device import choose_device
from vidssl.base.errors import Interrupted, UsageError, VidsslError
from vidssl.base.locks import file_lock
from vidssl.base.progress import SILENT, Progress
from vidssl.base.text import counted
from vidssl.dataset.labels import check_labelling, label_classes
from vidssl.dataset.video import Source, find_videos
from vidssl.dataset.video_bounds import DEFAULT_BOUNDS, VideoBounds
from vidssl.evaluation.evaluated_encoders import find_encoder
from vidssl.evaluation.features import WindowProtocol
from vidssl.optical_flow.algorithms import get_flow_method
from vidssl.retrieval.exported_encoder import (
    Params,
    is_exported,
    params_of,
    params_of_own_pack,
    read_exported,
)
from vidssl.retrieval.finished_videos import FinishedVideos
from vidssl.retrieval.vector_table import (
    VectorRow,
    VectorTable,
    check_output,
    left_out_file,
    output_files,
    write_left_out,
)
from vidssl.retrieval.video_encoder import VideoEncoder, VideoVectors
from vidssl.stages.extract_flow import ExtractFlow, flow_params
from vidssl.stages.pack import Pack, rgb_params
from vidssl.views import get_view
from vidssl.workspace.checkpoints import checkpoint_encoder
from vidssl.workspace.find_inputs import find_pack
from vidssl.workspace.workspace import Workspace

DEFAULT_WORKSPACE = "vidssl-workspace"


@dataclass(frozen=True)
class EncoderOptions:
    """Which encoder embeds video files, and how.

    Attributes:
        checkpoint: of the workspace, or a folder or file that `vidssl export` wrote; None: the
            newest of the view.
        stream: the view; None: the checkpoint's own, or rgb.
        pack: take over how its frames and flow were made; None: the pack of the checkpoint.
        weights: (view, file) of networks that derive views and are not in torch's cache.
    """

    checkpoint: str | None = None
    stream: str | None = None
    pack: str | None = None
    weights: tuple[tuple[str, str], ...] = ()
    protocol: WindowProtocol = field(default_factory=WindowProtocol)
    device: str | None = None
    bounds: VideoBounds = DEFAULT_BOUNDS


@dataclass(frozen=True)
class EmbedFiles:
    """Options of `vidssl embed`.

    Attributes:
        videos: files, folders, or text files of paths.
        out: the file to write; its suffix names the format.
        windows: one row for each window instead of one for each video.
        labels: "folders", "none", or a CSV file (path,label).
        new: replace `out` where it is there, and use nothing of an earlier attempt.
    """

    videos: tuple[Path, ...]
    out: Path
    encoder: EncoderOptions = field(default_factory=EncoderOptions)
    windows: bool = False
    labels: str = "folders"
    new: bool = False


@dataclass(frozen=True)
class EmbedResult:
    """What was written.

    Attributes:
        about: the encoder and its preprocessing.
        quarantined: (video, reason) of those that could not be used.
    """

    files: list[Path]
    videos: int
    rows: int
    width: int
    about: dict[str, Any]
    quarantined: list[tuple[str, str]]
    notes: list[str]

    def as_dict(self) -> dict[str, Any]:
        """Returns the result as plain data, for --json."""
        data = asdict(self) | {"files": [str(path) for path in self.files]}
        data["quarantined"] = [{"video": v, "reason": r} for v, r in self.quarantined]
        return data


# ── the encoder ──────────────────────────────────────────────────────────────────────────────


def find_video_encoder(workspace: Workspace, options: EncoderOptions) -> VideoEncoder:
    """Returns an encoder of a workspace or an exported one, with all that leads to its input.

    Frames are stored and flow is computed as in the named pack, or as the checkpoint's own pack or
    the exported card says, or else as `vidssl pack` and `vidssl extract-flow` do by default.

    Raises:
        VidsslError: there is no such encoder or pack, or it is damaged.
    """
    device = choose_device(options.device)
    if options.stream is not None:
        get_view(options.stream)
    if options.checkpoint is not None and is_exported(options.checkpoint):
        exported = read_exported(Path(options.checkpoint))
        encoder = exported.encoder
        params: Params | None = exported.params
        label, digest = str(exported.file), exported.digest
        if options.stream not in (None, encoder.spec.view):
            raise UsageError(f"{label} is an encoder of {encoder.spec.view}, not {options.stream}")
    else:
        checkpoint, view = find_encoder(workspace, options.checkpoint, options.stream)
        encoder = checkpoint_encoder(checkpoint, view)
        params = params_of_own_pack(workspace, checkpoint)
        label, digest = checkpoint.label, checkpoint.digest
    view, notes = encoder.spec.view, list[str]()
    if options.pack is not None:
        params = params_of(find_pack(workspace, options.pack, [view]))
    if params is None or view not in params:
        params = {view: _default_params(view, label)}
        notes.append(
            f"{label} does not say how its frames were stored: they are taken as vidssl "
            f"{'pack' if view == 'rgb' else 'extract-flow --method dis'} stores them by default "
            "(--pack takes over the way of a pack)"
        )
    return VideoEncoder(
        encoder, {view: params[view]}, label, digest, options.protocol, device,
        dict(options.weights), options.bounds, tuple(notes),
    )  # fmt: skip


def _default_params(view: str, label: str) -> dict[str, Any]:
    if view == "rgb":
        return rgb_params(Pack(Path()))
    if view == "flow":
        # On every machine the same method, so that vectors do not depend on the machine.
        return flow_params(ExtractFlow(Path()), get_flow_method("dis"))
    raise VidsslError(f"{label} looks at {view}, and nothing says how: name a pack with --pack")


def _about(encoder: VideoEncoder, windows: bool) -> dict[str, Any]:
    return {
        "checkpoint": encoder.label,
        "digest": encoder.digest,
        "rows": "windows" if windows else "videos",
        "width": encoder.dim,
        "preprocessing": encoder.preprocessing,
    }


# ── the stage ────────────────────────────────────────────────────────────────────────────────


def run(workspace: Workspace, options: EmbedFiles, progress: Progress = SILENT) -> EmbedResult:
    """Embeds video files and writes one table; goes on where an earlier attempt stopped.

    Raises:
        VidsslError: there is no video or no encoder, not one video can be used, the output is
            there already, or the disk is full.
        Interrupted: Ctrl-C was pressed; finished videos are kept, and the same command goes on.
    """
    _check(options)
    sources = _find_all(options.videos)
    rows = label_classes(sources, options.labels)
    encoder = find_video_encoder(workspace, options.encoder)
    progress.say(f"embed: {counted(len(sources), 'video')} by {encoder.view} of {encoder.label}")
    about = _about(encoder, options.windows)
    lock = options.out.with_name(f"{options.out.name}.lock")
    try:
        with file_lock(lock, f"another process writes {options.out}: wait for it"):
            kept = FinishedVideos(options.out, _recipe(encoder), options.new, progress.say)
            found, quarantined = _embed_all(encoder, sources, kept, progress)
            if not found:
                path, reason = quarantined[0]
                raise VidsslError(f"{path} cannot be used: {reason}")
            labels = [row["label"] or None for row in rows.rows]
            table = _table(sources, labels, found, options.windows, about)
            files = table.write(options.out)
            write_left_out(options.out, quarantined)
            kept.delete()
            lock.unlink(missing_ok=True)
    except KeyboardInterrupt:
        raise Interrupted(
            "interrupted; the videos that were finished are kept, and the same command goes on"
        ) from None
    if quarantined:
        files.append(left_out_file(options.out))
    notes = [*encoder.notes, *rows.notes]
    return EmbedResult(
        files, len(found), len(table.rows), encoder.dim, about, quarantined, notes
    )  # fmt: skip


def _check(options: EmbedFiles) -> None:
    check_output(options.out)
    check_labelling(options.labels, None)
    for path in output_files(options.out):
        if path.exists() and not options.new:
            raise VidsslError(
                f"{path} is there already: name another file with --out, or replace it with --new"
            )


def _find_all(paths: Sequence[Path]) -> list[Source]:
    """Returns the videos of all paths, each file once."""
    found = {s.path.absolute(): s for path in paths for s in find_videos(path)}
    return list(found.values())


def _recipe(encoder: VideoEncoder) -> dict[str, Any]:
    spec = encoder.encoder.spec
    return {
        "digest": encoder.digest,
        "protocol": encoder.protocol.as_dict(spec),
        "preprocessing": encoder.preprocessing,
        "weights": dict(encoder.weights),
    }


def _embed_all(
    encoder: VideoEncoder, sources: Sequence[Source], kept: FinishedVideos, progress: Progress
) -> tuple[dict[int, VideoVectors], list[tuple[str, str]]]:
    """Returns the vectors by number of the video, and (video, reason) of those left out."""
    before = {n: v for n, s in enumerate(sources) if (v := kept.get(s)) is not None}
    found, quarantined = dict(before), []
    with progress.task(f"embed {encoder.view}", len(sources), "video", len(before)) as task:
        for number, source in enumerate(sources):
            if number in before:
                continue
            try:
                vectors = encoder.embed_frames(encoder.decode(source), str(source.path))
            except MemoryError:
                reason = "this process has too little memory for it"
                quarantined.append((str(source.path), reason))
            except VidsslError as error:
                quarantined.append((str(source.path), str(error)))
            else:
                kept.put(source, vectors)
                found[number] = vectors
            task.advance()
    return dict(sorted(found.items())), quarantined


def _table(
    sources: Sequence[Source],
    labels: Sequence[str | None],
    found: Mapping[int, VideoVectors],
    windows: bool,
    about: Mapping[str, Any],
) -> VectorTable:
    rows: list[VectorRow] = []
    vectors = []
    for number, video in found.items():
        times = video.times() if windows else [video.seconds(0, video.frames)]
        path = _printable(sources[number].path)
        rows += [VectorRow(path, begin, end, labels[number]) for begin, end in times]
        vectors.append(video.windows if windows else video.mean()[None])
    return VectorTable(rows, np.concatenate(vectors).astype(np.float32, copy=False), about)


def _printable(path: Path) -> str:
    # File names are bytes; a table has text.
    return str(path).encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


# ── from Python ──────────────────────────────────────────────────────────────────────────────


def load_encoder(
    checkpoint: str | Path | None = None,
    workspace: str | Path = DEFAULT_WORKSPACE,
    stream: str | None = None,
    pack: str | None = None,
    device: str | None = None,
) -> VideoEncoder:
    """Loads an encoder with all that leads from a video file to its input.

    `load_encoder(...).preprocessing` and `.axes` name each step and each axis, `.encoder` is the
    network (a `torch.nn.Module` in eval mode), and `.embed(path)` returns a file's
    :class:`~vidssl.retrieval.video_encoder.VideoVectors`.

    Args:
        checkpoint: of the workspace, or a folder or file that `vidssl export` wrote; None: the
            newest of the view.
        stream: the view, such as rgb; None: the checkpoint's own, or rgb.
        pack: take over how its frames and flow were made; None: the pack of the checkpoint.
        device: cpu or cuda; None: cuda where there is one.

    Raises:
        VidsslError: there is no such encoder or pack, or it is damaged.
    """
    name = None if checkpoint is None else str(checkpoint)
    return find_video_encoder(
        Workspace(workspace), EncoderOptions(name, stream, pack, device=device)
    )


def embed(
    paths: str | Path | Sequence[str | Path],
    checkpoint: str | Path | VideoEncoder | None = None,
    workspace: str | Path = DEFAULT_WORKSPACE,
    stream: str | None = None,
    pack: str | None = None,
    device: str | None = None,
) -> np.ndarray:
    """Embeds video files: one row for each video, in the order of the paths.

    Args:
        paths: files, or folders, whose videos come sorted by name.
        checkpoint: as of :func:`load_encoder`, or what it returned.

    Returns:
        float32 [V, D]: the mean of each video's windows at unit length.

    Raises:
        VidsslError: as :func:`load_encoder`; or a video cannot be used, and the sentence names it.
    """
    several = [paths] if isinstance(paths, str | Path) else list(paths)
    sources = [source for path in several for source in find_videos(path)]
    if isinstance(checkpoint, VideoEncoder):
        encoder = checkpoint
    else:
        encoder = load_encoder(checkpoint, workspace, stream, pack, device)
    rows = []
    for source in sources:
        try:
            vectors = encoder.embed_frames(encoder.decode(source), str(source.path))
        except VidsslError as error:
            raise VidsslError(f"{source.path} cannot be used: {error}") from error
        rows.append(vectors.mean())
    return np.stack(rows) if rows else np.empty((0, encoder.dim), np.float32)
