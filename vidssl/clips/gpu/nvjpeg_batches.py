"""Batches for a GPU that decodes as well: threads read, and the device does all the rest.

Legend: F frames of a sample, T' frames of a clip that differ, H and W pixels, C channels.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from vidssl.augment import within
from vidssl.base.errors import UsageError
from vidssl.clips.batch_maker import Pending, by_view
from vidssl.clips.gpu.crop_regions import Region
from vidssl.clips.gpu.gpu_batches import Colours, OnDevice
from vidssl.clips.gpu.nvjpeg import decode_jpegs
from vidssl.clips.sampler import (
    ClipBatch,
    ClipSampler,
    DrawnView,
    FrameReaderWrapper,
)
from vidssl.views import get_view


@dataclass(frozen=True)
class EncodedClip:
    """Which of a sample's frames a clip takes, and what of them.

    Attributes:
        frames: numbers of the frames, counted among the sample's own [T'].
        rows, columns: what the clip covers of each, in pixels.
        repeated, mirrored: as of :class:`~vidssl.clips.gpu.crop_regions.Region`.
    """

    frames: np.ndarray
    rows: slice
    columns: slice
    repeated: int
    mirrored: bool

    def of(self, decoded_FHWC: Tensor) -> Region:
        """Takes the region out of all of the sample's frames."""
        first, last = int(self.frames[0]), int(self.frames[-1])
        if last - first + 1 == len(self.frames):  # as nearly always: nothing has to be copied
            pixels = decoded_FHWC[first : last + 1]
        else:
            pixels = decoded_FHWC[self.frames.tolist()]
        return Region(pixels[:, self.rows, self.columns], self.repeated, self.mirrored)


@dataclass(frozen=True)
class EncodedSample:
    """One video's clips as stored.

    Attributes:
        blobs: per view the frames that its clips hold, each once and in order: F of uint8 [bytes].
        clips: per view what each clip takes of them.
    """

    blobs: dict[str, list[Tensor]]
    clips: dict[str, list[EncodedClip]]
    colours: Colours


class FirstFrames(FrameReaderWrapper):
    """Decodes of all the frames that a sample wants the first alone, which tells their size."""

    def pictures(
        self, view: str, video: int, indices: np.ndarray, *, for_copying: bool = False
    ) -> Iterable[np.ndarray]:
        """Returns the first of the frames."""
        return super().pictures(view, video, indices[:1], for_copying=for_copying)


class FromEncoded(OnDevice[EncodedSample]):
    """Makes batches of JPEG that the device decodes.

    Raises:
        UsageError: a view is not stored as JPEG, or at a stride, or is cropped where most happens,
            which a host would have to look for.
    """

    def __init__(self, sampler: ClipSampler, device: torch.device) -> None:
        videos = replace(sampler.videos, reader=FirstFrames(sampler.videos.reader))
        super().__init__(replace(sampler, videos=videos), device)
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

    def finish(self, pending: Pending[EncodedSample]) -> ClipBatch:
        samples = [done.result() for done in pending.work]
        regions = {view: self._regions(view, samples) for view in self.sampler.views}
        return self.put_together(pending, regions, by_view([s.colours for s in samples]))

    def _sample(self, epoch: int, position: int, row: int) -> EncodedSample:
        drawn = self.sampler.draw(epoch, position, row)
        read = self.sampler.videos.reader.read
        blobs = {
            view: [
                torch.frombuffer(bytearray(blob), dtype=torch.uint8)
                for blob in read(view, drawn.video, part.held.needed)
            ]
            for view, part in drawn.views.items()
        }
        clips = {view: encoded_clips(part) for view, part in drawn.views.items()}
        return EncodedSample(blobs, clips, self.sampler.colours(drawn))

    def _regions(self, view: str, samples: Sequence[EncodedSample]) -> list[Region]:
        blobs = [blob for sample in samples for blob in sample.blobs[view]]
        pictures = iter(decode_jpegs(blobs, is_grey(view), self.device))
        regions = []
        for sample in samples:
            of_sample = torch.stack([next(pictures) for _ in sample.blobs[view]])
            decoded_FHWC = get_view(view).from_planes(of_sample)
            regions += [clip.of(decoded_FHWC) for clip in sample.clips[view]]
        return regions


def encoded_clips(drawn: DrawnView) -> list[EncodedClip]:
    """Returns what each of a sample's clips takes of a view's frames."""
    frames, boxes = drawn.boxed()
    height, width = next(iter(frames)).shape[:2]
    return [
        EncodedClip(where_T[first:], *within(box, height, width), int(first), draw.mirrored)
        for where_T, first, box, draw in zip(
            drawn.held.where, drawn.held.repeated, boxes, drawn.draws, strict=True
        )
    ]


def is_grey(view: str) -> bool:
    """Whether a view's frames are stored as grey pictures."""
    one = get_view(view)
    return one.to_image(np.zeros((8, 8, one.channels), np.uint8)).ndim == 2
