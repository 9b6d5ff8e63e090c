"""`vidssl extract-flow`: the flow view of a folder of video, as a flow artifact."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from vidssl.base.device import choose_device
from vidssl.base.errors import UsageError
from vidssl.base.progress import SILENT, Progress
from vidssl.dataset.video import Source, decode, frame_rate
from vidssl.extraction.dry_run import plan_run
from vidssl.extraction.gpu_flow import Frames, extract_in_batches, in_chunks
from vidssl.extraction.partition import Part
from vidssl.extraction.pool import check_pool, choose_pool
from vidssl.extraction.process_pool import Pool, Product, UnusableVideo
from vidssl.extraction.shard_job import (
    ShardJob,
    carry_out,
    reused,
    tell,
    videos_digest,
)
from vidssl.extraction.video_manifest import find_share
from vidssl.optical_flow.algorithms import (
    FlowMethod,
    derive_flow,
    derive_together,
    flow_method,
    get_flow_method,
    in_pixels_of,
    working_frame,
)
from vidssl.shards import SHARD_BYTES, VideoRecord
from vidssl.views import get_view
from vidssl.views.flow import map_name, store_pixels
from vidssl.views.resize import short_side
from vidssl.workspace.artifacts import Artifact, check_name
from vidssl.workspace.results import StageResult
from vidssl.workspace.run_diff import tell_of_others
from vidssl.workspace.workspace import Workspace

# Chosen by measurement: docs/benchmarks.md, "Flow: working size, bound, stored size".
WORKING_SIZE = 240
BOUND_SHARE = 1 / 12  # of the working size: the published 20 pixels of 240
STORED_SIZE = 128


@dataclass(frozen=True)
class ExtractFlow:
    """Options of `vidssl extract-flow`.

    Attributes:
        videos: a folder, a video file, or a text file of paths.
        method: one of :data:`vidssl.optical_flow.algorithms.FLOW_METHODS`; None: tvl1 where there
            is a CUDA device, else dis.
        preset: of the method's parameters; None: its first.
        weights: file of the weights of a method that is a network; empty: torch's cache.
        device: cpu or cuda; None: cuda where there is one and the method can use it.
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
    method: str | None = None
    preset: str | None = None
    weights: str = ""
    device: str | None = None
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
    method, device = choose_method(config)
    params = flow_params(config, method)
    check_pool(config.dask)
    sources, share = find_share(workspace, config.videos, config.part, progress, config.dry_run)
    recipe = {"stage": "extract-flow", "flow": params, "videos": videos_digest(sources)}
    job = ShardJob(
        title="extract-flow",
        views={"flow": params},
        pool=_choose_pool(config, params, method, device),
        shard_bytes=config.shard_bytes,
        earlier=None if config.new else _earlier(workspace, params),
    )
    begun = workspace.open_run("flow", config.name, recipe, {}, config.new, share is not None)
    if config.dry_run:
        who = config.dask or config.workers
        more = {"device": device}
        return plan_run(begun, job.views, sources, share, who, progress, job.earlier, more)
    tell_of_others(begun, progress)
    with begun as opened:
        if opened.finished is not None:
            return reused(opened.finished)
        result = carry_out(opened, job, sources, progress, share)
    tell(result.notes, progress)
    return result


def _earlier(workspace: Workspace, params: Mapping[str, Any]) -> Artifact | None:
    """Finds flow of the same parameters, which a grown folder need not compute again."""
    return workspace.newest("flow", lambda a: a.recipe.get("flow") == params)


def choose_method(config: ExtractFlow) -> tuple[FlowMethod, str]:
    """Returns the method and the device it runs on, as asked for or as the machine suggests.

    Raises:
        UsageError: an unknown method, preset or device, or a method that cannot use the device.
        VidsslError: what the method needs on the device is not installed.
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
        VidsslError: an unknown codec, or a size or bound that makes no sense.
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


def extract_video(
    source: Source, params: Mapping[str, Any], device: str = "cpu", weights: str = ""
) -> Product:
    """Decodes one video and encodes the flow between its frames.

    Args:
        weights: file of a network's weights; empty: torch's cache.

    Raises:
        UnusableVideo: fewer than two frames, or frames too small for the algorithm.
        UnreadableVideo: nothing can be decoded.
    """
    method = flow_method(params["method"], params["method_params"], weights)
    video = _Decoded(source, method, params["working_size"])
    try:
        flows = (
            derive_flow(video.frames(), method.start(), video.size, method.colour)
            if device == "cpu" or method.batched is None
            else derive_together(video.frames(), method.batched(device), video.size, method.colour)
        )
        blobs = [encode_flow(flow, params) for flow in flows]
    except cv2.error as error:
        raise video.too_small() from error
    return Product(video.record(), {"flow": blobs})


def stream_video(source: Source, params: Mapping[str, Any]) -> Iterator[Frames | Product]:
    """Decodes one video into the frames between which flow is wanted, and gives its record last.

    Raises:
        UnusableVideo: as :func:`extract_video`.
        UnreadableVideo: nothing can be decoded.
    """
    method = flow_method(params["method"], params["method_params"])
    video = _Decoded(source, method, params["working_size"])
    yield from in_chunks(
        working_frame(frame, params["working_size"], method.colour) for frame in video.frames()
    )
    yield Product(video.record())


def encode_flow(flow: np.ndarray, params: Mapping[str, Any]) -> bytes:
    """Makes the blob of one flow, float32 [H, W, 2] in pixels: stored size, 8 bits, codec."""
    stored = short_side(flow.shape[1], flow.shape[0], params["stored_size"])
    if flow.shape[1::-1] != stored:
        flow = cv2.resize(flow, stored, interpolation=cv2.INTER_AREA)
    return store_pixels(flow, params["codec"], params["bound"])


def encode_working_flow(flow: np.ndarray, params: Mapping[str, Any]) -> bytes:
    """Makes the blob of one flow as the method gave it: in pixels of its frames."""
    return encode_flow(in_pixels_of(flow, params["working_size"]), params)


def _choose_pool(
    config: ExtractFlow, params: Mapping[str, Any], method: FlowMethod, device: str
) -> Pool:
    """Returns what makes flow: processes with a video each, or one device for all of them."""
    if device == "cpu" or config.dask is not None:
        work = partial(extract_video, params=params, device=device, weights=config.weights)
        return choose_pool(work, config.workers, config.dask)
    assert method.batched is not None
    return partial(
        extract_in_batches,
        decode=partial(stream_video, params=params),
        flow=partial(method.batched, device),
        encode=partial(encode_working_flow, params=params),
        view="flow",
        workers=config.workers,
    )


class _Decoded:
    """One video on its way through a decoder, and what is known of it by then."""

    def __init__(self, source: Source, method: FlowMethod, size: int | None) -> None:
        self.source, self.method, self.size = source, method, size
        self.notes: list[str] = []
        self.count = self.width = self.height = 0

    def frames(self) -> Iterator[np.ndarray]:
        """Returns the frames, RGB uint8 [H, W, 3]."""
        for frame in decode(self.source.path, self.notes):
            if not self.count:
                self.height, self.width = frame.shape[:2]
                if min(short_side(self.width, self.height, self.size)) < self.method.smallest:
                    raise self.too_small()
            self.count += 1
            yield frame

    def too_small(self) -> UnusableVideo:
        return UnusableVideo(f"{self.method.name} cannot do frames of {self.width}x{self.height}")

    def record(self) -> VideoRecord:
        """Returns the video's record once all frames were given.

        Raises:
            UnusableVideo: there was one frame only.
        """
        if self.count < 2:
            raise UnusableVideo("it has one frame only, and flow needs two")
        return VideoRecord(
            id=self.source.id,
            path=self.source.name,
            fps=frame_rate(self.source.path),
            frames=self.count,
            width=self.width,
            height=self.height,
            note="; ".join(self.notes),
        )
