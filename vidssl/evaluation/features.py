"""Computes features: an encoder's embedding of each test window of each video.

The published test protocol (CoCLR and ViCC code, retrieval and linear probe): windows from the
first frame on, a fixed hop apart; the centred square of 224 of 240 pixels; the backbone's pooled
output without the projection head; unit length per window; the mean over a video's windows.
Nothing is random: the same encoder and shards always give the same features. A classifier is
tested on the same windows, and its rows are class probabilities; its published test averages ten
crops of each window.

Legend: V videos, W windows of all videos together, D feature width, B windows in a batch, R crops
of a window, C channels, T frames of a clip, S side of the network's input.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any, TypeVar
from typing import Protocol as Interface

import numpy as np
import torch

from vidssl.augment import Box, centre_square, crop_resize
from vidssl.backbones import EncoderSpec
from vidssl.base.cores_and_memory import cores
from vidssl.base.errors import UsageError, VidsslError, nearest_name
from vidssl.base.finite_values import rows_without_length
from vidssl.clips.temporal_sampling import clip_indices, published_hop, window_starts
from vidssl.evaluation.kept_windows import KeptWindows, as_blocks, compute_fixed_part
from vidssl.views import get_view

PUBLISHED_CROP = 224 / 240
CROPS = ("centre", "ten")


class FrameSource(Interface):
    """A source of frames: a ShardReader, or one decoded query."""

    def frame_count(self, view: str) -> np.ndarray:
        """Returns the number of frames of each video: int [V]."""
        ...

    def frames(self, view: str, video: int, frames: Sequence[int] | np.ndarray) -> np.ndarray:
        """Returns frames of one video: uint8 [T, H, W, C]."""
        ...


class WindowNetwork(Interface):
    """A network that computes one row for each window: an encoder, or a classifier on one."""

    @property
    def spec(self) -> EncoderSpec:
        """The input that it takes."""
        ...

    @property
    def dim(self) -> int:
        """Width of a row."""
        ...

    def embed(self, x: torch.Tensor) -> torch.Tensor:
        """Computes a row for each window of N blocks: [B, N, C, T, S, S] → [B, D]."""
        ...

    def to(self, device: torch.device) -> WindowNetwork:
        """Moves it to a device."""
        ...

    def eval(self) -> WindowNetwork:
        """Switches it to eval mode."""
        ...


@dataclass(frozen=True)
class WindowProtocol:
    """How test windows are cut from videos. The defaults are those published for features.

    Attributes:
        hop: frames between the starts of two windows; None: 16·stride − 1 for 32 frames.
        crop_share: side of the square crop over the frame's short side.
        bf16: run the network in bfloat16 on CUDA: faster, with other last digits.
        crops: "centre": the centred square; "ten": that and the four in the corners, and all five
            mirrored. A window's row is the mean over its crops.
        resize: how a crop is resized to the network's input (:func:`vidssl.augment.crop_resize`).
        turned: mirroring a crop also reverses directions, such as flow's u; false: it moves pixels
            and nothing else, as published.
    """

    hop: int | None = None
    crop_share: float = PUBLISHED_CROP
    bf16: bool = False
    crops: str = "centre"
    resize: str = "area"
    turned: bool = True

    def __post_init__(self) -> None:
        if self.crops not in CROPS:
            raise UsageError(
                f"there are no crops {self.crops}{nearest_name(self.crops, CROPS)}; "
                f"there are {', '.join(CROPS)}"
            )
        if self.hop is not None and self.hop < 1:
            raise UsageError(f"hop must be at least 1, not {self.hop}")

    def hop_for(self, spec: EncoderSpec) -> int:
        """Returns the hop for an encoder, in frames."""
        return self.hop or published_hop(spec.window, spec.stride)

    def as_dict(self, spec: EncoderSpec) -> dict[str, Any]:
        """Returns all settings that features depend on, beside encoder and shards.

        Fields that were added later are left out at their defaults, so that older features keep
        their identity.
        """
        later = {name: getattr(WindowProtocol, name) for name in ("crops", "resize", "turned")}
        whole = asdict(self) | {"hop": self.hop_for(spec)}
        return {k: v for k, v in whole.items() if k not in later or v != later[k]}

    def boxes(self, aspect: float) -> list[tuple[Box, bool]]:
        """Returns (crop, whether it is mirrored) for frames whose width over height is `aspect`."""
        centre = centre_square(aspect, self.crop_share)
        if self.crops == "centre":
            return [(centre, False)]
        right, bottom = 1 - centre.width, 1 - centre.height
        corners = [
            Box(left, top, centre.width, centre.height)
            for top in (0.0, bottom)
            for left in (0.0, right)
        ]
        return [(box, mirrored) for mirrored in (False, True) for box in (centre, *corners)]


@dataclass(frozen=True)
class Features:
    """Embeddings of all windows of some videos.

    Attributes:
        ids: of the videos [V].
        windows: float32 [W, D], as pooled, not yet of unit length.
        starts: int64 [W], the first frame of each window.
        offsets: int64 [V + 1]; the windows of video v are the rows offsets[v]:offsets[v + 1].
    """

    ids: tuple[str, ...]
    windows: np.ndarray
    starts: np.ndarray
    offsets: np.ndarray

    def unit_windows(self, video: int | None = None) -> np.ndarray:
        """Returns the windows scaled to unit length, of one video or of all [W, D]."""
        windows = self.windows if video is None else self.windows[self.of_video(video)]
        norm = np.linalg.norm(windows, axis=1, keepdims=True)
        return windows / np.maximum(norm, 1e-12)

    def video_means(self, unit: bool = True) -> np.ndarray:
        """Returns the mean of each video's windows: float32 [V, D].

        Args:
            unit: scale windows to unit length before; false: leave them, such as probabilities.
        """
        counts = np.diff(self.offsets)[:, None]
        windows = self.unit_windows() if unit else self.windows
        # Every video has at least one window, so no segment is empty.
        sums = np.add.reduceat(windows, self.offsets[:-1], axis=0)
        return (sums / counts).astype(np.float32)

    def of_video(self, video: int) -> slice:
        """Returns the rows of one video's windows."""
        return slice(int(self.offsets[video]), int(self.offsets[video + 1]))


def join_features(parts: Sequence[Features]) -> Features:
    """Concatenates the features of several groups of videos."""
    counts = np.concatenate([np.diff(part.offsets) for part in parts])
    return Features(
        ids=tuple(i for part in parts for i in part.ids),
        windows=np.concatenate([part.windows for part in parts]),
        starts=np.concatenate([part.starts for part in parts]),
        offsets=np.concatenate([[0], np.cumsum(counts)]),
    )


# ── embedding ────────────────────────────────────────────────────────────────────────────────


def embed_videos(
    network: WindowNetwork,
    source: FrameSource,
    videos: Sequence[int] | np.ndarray,
    ids: Sequence[str],
    protocol: WindowProtocol | None = None,
    device: torch.device | str = "cpu",
    batch: int | None = None,
    embedded: Callable[[int], None] = lambda windows: None,
    kept: KeptWindows | None = None,
) -> Features:
    """Embeds all windows of some videos.

    Args:
        network: an encoder, or a classifier.
        videos: numbers of videos in the source [V].
        ids: their ids [V].
        batch: windows per call of the network; it changes only the speed.
        embedded: is called after every batch with its number of windows.
        kept: on a CPU, what the network's fixed part computed of these windows earlier.

    Raises:
        VidsslError: the source lacks the encoder's view, its frames are damaged, or a window's
            row is not finite.
    """
    spec, protocol = network.spec, protocol or WindowProtocol()
    device = torch.device(device)
    windows = list_windows(spec, protocol, source.frame_count(spec.view)[np.asarray(videos)])
    crops = len(protocol.boxes(1.0))
    batch = batch or max(1, (64 if device.type == "cuda" else 16) // crops)
    slices = [slice(at, at + batch) for at in range(0, len(windows.starts), batch)]
    batches = (_WindowBatch(windows.rows[s], windows.starts[s]) for s in slices)
    network = network.to(device).eval()
    make: Callable[[_WindowBatch], Any] = partial(
        _cut, source=source, spec=spec, protocol=protocol, videos=videos
    )
    fixed_part = getattr(network, "fixed_part", None)
    if fixed_part is not None and device.type == "cpu":
        compute = partial(compute_fixed_part, spec=spec, part=fixed_part, kept=kept)
        make = partial(_compute_fixed_part, cut=make, videos=videos, compute=compute)
    rows = []
    for at, x_BR in zip(slices, _made_ahead(batches, make), strict=True):
        rows.append(_embed_batch(network, x_BR, protocol, device))
        if len(broken := rows_without_length(rows[-1])):
            raise VidsslError(_not_finite(ids[windows.rows[at][broken[0]]], spec))
        embedded(len(x_BR))
    embedded_WD = np.concatenate(rows) if rows else np.empty((0, network.dim), np.float32)
    return Features(tuple(ids), embedded_WD, windows.starts, windows.offsets)


def _not_finite(video: str, spec: EncoderSpec) -> str:
    return (
        f"the {spec.view} features of {video} are no numbers (NaN or infinite), and nothing is "
        "made of them: the checkpoint's weights may be too large, or bf16 too coarse for it"
    )


def count_windows(spec: EncoderSpec, protocol: WindowProtocol, lengths: np.ndarray) -> int:
    """Returns the total number of windows of videos with these numbers of frames [V]."""
    return len(list_windows(spec, protocol, lengths).starts)


@dataclass(frozen=True)
class WindowList:
    """All windows of V videos.

    Attributes:
        rows: int64 [W], the video of each window, 0 to V − 1.
        starts, offsets: as in :class:`Features`.
    """

    rows: np.ndarray
    starts: np.ndarray
    offsets: np.ndarray


def list_windows(spec: EncoderSpec, protocol: WindowProtocol, lengths: np.ndarray) -> WindowList:
    """Lists all windows of videos with these numbers of frames [V]."""
    hop = protocol.hop_for(spec)
    starts = [window_starts(spec.window, spec.stride, int(n), hop) for n in lengths]
    counts = np.array([len(s) for s in starts], dtype=np.int64)
    return WindowList(
        rows=np.repeat(np.arange(len(starts)), counts),
        starts=np.array([s for each in starts for s in each], dtype=np.int64),
        offsets=np.concatenate([[0], np.cumsum(counts)]).astype(np.int64),
    )


@dataclass(frozen=True)
class _WindowBatch:
    """The windows of one batch: the row of the video and the first frame, [B] each."""

    rows: np.ndarray
    starts: np.ndarray


Made = TypeVar("Made")


def _made_ahead(
    batches: Iterable[_WindowBatch], make: Callable[[_WindowBatch], Made]
) -> Iterator[Made]:
    """Yields what is made of each batch in order, while threads make the next ones."""
    threads = min(16, cores())
    waiting: deque[Future[Made]] = deque()
    with ThreadPoolExecutor(threads, thread_name_prefix="decode") as pool:
        try:
            for batch in batches:
                waiting.append(pool.submit(make, batch))
                if len(waiting) > threads + 1:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:  # an error or Ctrl-C must not wait for the rest
                future.cancel()


def _compute_fixed_part(
    batch: _WindowBatch,
    cut: Callable[[_WindowBatch], np.ndarray],
    videos: Sequence[int] | np.ndarray,
    compute: Callable[..., torch.Tensor],
) -> torch.Tensor:
    """Returns what a network's fixed part computes of a batch's windows: [B, R, N, ...]."""
    places = [(int(videos[r]), int(s)) for r, s in zip(batch.rows, batch.starts, strict=True)]
    return compute(places, lambda some: cut(_WindowBatch(batch.rows[some], batch.starts[some])))


def _cut(
    batch: _WindowBatch,
    source: FrameSource,
    spec: EncoderSpec,
    protocol: WindowProtocol,
    videos: Sequence[int] | np.ndarray,
) -> np.ndarray:
    """Decodes and crops the windows of one batch: uint8 [B, R, T, S, S, C]."""
    lengths = source.frame_count(spec.view)
    clips = []
    for row in np.unique(batch.rows):  # a batch's windows are sorted by video
        video = int(videos[row])
        index_BT = np.stack(
            [
                clip_indices(int(start), spec.window, spec.stride, int(lengths[video]))
                for start in batch.starts[batch.rows == row]
            ]
        )
        needed, place = np.unique(index_BT, return_inverse=True)
        shown = present(source.frames(spec.view, video, needed), spec, protocol)
        rows_BT = place.reshape(index_BT.shape)
        clips.append(np.stack([crop[rows_BT] for crop in shown], axis=1))
    return np.concatenate(clips)


def present(
    frames_THWC: np.ndarray, spec: EncoderSpec, protocol: WindowProtocol
) -> list[np.ndarray]:
    """Cuts and resizes each of the R crops of some frames: uint8 [T, S, S, C] each."""
    height, width = frames_THWC.shape[1:3]
    flip = get_view(spec.view).flip if protocol.turned else _mirror
    shown = []
    for box, mirrored in protocol.boxes(width / height):
        crop = crop_resize(frames_THWC, box, spec.size, protocol.resize)
        shown.append(flip(crop) if mirrored else crop)
    return shown


def _mirror(frames_TSSC: np.ndarray) -> np.ndarray:
    return frames_TSSC[:, :, ::-1]


@torch.inference_mode()
def _embed_batch(
    network: WindowNetwork,
    x_BR: np.ndarray | torch.Tensor,
    protocol: WindowProtocol,
    device: torch.device,
) -> np.ndarray:
    """Returns a row for each window [B, D], of frames or of what the fixed part made of them."""
    crops = x_BR.shape[1]
    if isinstance(x_BR, torch.Tensor):
        blocks_BN = x_BR.flatten(0, 1)
    else:
        frames = torch.from_numpy(x_BR.reshape(-1, *x_BR.shape[2:])).to(device)
        blocks_BN = as_blocks(frames, network.spec)
    half = protocol.bf16 and device.type == "cuda"
    autocast = torch.autocast("cuda", torch.bfloat16) if half else nullcontext()
    # Otherwise cuDNN chooses its algorithm by timing, and the last digits change from run to run.
    exact = torch.backends.cudnn.flags(
        enabled=True, benchmark=False, deterministic=True, allow_tf32=half
    )
    with exact, autocast:
        embedded = network.embed(blocks_BN).float()
    return embedded.unflatten(0, (-1, crops)).mean(1).cpu().numpy()
