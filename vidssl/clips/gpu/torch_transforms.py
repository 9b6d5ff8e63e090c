"""Makes network input of regions in plain PyTorch, on any device.

Legend: B samples, N clips of one video, M clips of all, C channels, T frames, S pixels of a side.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from vidssl.augment import ColourDraw
from vidssl.clips.gpu.crop_regions import Region, make_clip
from vidssl.clips.network_input import network_input
from vidssl.clips.sampler import ClipSampler
from vidssl.views import get_view
from vidssl.views.view import NATIVE


class TorchTransforms:
    """Makes network input of regions, all clips of a view in a batch at a time.

    Args:
        sampler: has drawn the clips.
        device: where the regions are.
    """

    def __init__(self, sampler: ClipSampler, device: torch.device) -> None:
        self.sampler, self.device = sampler, device

    def __call__(
        self, view: str, regions: Sequence[Region], draws: Sequence[ColourDraw] | None
    ) -> Tensor:
        """Returns a view's clips, float32 [B, N, C, T, S, S].

        Args:
            regions: of all clips, those of the first sample first.
            draws: colour changes, as of :func:`vidssl.augment.apply_colour`.
        """
        return self.present(view, self.resize(view, regions), draws)

    def resize(self, view: str, regions: Sequence[Region]) -> Tensor:
        """Returns clips, resized and mirrored: uint8 [M, C, T, S, S].

        Every block of a clip is one of the M clips.
        """
        clip = self.sampler.clip
        channels, side = get_view(view).channels, clip.size
        shape = (len(regions), channels, clip.blocks, clip.frames, side, side)
        pixels = torch.empty(shape, dtype=torch.uint8, device=self.device)
        for into, region in zip(pixels, regions, strict=True):
            into.copy_(make_clip(region, self.sampler, view).view_as(into))
        return pixels.transpose(1, 2).flatten(0, 1)

    def present(
        self, view: str, pixels_MCTSS: Tensor, draws: Sequence[ColourDraw] | None
    ) -> Tensor:
        """Returns network input [B, N, C, T, S, S] of clips, changed in colour."""
        shown = self.sampler.presentations.get(view, NATIVE)
        made = network_input(pixels_MCTSS, view, shown, draws, self.sampler.augment)
        return made.unflatten(0, (-1, self.sampler.shape(view)[0]))
