"""`vidssl retrieve QUERY`: finds the videos of a pack that are most similar to a video file.

The gallery's mean is subtracted from both, because a single query has no mean of its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from vidssl.base.device import choose_device
from vidssl.base.errors import UsageError, VidsslError
from vidssl.base.progress import SILENT, Progress
from vidssl.clips.temporal_sampling import span
from vidssl.dataset.video import Source, find_videos
from vidssl.dataset.video_bounds import DEFAULT_BOUNDS, VideoBounds
from vidssl.evaluation.evaluated_encoders import (
    check_encoder_options,
    checkpoint_labels,
    describe_subjects,
    find_subjects,
)
from vidssl.evaluation.features import Features, WindowProtocol, embed_videos
from vidssl.evaluation.neighbours import top_k
from vidssl.evaluation.whitening import check_metric
from vidssl.retrieval.answer_sheet import draw_answer
from vidssl.retrieval.answers import Neighbour, QueryAnswer, QueryResult
from vidssl.retrieval.contact_sheet import check_sheet
from vidssl.retrieval.gallery import EncodedGallery, Gallery, open_gallery
from vidssl.retrieval.query_video import (
    QueryFrames,
    derive_like_gallery,
    make_derivers,
    one_opencv_thread,
)
from vidssl.shards import ShardReader
from vidssl.workspace.workspace import Workspace


@dataclass(frozen=True)
class RetrieveOptions:
    """Options of `vidssl retrieve QUERY`.

    Attributes:
        videos: files, folders, or text files of paths.
        checkpoints, streams, pack: as in
            :class:`vidssl.stages.evaluate_retrieval.EvaluateRetrievalOptions`.
        k: how many neighbours to return.
        keep_self: also returns the query itself if it is in the gallery.
        sheet: path of the contact sheet; several queries get numbered files.
        weights: (view, file) of networks that derive views and are not in torch's cache.
        metric: how features are compared, one of :data:`vidssl.evaluation.whitening.METRICS`.
        bounds: of a query.
    """

    videos: tuple[Path, ...]
    checkpoints: tuple[str, ...] = ()
    streams: tuple[str, ...] = ()
    pack: str | None = None
    k: int = 10
    keep_self: bool = False
    sheet: Path | None = None
    weights: tuple[tuple[str, str], ...] = ()
    protocol: WindowProtocol = field(default_factory=WindowProtocol)
    device: str | None = None
    metric: str = "centred"
    bounds: VideoBounds = DEFAULT_BOUNDS


# ── the stage ────────────────────────────────────────────────────────────────────────────────


def run(workspace: Workspace, options: RetrieveOptions, progress: Progress = SILENT) -> QueryResult:
    """Finds each query's nearest neighbours among all videos of a pack.

    Raises:
        VidsslError: no such file, no checkpoint, or not one query can be decoded.
    """
    if options.k < 1:
        raise UsageError("ask for one neighbour or more")
    check_metric(options.metric)
    if options.sheet is not None:
        check_sheet(options.sheet)
    check_encoder_options(options.checkpoints, options.streams, options.device)
    sources = [source for path in options.videos for source in find_videos(path)]
    subjects = find_subjects(workspace, options.checkpoints, options.streams, options.pack)
    gallery = open_gallery(
        workspace, subjects, options.protocol, options.device, progress, options.metric
    )
    device = choose_device(options.device)
    weights = dict(options.weights)
    derivers = make_derivers(gallery, weights, device)
    answers, quarantined = [], []
    for number, source in enumerate(sources, 1):
        try:
            with one_opencv_thread():
                sheet = options.sheet is not None
                query = derive_like_gallery(
                    source, gallery, derivers, weights, sheet, options.bounds
                )
        except MemoryError:
            quarantined.append((str(source.path), "this process has too little memory for it"))
            continue
        except VidsslError as error:
            quarantined.append((str(source.path), str(error)))
            continue
        place = _sheet_path(options.sheet, number, len(sources))
        answers.append(_answer(source, query, gallery, options, place))
    if not answers:
        path, reason = quarantined[0]
        raise VidsslError(f"{path} cannot be used: {reason}")
    return QueryResult(
        features=describe_subjects(subjects),
        checkpoints=checkpoint_labels(subjects),
        pack=gallery.pack.label,
        gallery=len(gallery.reader),
        answers=answers,
        quarantined=quarantined,
        notes=_notes(answers),
    )


def _notes(answers: Sequence[QueryAnswer]) -> list[str]:
    notes = []
    for answer in answers:
        if answer.left_out:
            listed = ", ".join(answer.left_out)
            notes.append(
                f"{answer.query} is in the gallery itself ({listed}) and was left out; "
                "--keep-self keeps it"
            )
    return notes


def _sheet_path(sheet: Path | None, number: int, count: int) -> Path | None:
    if sheet is None or count == 1:
        return sheet
    return sheet.with_stem(f"{sheet.stem}-{number:0{len(str(count))}d}")


# ── one query ────────────────────────────────────────────────────────────────────────────────


def _answer(
    source: Source,
    query: QueryFrames,
    gallery: Gallery,
    options: RetrieveOptions,
    sheet: Path | None,
) -> QueryAnswer:
    own = [_embed_query(source, query, encoded, options) for encoded in gallery.encoded]
    rows = [
        encoded.comparable(features.video_means())
        for encoded, features in zip(gallery.encoded, own, strict=True)
    ]
    itself = _itself(source, gallery.reader)
    wanted = options.k if options.keep_self else options.k + len(itself)
    found = top_k(np.hstack(rows), gallery.videos, wanted)
    nearest = [
        (int(video), float(value) / len(rows))
        for video, value in zip(found.index[0], found.similarity[0], strict=True)
        if options.keep_self or int(video) not in itself
    ][: options.k]
    answer = QueryAnswer(
        query=str(source.path),
        neighbours=[
            _neighbour(rank, video, value, own[0], query, gallery)
            for rank, (video, value) in enumerate(nearest, 1)
        ],
        left_out=[] if options.keep_self else list(dict.fromkeys(map(gallery.name, itself))),
        sheet=sheet,
    )
    if sheet is not None:
        label = next((gallery.labels[v] for v in itself), None)
        draw_answer(answer, label, [video for video, _ in nearest], query, gallery, sheet)
    return answer


def _embed_query(
    source: Source, query: QueryFrames, encoded: EncodedGallery, options: RetrieveOptions
) -> Features:
    device = choose_device(options.device)
    return embed_videos(encoded.encoder, query, [0], [source.id], options.protocol, device)


def _itself(source: Source, reader: ShardReader) -> list[int]:
    """Returns the gallery's videos with the same fingerprint as the query, under any name."""
    return [v for v in range(len(reader)) if reader.video_id(v).endswith(f"#{source.fingerprint}")]


def _neighbour(
    rank: int, video: int, similarity: float, own: Features, query: QueryFrames, gallery: Gallery
) -> Neighbour:
    """Describes a neighbour, with its window that is most similar to one of the query."""
    encoded = gallery.encoded[0]
    theirs = encoded.comparable(encoded.features.unit_windows(video))
    ours = encoded.comparable(own.unit_windows())
    mine, its = np.unravel_index(int((ours @ theirs.T).argmax()), (len(ours), len(theirs)))
    spec = encoded.encoder.spec
    cover = span(spec.window, spec.stride)
    first = int(encoded.features.starts[encoded.features.of_video(video)][its])
    last = min(first + cover, int(gallery.reader.videos.frames[video])) - 1
    skipped = gallery.reader.first_frame(video)  # a segment's times are those of its whole video
    query_first = int(own.starts[mine])
    query_last = min(query_first + cover, int(query.frame_count(encoded.subject.view)[0])) - 1
    fps = float(gallery.reader.videos.fps[video])
    return Neighbour(
        rank=rank,
        similarity=similarity,
        video=gallery.name(video),
        id=gallery.reader.video_id(video),
        label=gallery.labels[video],
        begin=_seconds(skipped + first, fps),
        end=_seconds(skipped + last + 1, fps),
        first_frame=skipped + first,
        last_frame=skipped + last,
        query_begin=_seconds(query_first, query.fps),
        query_end=_seconds(query_last + 1, query.fps),
    )


def _seconds(frame: int, fps: float) -> float | None:
    return round(frame / fps, 3) if fps > 0 else None
