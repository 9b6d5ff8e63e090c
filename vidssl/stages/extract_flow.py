"""`vidssl extract-flow`: computes the flow of a folder of video and stores it as an artifact."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from vidssl.base.device import choose_device
from vidssl.base.errors import UsageError
from vidssl.base.progress import SILENT, Progress
from vidssl.extraction.gpu_flow import extract_in_batches
from vidssl.extraction.left_out_videos import open_video_run
from vidssl.extraction.options import ExtractionOptions
from vidssl.extraction.part_videos import find_part_videos
from vidssl.extraction.pool import check_pool, choose_pool
from vidssl.extraction.process_pool import Pool
from vidssl.extraction.run_or_describe import run_or_describe
from vidssl.extraction.shard_job import ShardJob, videos_digest
from vidssl.extraction.video_flow import (
    encode_working_flow,
    extract_video_flow,
    stream_video_frames,
)
from vidssl.optical_flow.algorithms import FlowMethod, get_flow_method
from vidssl.views import get_view
from vidssl.views.flow import map_name
from vidssl.workspace.artifacts import Artifact, check_name
from vidssl.workspace.stage_result import StageResult
from vidssl.workspace.workspace import Workspace

# Chosen by measurement: docs/benchmarks.md, "Flow: working size, bound, stored size".
WORKING_SIZE = 240
BOUND_SHARE = 1 / 12  # of the working size: the published 20 pixels of 240
STORED_SIZE = 128


@dataclass(frozen=True)
class ExtractFlow(ExtractionOptions):
    """Options of `vidssl extract-flow`, beside those of all extraction.

    Attributes:
        videos: a folder, a video file, or a text file of paths.
        method: one of :data:`vidssl.optical_flow.algorithms.FLOW_METHODS`; None: tvl1 if there
            is a CUDA device, else dis.
        preset: name of a set of the method's parameters; None: the first.
        weights: file of a network's weights; empty: torch's cache.
        device: cpu or cuda; None: cuda if there is one and the method can use it.
        bound: flow is clipped to ± so many pixels of the working size; None: a twelfth of it.
        size: working size, the short side at which flow is computed; None: the video's.
        stored: short side at which flow is stored; None: the working size.
        codec: jpeg1 to jpeg100; png or webp (lossless); or coclr, as CoCLR stores it.
        name: of the artifact.
    """

    videos: Path
    method: str | None = None
    preset: str | None = None
    weights: str = ""
    device: str | None = None
    bound: float | None = None
    size: int | None = WORKING_SIZE
    stored: int | None = STORED_SIZE
    codec: str = "jpeg95"
    name: str = "main"


def run(workspace: Workspace, config: ExtractFlow, progress: Progress = SILENT) -> StageResult:
    """Extracts flow from every video; goes on where an earlier attempt stopped.

    Raises:
        VidsslError: there is no video, none can be used, an option is wrong, or the disk is full.
        Interrupted: a signal came; finished videos are kept.
    """
    check_name(config.name)
    method, device = choose_method(config)
    params = flow_params(config, method)
    check_pool(config.dask)
    sources, part_videos = find_part_videos(
        workspace, config.videos, config.part, progress, config.dry_run
    )
    recipe = {"stage": "extract-flow", "flow": params, "videos": videos_digest(sources)}
    prepared, retried = open_video_run(workspace, config, "flow", config.name, recipe, {})
    job = ShardJob(
        title="extract-flow",
        views={"flow": params},
        pool=_choose_pool(config, params, method, device),
        shard_bytes=config.shard_bytes,
        earlier=None if config.new else retried or _earlier(workspace, params),
        retry=config.retry_quarantined,
        retried=retried,
    )
    who, more = config.dask or config.workers, {"device": device}
    return run_or_describe(
        prepared, job, sources, part_videos, config, progress, workers=who, more=more
    )


def _earlier(workspace: Workspace, params: Mapping[str, Any]) -> Artifact | None:
    """Returns the newest artifact of the same parameters, whose videos need not be done again."""
    return workspace.newest("flow", lambda a: a.recipe.get("flow") == params)


def choose_method(config: ExtractFlow) -> tuple[FlowMethod, str]:
    """Returns the method and its device: those of the options, or the best for this machine.

    Raises:
        UsageError: the method, preset or device is unknown, or does not fit the other.
        VidsslError: a package that the method needs on the device is not installed.
    """
    device = choose_device(config.device)
    name = config.method or ("tvl1" if device == "cuda" else "dis")
    method = get_flow_method(name, config.preset, config.weights)
    if device == "cuda" and method.batched is None:
        if config.device is not None:
            raise UsageError(f"{method.name} runs on a CPU only: leave out --device {device}")
        device = "cpu"
    if device == "cuda" and method.check_device is not None:
        method.check_device()
    return method, device


def flow_params(config: ExtractFlow, method: FlowMethod) -> dict[str, Any]:
    """Returns all that determines the stored flow of a video; recorded with it.

    Raises:
        UsageError: the codec is unknown, or a size or bound makes no sense.
    """
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


def _choose_pool(
    config: ExtractFlow, params: Mapping[str, Any], method: FlowMethod, device: str
) -> Pool:
    """Returns the pool that computes flow: one process per video, or one GPU for all videos."""
    if device == "cpu" or config.dask is not None:
        function = partial(
            extract_video_flow,
            params=params,
            device=device,
            weights=config.weights,
            bounds=config.bounds,
        )
        return choose_pool(function, config.workers, config.dask)
    assert method.batched is not None
    return partial(
        extract_in_batches,
        decode=partial(stream_video_frames, params=params, bounds=config.bounds),
        flow=partial(method.batched, device),
        encode=partial(encode_working_flow, params=params),
        view="flow",
        workers=config.workers,
    )
