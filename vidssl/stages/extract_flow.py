"""`vidssl extract-flow`: the flow view of a folder of video, as a flow artifact."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

import cv2

from vidssl.artifacts import Artifact, Workspace, check_name
from vidssl.errors import UsageError
from vidssl.progress import SILENT, Progress
from vidssl.resizing import short_side
from vidssl.shards import SHARD_BYTES, VideoRecord
from vidssl.stages.manifest import find_share
from vidssl.stages.parts import Part
from vidssl.stages.pools import choose_pool
from vidssl.stages.result import StageResult
from vidssl.stages.shard_plan import plan_run
from vidssl.stages.shard_run import ShardJob, carry_out, reused, tell, videos_digest
from vidssl.stages.video_pool import Product, UnusableVideo
from vidssl.video import Source, decode, frame_rate
from vidssl.views import get_view
from vidssl.views.flow import map_name, store_pixels
from vidssl.views.flow_algorithms import derive_flow, get_flow_method

# Chosen by measurement: docs/benchmarks.md, "Flow: working size, bound, stored size".
WORKING_SIZE = 240
BOUND_SHARE = 1 / 12  # of the working size: the published 20 pixels of 240
STORED_SIZE = 128


@dataclass(frozen=True)
class ExtractFlow:
    """Options of `vidssl extract-flow`.

    Attributes:
        videos: a folder, a video file, or a text file of paths.
        method: dis, tvl1 or farneback.
        bound: pixels of the working size beyond which flow is clipped; None: a twelfth of it.
        size: short side at which flow is computed; None: as the videos are.
        stored: short side at which it is stored; None: as computed.
        codec: jpeg1 to jpeg100; png or webp (lossless); or coclr, the published pictures.
        name: of the artifact.
        workers: processes, each for one video at a time; None: one per core.
        part: what falls to this process, where several divide the work; None: all.
        dask: address of a dask scheduler whose workers do it.
        new: repeat a finished run under a new version.
        shard_bytes: about how large a shard gets.
    """

    videos: Path
    method: str = "dis"
    bound: float | None = None
    size: int | None = WORKING_SIZE
    stored: int | None = STORED_SIZE
    codec: str = "jpeg95"
    name: str = "main"
    workers: int | None = None
    part: Part | None = None
    dask: str | None = None
    new: bool = False
    dry_run: bool = False
    shard_bytes: int = SHARD_BYTES


def run(workspace: Workspace, config: ExtractFlow, progress: Progress = SILENT) -> StageResult:
    """Extracts flow from every video; goes on where an earlier attempt stopped.

    Raises:
        VidsslError: no video, not one that can be used, a bad option, or a full disk.
        Interrupted: a signal came; finished videos are kept.
    """
    check_name(config.name)
    params = flow_params(config)
    sources, share = find_share(workspace, config.videos, config.part, progress, config.dry_run)
    recipe = {"stage": "extract-flow", "flow": params, "videos": videos_digest(sources)}
    job = ShardJob(
        title="extract-flow",
        views={"flow": params},
        pool=choose_pool(partial(extract_video, params=params), config.workers, config.dask),
        shard_bytes=config.shard_bytes,
        earlier=None if config.new else _earlier(workspace, params),
    )
    begun = workspace.open_run("flow", config.name, recipe, {}, config.new, share is not None)
    if config.dry_run:
        who = config.dask or config.workers
        return plan_run(begun, job.views, sources, share, who, progress, job.earlier)
    with begun as opened:
        if opened.finished is not None:
            return reused(opened.finished)
        result = carry_out(opened, job, sources, progress, share)
    tell(result.notes, progress)
    return result


def _earlier(workspace: Workspace, params: Mapping[str, Any]) -> Artifact | None:
    """Finds flow of the same parameters, which a grown folder need not compute again."""
    return workspace.newest("flow", lambda a: a.recipe.get("flow") == params)


def flow_params(config: ExtractFlow) -> dict[str, Any]:
    """Gives all that determines the stored flow of a video; recorded with it.

    Raises:
        VidsslError: an unknown method or codec, or a size or bound that makes no sense.
    """
    method = get_flow_method(config.method)
    get_view("flow").check_codec(config.codec)
    for option, size in (("--size", config.size), ("--stored-size", config.stored)):
        if size is not None and size < 16:
            raise UsageError(f"{option} {size} is too small for flow: give 16 or more")
    bound = (config.size or WORKING_SIZE) * BOUND_SHARE if config.bound is None else config.bound
    if not 0 < bound < float("inf"):
        raise UsageError(f"--bound {bound} makes no sense: give a number of pixels above 0")
    return {
        "codec": config.codec,
        "method": method.name,
        "method_params": dict(method.params),
        "bound": float(bound),
        "map": map_name(config.codec),
        "working_size": config.size,
        "stored_size": config.stored,
    }


def extract_video(source: Source, params: Mapping[str, Any]) -> Product:
    """Decodes one video and encodes the flow between its frames.

    Raises:
        UnusableVideo: fewer than two frames, or frames too small for the algorithm.
        UnreadableVideo: nothing can be decoded.
    """
    notes: list[str] = []
    blobs: list[bytes] = []
    view, estimate = get_view("flow"), get_flow_method(params["method"]).start()
    frames = decode(source.path, notes)
    first = next(frames)
    height, width = first.shape[:2]
    try:
        for flow in derive_flow(chain([first], frames), estimate, params["working_size"]):
            stored = short_side(flow.shape[1], flow.shape[0], params["stored_size"])
            if flow.shape[1::-1] != stored:
                flow = cv2.resize(flow, stored, interpolation=cv2.INTER_AREA)
            blobs.append(store_pixels(flow, params["codec"], params["bound"]))
    except cv2.error as error:
        size = f"{width}x{height}"
        raise UnusableVideo(f"{params['method']} cannot do frames of {size}") from error
    if not blobs:
        raise UnusableVideo("it has one frame only, and flow needs two")
    record = VideoRecord(
        id=source.id,
        path=source.name,
        fps=frame_rate(source.path),
        frames=len(blobs) + view.lag,
        width=width,
        height=height,
        note="; ".join(notes),
    )
    return Product(record, {view.name: blobs})
