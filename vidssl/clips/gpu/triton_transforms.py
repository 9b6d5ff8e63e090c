"""Network input made by a GPU's kernels, a batch's clips of a view at a time.

The same as operation by operation, to rounding, with a thirtieth of the memory traffic. Nothing is
uploaded but tables, from memory that copies may be made from: the host never waits. What the
kernels do is in :mod:`vidssl.kernels.clip_transforms`.

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
from vidssl.augment.filter_taps import (
    Taps,
    of_blurs,
    of_leaving,
    of_resizing,
)
from vidssl.augment.resize_weights import AS_PIL, kind_of
from vidssl.clips.gpu.crop_regions import Region
from vidssl.clips.gpu.lookup_tables import (
    line_of,
    only_mirrors,
    picture_of,
    table_of,
)
from vidssl.clips.gpu.torch_transforms import TorchTransforms
from vidssl.clips.sampler import ClipSampler
from vidssl.kernels import clip_transforms
from vidssl.views import get_view
from vidssl.views.view import NATIVE

ROWS = 4  # of a frame that a program makes: with 128 columns, a value for each lane and row


class Part(NamedTuple):
    """What a clip is made of: pixels [T', H, W, C], and what is done along their sides."""

    pixels: Tensor
    across: Taps
    down: Taps
    repeated: int = 0
    mirrored: bool = False


class TritonTransforms(TorchTransforms):
    """Makes network input of regions; in its memory channels come last.

    Args:
        sampler: what draws the clips.
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
        mirror = self.sampler.is_picture_of_motion(view) or only_mirrors(view)
        parts = []
        for region in regions:
            _, height, width, _ = region.pixels.shape
            kind = kind_of(augment.resize, height, width, clip.size)
            across, down = (of_resizing(kind, side, clip.size) for side in (width, height))
            turned = mirror and region.mirrored
            parts.append(Part(region.pixels, across, down, region.repeated, turned))
        shape = (len(regions) * clip.blocks, channels, clip.frames, clip.size, clip.size)
        made = torch.empty(shape, dtype=torch.uint8, device=self.device)
        with self._on_device():
            if augment.resize in AS_PIL:
                parts = self._resize_across(parts, clip.frames * clip.blocks)
            self._resize(parts, made)
        if not mirror:
            self._flip(view, made.unflatten(0, (-1, clip.blocks)), regions)
        return made

    def _resize_across(self, parts: Sequence[Part], frames: int) -> list[Part]:
        """Makes whole levels of one side, and gives what is left to be done."""
        size, heights = self.sampler.clip.size, [part.pixels.shape[1] for part in parts]
        shape = (len(parts), parts[0].pixels.shape[3], frames, max(heights), size)
        lines = torch.empty(shape, dtype=torch.uint8, device=self.device)
        leaving = [of_leaving(height, max(heights)) for height in heights]
        self._resize([p._replace(down=x) for p, x in zip(parts, leaving, strict=True)], lines)
        across = of_leaving(size, size)
        return [
            Part(made_CTHS[:, :, :height].permute(1, 2, 3, 0), across, part.down)
            for made_CTHS, height, part in zip(lines, heights, parts, strict=True)
        ]

    def _resize(self, parts: Sequence[Part], into: Tensor) -> None:
        """Makes clips of regions, [M·blocks, C, T, rows, columns]."""
        _, channels, time, rows, columns = into.shape
        table = [
            (x.data_ptr(), *x.stride(), *x.shape[1:3], *how, len(across[1]), len(down[1]))
            for x, across, down, *how in parts
        ]
        first_x, weight_x = self._stacked([part.across for part in parts])
        first_y, weight_y = self._stacked([part.down for part in parts])
        frames = len(into) * time // len(parts)
        clip_transforms.resize[(_parts(rows, ROWS), frames, len(parts))](
            self._there(np.array(table, np.int64)), first_x, weight_x, first_y, weight_y, into,
            frames, time, channels, rows, columns, weight_x.shape[1], weight_y.shape[1],
            **self._side,
        )  # fmt: skip

    def _flip(self, view: str, clips_MNCTSS: Tensor, regions: Sequence[Region]) -> None:
        """Mirrors clips as the view has it."""
        mirrored = [number for number, region in enumerate(regions) if region.mirrored]
        if mirrored:
            which = self._there(np.array(mirrored))
            x = clips_MNCTSS[which]
            turned = get_view(view).flip_tensor(x.transpose(0, 2).flatten(1, 3))
            clips_MNCTSS[which] = turned.unflatten(1, x.transpose(0, 2).shape[1:4]).transpose(0, 2)

    def _stacked(self, sides: Sequence[Taps]) -> tuple[Tensor, Tensor]:
        """Puts taps of all clips together: first [M, S], weights [M, K, S]."""
        count = max(len(weight) for _, weight in sides)
        weights = np.zeros((len(sides), count, len(sides[0][0])), np.float32)
        for into, (_, weight) in zip(weights, sides, strict=True):
            into[: len(weight)] = weight
        return self._there(np.stack([first for first, _ in sides])), self._there(weights)

    # ── values

    def present(
        self, view: str, pixels_MCTSS: Tensor, draws: Sequence[ColourDraw] | None
    ) -> Tensor:
        """As of :class:`TorchTransforms`."""
        shown = self.sampler.presentations.get(view, NATIVE)
        with self._on_device():
            if not draws:
                table = table_of(view, shown)
                if table is not None:
                    return self._look_up(view, pixels_MCTSS.contiguous(), table)
            elif (picture := picture_of(view, shown)) is not None:
                line = line_of(view, shown)
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
        of_levels = tuple(map(self._there, line))
        changes = self._there(rows_of(draws))
        sigma_F = np.repeat(np.array([d.sigma for d in draws], np.float32), of_row)
        blurred = np.flatnonzero(sigma_F)
        slots = np.full(frames, -1, np.int32)
        slots[blurred] = np.arange(len(blurred))
        size = clip.size
        unblurred, half = torch.empty((2, len(blurred), 3, size, size), device=self.device)
        mean = torch.empty(frames, device=self.device)
        given = pixels, self._there(picture), changes, mean
        told = (pixels.shape[1], clip.frames, of_row, size * size)
        how = {"GREY_FIRST": spec.gray_first, **self._frame}
        clip_transforms.means[(frames,)](*given, *told, **how)
        clip_transforms.change_colour[(_parts(size * size, clip_transforms.PIXELS) * frames,)](
            *given, self._there(slots), unblurred, out, *of_levels, *told, *place, **how
        )  # fmt: skip
        if len(blurred):
            sigmas, filters = np.unique(sigma_F[blurred], return_inverse=True)
            first, weight = map(self._there, of_blurs(sigmas.tolist(), spec, size))
            tables = (self._there(blurred.astype(np.int32)), self._there(filters.astype(np.int32)))
            for x, into, last in ((unblurred, half, False), (half, out, True)):
                clip_transforms.filter_side[(3 * _parts(size, ROWS) * len(blurred),)](
                    x, *tables, first, weight, into, *of_levels, weight.shape[1], size,
                    clip.frames, *place, LAST=last, **self._side,
                )  # fmt: skip
        return shown

    def _look_up(self, view: str, pixels: Tensor, table: np.ndarray) -> Tensor:
        _, channels, time, size, _ = pixels.shape
        out, shown, place = self._memory(view, len(pixels), channels)
        grid = (_parts(size * size, clip_transforms.PIXELS) * len(pixels) * time,)
        clip_transforms.look_up[grid](
            pixels, self._there(table), out, channels, time, size * size, *place, **self._frame
        )
        return shown

    # ── memory

    def _memory(
        self, view: str, clips: int, channels: int
    ) -> tuple[Tensor, Tensor, tuple[int, int]]:
        """Returns memory for network input, the same as it is shown, and where kernels put a clip.

        Where clips are compared, one clip of all samples lies together, and nothing is copied
        again to be a network's input.
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
        """Within it kernels are started on the device and not on the first one."""
        return torch.cuda.device(self.device) if self.device.type == "cuda" else nullcontext()

    def _there(self, of_host: np.ndarray) -> Tensor:
        """Sends a table to the device, without waiting for it."""
        table = torch.from_numpy(np.ascontiguousarray(of_host))
        if self.device.type == "cuda":
            return table.pin_memory().to(self.device, non_blocking=True)
        return table


def rows_of(draws: Sequence[ColourDraw]) -> np.ndarray:
    """Returns the table of colour changes, as kernels read it; what changes nothing is left out."""
    told = [
        (d.brightness, d.contrast, d.saturation, d.hue, *d.order, *d.channels, d.gray_channel)
        for d in draws
    ]
    factors, order, rest = np.split(np.array(told, np.float32), (4, 8), axis=1)
    idle = factors == np.array([neutral for _, neutral, _ in JITTER], np.float32)
    order = np.where(
        np.take_along_axis(idle, order.astype(int), axis=1), clip_transforms.NOTHING.value, order
    )
    contrast = order == clip_transforms.CONTRAST.value
    place = np.where(contrast.any(axis=1), contrast.argmax(axis=1), clip_transforms.NOWHERE.value)
    return np.column_stack([factors, order, rest, place]).astype(np.float32)


def _parts(whole: int, part: int) -> int:
    return -(-whole // part)


def _power_of_two(least: int) -> int:
    return 1 << (least - 1).bit_length()
