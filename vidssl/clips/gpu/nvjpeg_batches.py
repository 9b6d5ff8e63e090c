"""Makes batches for a GPU that decodes JPEG as well: threads only read, the device does the rest.

Legend: F frames of a sample, T' different frames of a clip, H and W pixels, C channels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from vidssl.augment import box_slices
from vidssl.base.errors import UsageError
from vidssl.clips.batch import ClipBatch
from vidssl.clips.batch_maker import PendingBatch, join_by_view
from vidssl.clips.frame_reader import FrameReader, LazyFrames
from vidssl.clips.gpu.crop_regions import Region
from vidssl.clips.gpu.gpu_batches import Colours, GpuBatchMaker
from vidssl.clips.gpu.nvjpeg import decode_jpegs
from vidssl.clips.sampler import ClipSampler, DrawnFrames, DrawnView
from vidssl.views import get_view


@dataclass(frozen=True)
class EncodedClip:
    """Which of a sample's frames a clip takes, and which part of them.

    Attributes:
        frames: numbers of the frames, counted among the sample's own [T'].
        rows, columns: of the crop, in pixels.
        repeated, mirrored: as of :class:`~vidssl.clips.gpu.crop_regions.Region`.
    """

    frames: np.ndarray
    rows: slice
    columns: slice
    repeated: int
    mirrored: bool

    def region(self, decoded_FHWC: Tensor) -> Region:
        """Returns the clip's region of all of the sample's frames."""
        first, last = int(self.frames[0]), int(self.frames[-1])
        if last - first + 1 == len(self.frames):  # nearly always: then nothing is copied
            pixels = decoded_FHWC[first : last + 1]
        else:
            pixels = decoded_FHWC[self.frames.tolist()]
        return Region(pixels[:, self.rows, self.columns], self.repeated, self.mirrored)


@dataclass(frozen=True)
class EncodedSample:
    """One video's clips, encoded as they are stored.

    Attributes:
        blobs: per view the frames of its clips, each once and in order: F of uint8 [bytes].
        clips: per view what each clip takes of these frames.
        colours: as of :meth:`vidssl.clips.sampler.ClipSampler.colours`.
    """

    blobs: dict[str, list[Tensor]]
    clips: dict[str, list[EncodedClip]]
    colours: Colours


class NvjpegBatchMaker(GpuBatchMaker[EncodedSample]):
    """Makes batches of JPEG that the device decodes.

    Raises:
        UsageError: a view is not stored as JPEG, or at a stride, or the policy crops where there
            is most activity, which can only be seen in decoded frames.
    """

    def __init__(self, sampler: ClipSampler, device: torch.device) -> None:
        super().__init__(sampler, device)
        for view in sampler.views:
            stored = sampler.videos.reader.views[view]
            codec, stride = str(stored["codec"]), stored.get("stride", 1)
            if not codec.startswith("jpeg") or stride != 1:
                how = codec + (f" at a stride of {stride}" if stride != 1 else "")
                raise UsageError(
                    f"a GPU decodes JPEG alone, and {view} is stored as {how}: "
                    "leave --decode gpu away"
                )
        if sampler.augment.crop_candidates:
            raise UsageError(
                f"the policy {sampler.augment.policy} looks for the crop in which most happens, "
                "in decoded frames: leave --decode gpu away"
            )

    def finish(self, pending: PendingBatch[EncodedSample]) -> ClipBatch:
        samples = [sample.result() for sample in pending.samples]
        regions = {view: self._regions(view, samples) for view in self.sampler.views}
        return self.batch_of_regions(pending, regions, join_by_view([s.colours for s in samples]))

    def _prepare(self, epoch: int, position: int, row: int) -> EncodedSample:
        reader, draw = self.sampler.videos.reader, self.sampler.generator(epoch, position, row)
        numbers = self.sampler.draw_frames(draw, row)
        sizes = frame_sizes(reader, numbers)
        drawn = self.sampler.draw_clips(draw, numbers, sizes)
        blobs = {
            view: [
                torch.frombuffer(bytearray(blob), dtype=torch.uint8)
                for blob in reader.read(view, drawn.video, of_view.frame_index.needed)
            ]
            for view, of_view in drawn.views.items()
        }
        clips = {
            view: encoded_clips(of_view, *sizes[view]) for view, of_view in drawn.views.items()
        }
        return EncodedSample(blobs, clips, self.sampler.colours(drawn))

    def _regions(self, view: str, samples: Sequence[EncodedSample]) -> list[Region]:
        blobs = [blob for sample in samples for blob in sample.blobs[view]]
        pictures = iter(decode_jpegs(blobs, is_grey(view), self.device))
        regions = []
        for sample in samples:
            of_sample = torch.stack([next(pictures) for _ in sample.blobs[view]])
            decoded_FHWC = get_view(view).from_planes(of_sample)
            regions += [clip.region(decoded_FHWC) for clip in sample.clips[view]]
        return regions


def frame_sizes(reader: FrameReader, numbers: DrawnFrames) -> dict[str, tuple[int, int]]:
    """Decodes the first frame of each view on the host and returns its (H, W)."""
    return {
        view: LazyFrames(reader.pictures(view, numbers.video, index.needed[:1])).size
        for view, index in numbers.views.items()
    }


def encoded_clips(drawn: DrawnView, height: int, width: int) -> list[EncodedClip]:
    """Returns what each of a sample's clips takes of a view's frames of this size."""
    index = drawn.frame_index
    return [
        EncodedClip(
            where_T[first:], *box_slices(draw.boxes[0], height, width), int(first), draw.mirrored
        )
        for where_T, first, draw in zip(index.where, index.repeated, drawn.draws, strict=True)
    ]


def is_grey(view: str) -> bool:
    """Whether a view's frames are stored as grey pictures."""
    one = get_view(view)
    return one.to_image(np.zeros((8, 8, one.channels), np.uint8)).ndim == 2
