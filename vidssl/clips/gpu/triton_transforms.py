"""Makes network input of regions by Triton kernels, all clips of a view in a batch at a time.

The result is that of plain PyTorch but for rounding, with a thirtieth of the memory traffic. Only
tables are uploaded, from pinned memory, so the host never waits for the device. The kernels are
in :mod:`vidssl.kernels.clip_transforms`.

Legend: B samples, N clips of one video, M clips of all, C channels, T frames, S pixels of a side,
F frames of all clips.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from vidssl.augment import ColourDraw
from vidssl.augment.colour import JITTER
from vidssl.augment.filter_taps import Taps, blur_taps, identity_taps, resize_taps
from vidssl.augment.resize_weights import PIL_RESIZES, weight_kind
from vidssl.clips.gpu.crop_regions import Region
from vidssl.clips.gpu.lookup_tables import (
    normalise_line,
    only_swaps_sides,
    picture_table,
    value_table,
)
from vidssl.clips.gpu.torch_transforms import TorchTransforms
from vidssl.clips.sampler import ClipSampler
from vidssl.kernels import clip_transforms
from vidssl.views import get_view
from vidssl.views.view import NATIVE

ROWS = 4  # of a frame that a program makes: with 128 columns, 4 values for each thread


class ResizeJob(NamedTuple):
    """The resizing of one region.

    Attributes:
        pixels: uint8 [T', H, W, C].
        across, down: filter taps along x and along y.
        repeated, mirrored: as of :class:`~vidssl.clips.gpu.crop_regions.Region`.
    """

    pixels: Tensor
    across: Taps
    down: Taps
    repeated: int = 0
    mirrored: bool = False


class TritonTransforms(TorchTransforms):
    """Makes network input of regions; in memory its channels come last.

    Args:
        sampler: has drawn the clips.
        device: where the regions are.
    """

    def __init__(self, sampler: ClipSampler, device: torch.device) -> None:
        super().__init__(sampler, device)
        size = sampler.clip.size
        self._side = {
            "ROWS": ROWS,
            "S": _power_of_two(size),
            "num_warps": clip_transforms.NUM_WARPS,
        }
        self._frame = {"P": clip_transforms.PIXELS, "num_warps": clip_transforms.NUM_WARPS}

    # ── geometry

    def resize(self, view: str, regions: Sequence[Region]) -> Tensor:
        """As of :class:`TorchTransforms`."""
        clip, augment = self.sampler.clip, self.sampler.augment
        channels = get_view(view).channels
        mirror = self.sampler.is_picture_of_motion(view) or only_swaps_sides(view)
        jobs = []
        for region in regions:
            _, height, width, _ = region.pixels.shape
            kind = weight_kind(augment.resize, height, width, clip.size)
            across, down = (resize_taps(kind, side, clip.size) for side in (width, height))
            turned = mirror and region.mirrored
            jobs.append(ResizeJob(region.pixels, across, down, region.repeated, turned))
        shape = (len(regions) * clip.blocks, channels, clip.frames, clip.size, clip.size)
        made = torch.empty(shape, dtype=torch.uint8, device=self.device)
        with self._on_device():
            if augment.resize in PIL_RESIZES:
                jobs = self._resize_across(jobs, clip.frames * clip.blocks)
            self._resize(jobs, made)
        if not mirror:
            self._flip(view, made.unflatten(0, (-1, clip.blocks)), regions)
        return made

    def _resize_across(self, jobs: Sequence[ResizeJob], frames: int) -> list[ResizeJob]:
        """Resizes along x, with rounding to levels, and returns the jobs left: those along y."""
        size, heights = self.sampler.clip.size, [job.pixels.shape[1] for job in jobs]
        shape = (len(jobs), jobs[0].pixels.shape[3], frames, max(heights), size)
        lines = torch.empty(shape, dtype=torch.uint8, device=self.device)
        unchanged = [identity_taps(height, max(heights)) for height in heights]
        self._resize([j._replace(down=x) for j, x in zip(jobs, unchanged, strict=True)], lines)
        across = identity_taps(size, size)
        return [
            ResizeJob(made_CTHS[:, :, :height].permute(1, 2, 3, 0), across, job.down)
            for made_CTHS, height, job in zip(lines, heights, jobs, strict=True)
        ]

    def _resize(self, jobs: Sequence[ResizeJob], into: Tensor) -> None:
        """Resizes regions into clips [M·blocks, C, T, rows, columns]."""
        _, channels, time, rows, columns = into.shape
        table = [
            (x.data_ptr(), *x.stride(), *x.shape[1:3], *how, len(across[1]), len(down[1]))
            for x, across, down, *how in jobs
        ]
        first_x, weight_x = self._stacked([job.across for job in jobs])
        first_y, weight_y = self._stacked([job.down for job in jobs])
        frames = len(into) * time // len(jobs)
        clip_transforms.resize[(_ceil_divide(rows, ROWS), frames, len(jobs))](
            self._upload(np.array(table, np.int64)), first_x, weight_x, first_y, weight_y, into,
            frames, time, channels, rows, columns, weight_x.shape[1], weight_y.shape[1],
            **self._side,
        )  # fmt: skip

    def _flip(self, view: str, clips_MNCTSS: Tensor, regions: Sequence[Region]) -> None:
        """Mirrors clips by the view's own method, where it changes values as well."""
        mirrored = [number for number, region in enumerate(regions) if region.mirrored]
        if mirrored:
            which = self._upload(np.array(mirrored))
            x = clips_MNCTSS[which]
            turned = get_view(view).flip_tensor(x.transpose(0, 2).flatten(1, 3))
            clips_MNCTSS[which] = turned.unflatten(1, x.transpose(0, 2).shape[1:4]).transpose(0, 2)

    def _stacked(self, sides: Sequence[Taps]) -> tuple[Tensor, Tensor]:
        """Uploads the taps of all clips in one piece: first [M, S], weights [M, K, S]."""
        count = max(len(weight) for _, weight in sides)
        weights = np.zeros((len(sides), count, len(sides[0][0])), np.float32)
        for into, (_, weight) in zip(weights, sides, strict=True):
            into[: len(weight)] = weight
        return self._upload(np.stack([first for first, _ in sides])), self._upload(weights)

    # ── values

    def present(
        self, view: str, pixels_MCTSS: Tensor, draws: Sequence[ColourDraw] | None
    ) -> Tensor:
        """As of :class:`TorchTransforms`."""
        shown = self.sampler.presentations.get(view, NATIVE)
        with self._on_device():
            if not draws:
                table = value_table(view, shown)
                if table is not None:
                    return self._look_up(view, pixels_MCTSS.contiguous(), table)
            elif (picture := picture_table(view, shown)) is not None:
                line = normalise_line(view, shown)
                if line is not None:
                    return self._change(view, pixels_MCTSS.contiguous(), draws, picture, line)
        return super().present(view, pixels_MCTSS, draws)

    def _change(
        self,
        view: str,
        pixels: Tensor,
        draws: Sequence[ColourDraw],
        picture: np.ndarray,
        line: tuple[np.ndarray, np.ndarray],
    ) -> Tensor:
        """Changes colours, blurs and standardises."""
        clip, spec = self.sampler.clip, self.sampler.augment
        frames = len(pixels) * clip.frames
        of_row = frames // len(draws)
        out, shown, place = self._memory(view, len(pixels), 3)
        line_tables = tuple(map(self._upload, line))
        changes = self._upload(colour_rows(draws))
        sigma_F = np.repeat(np.array([d.sigma for d in draws], np.float32), of_row)
        blurred = np.flatnonzero(sigma_F)
        places = np.full(frames, -1, np.int32)  # of each frame among the blurred ones
        places[blurred] = np.arange(len(blurred))
        size = clip.size
        unblurred, half = torch.empty((2, len(blurred), 3, size, size), device=self.device)
        mean = torch.empty(frames, device=self.device)
        inputs = pixels, self._upload(picture), changes, mean
        sizes = (pixels.shape[1], clip.frames, of_row, size * size)
        constants = {"GREY_FIRST": spec.gray_first, **self._frame}
        clip_transforms.means[(frames,)](*inputs, *sizes, **constants)
        programs = _ceil_divide(size * size, clip_transforms.PIXELS) * frames
        clip_transforms.change_colour[(programs,)](
            *inputs, self._upload(places), unblurred, out, *line_tables, *sizes, *place, **constants
        )  # fmt: skip
        if len(blurred):
            sigmas, filters = np.unique(sigma_F[blurred], return_inverse=True)
            first, weight = map(self._upload, blur_taps(sigmas.tolist(), spec, size))
            tables = (
                self._upload(blurred.astype(np.int32)),
                self._upload(filters.astype(np.int32)),
            )
            for x, into, last in ((unblurred, half, False), (half, out, True)):
                clip_transforms.filter_side[(3 * _ceil_divide(size, ROWS) * len(blurred),)](
                    x, *tables, first, weight, into, *line_tables, weight.shape[1], size,
                    clip.frames, *place, LAST=last, **self._side,
                )  # fmt: skip
        return shown

    def _look_up(self, view: str, pixels: Tensor, table: np.ndarray) -> Tensor:
        _, channels, time, size, _ = pixels.shape
        out, shown, place = self._memory(view, len(pixels), channels)
        grid = (_ceil_divide(size * size, clip_transforms.PIXELS) * len(pixels) * time,)
        clip_transforms.look_up[grid](
            pixels, self._upload(table), out, channels, time, size * size, *place, **self._frame
        )
        return shown

    # ── memory

    def _memory(
        self, view: str, clips: int, channels: int
    ) -> tuple[Tensor, Tensor, tuple[int, int]]:
        """Returns memory for network input [M, T, S, S, C], the same memory as [B, N, C, T, S, S],
        and the numbers by which kernels find a clip's place.

        For methods that compare clips, clips come before samples in memory: one clip of all samples
        is contiguous and is not copied again.
        """
        count = self.sampler.shape(view)[0]
        clip, samples = self.sampler.clip, clips // count
        picture = (clip.frames, clip.size, clip.size, channels)
        out = torch.empty((clips, *picture), device=self.device)
        if clip.blocks > 1:
            return out, out.view(samples, count, *picture).permute(0, 1, 5, 2, 3, 4), (count, 0)
        shown = out.view(count, samples, *picture).permute(1, 0, 5, 2, 3, 4)
        return out, shown, (count, samples)

    def _on_device(self) -> AbstractContextManager[object]:
        """Within it kernels start on this device, and not on the first one of the machine."""
        return torch.cuda.device(self.device) if self.device.type == "cuda" else nullcontext()

    def _upload(self, array: np.ndarray) -> Tensor:
        """Copies a table to the device without waiting for it."""
        table = torch.from_numpy(np.ascontiguousarray(array))
        if self.device.type == "cuda":
            return table.pin_memory().to(self.device, non_blocking=True)
        return table


def colour_rows(draws: Sequence[ColourDraw]) -> np.ndarray:
    """Returns the table of colour changes, as kernels read it; neutral changes are left out."""
    rows = [
        (d.brightness, d.contrast, d.saturation, d.hue, *d.order, *d.channels, d.gray_channel)
        for d in draws
    ]
    factors, order, rest = np.split(np.array(rows, np.float32), (4, 8), axis=1)
    idle = factors == np.array([neutral for _, neutral, _ in JITTER], np.float32)
    order = np.where(
        np.take_along_axis(idle, order.astype(int), axis=1), clip_transforms.NOTHING.value, order
    )
    contrast = order == clip_transforms.CONTRAST.value
    place = np.where(contrast.any(axis=1), contrast.argmax(axis=1), clip_transforms.NOWHERE.value)
    return np.column_stack([factors, order, rest, place]).astype(np.float32)


def _ceil_divide(whole: int, part: int) -> int:
    return -(-whole // part)


def _power_of_two(least: int) -> int:
    return 1 << (least - 1).bit_length()
