"""What a network's fixed part computes of a pack's windows, kept for the next evaluation.

Evaluating an encoder, its baseline and its verdict looks at the same windows: what is never learned
is computed of each of them once.

Legend: B windows in a batch, R crops of a window, N blocks, C channels, T frames, S side.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from vidssl.backbones import EncoderSpec
from vidssl.base.kept_arrays import KeptArrays
from vidssl.views import get_view


@dataclass(frozen=True)
class KeptWindows:
    """The windows of a pack by video and first frame.

    Attributes:
        starts: first frame of each window [W]; those of video v are the places
            offsets[v]:offsets[v + 1].
    """

    arrays: KeptArrays
    starts: np.ndarray
    offsets: np.ndarray

    def get(self, video: int, start: int) -> Tensor | None:
        """Returns what was kept of a window, or None."""
        found = self.arrays.get(self._number(video, start))
        return None if found is None else torch.from_numpy(found.copy())

    def put(self, video: int, start: int, value: Tensor) -> None:
        """Keeps what was computed of a window, where there is room."""
        self.arrays.put(self._number(video, start), value.numpy())

    def _number(self, video: int, start: int) -> int:
        low, high = self.offsets[video], self.offsets[video + 1]
        return int(low + np.searchsorted(self.starts[low:high], start))


@torch.inference_mode()
def compute_fixed_part(
    places: Sequence[tuple[int, int]],
    cut: Callable[[np.ndarray], np.ndarray],
    spec: EncoderSpec,
    part: Callable[[Tensor], Tensor],
    kept: KeptWindows | None = None,
) -> Tensor:
    """Returns what a network's fixed part computes of some windows: [B, R, N, ...].

    Each window is computed by itself: its values do not depend on which others are kept.

    Args:
        places: (video, first frame) of each window.
        cut: returns the frames of those windows that are marked in bool [B]: [·, R, T, S, S, C].
    """
    found = [None if kept is None else kept.get(*place) for place in places]
    missing = np.array([each is None for each in found])
    if missing.any():
        for i, frames in zip(np.flatnonzero(missing), cut(missing), strict=True):
            blocks_RNCTHW = as_blocks(torch.from_numpy(frames), spec)
            made = part(blocks_RNCTHW.flatten(0, 1)).unflatten(0, blocks_RNCTHW.shape[:2])
            found[i] = made
            if kept is not None:
                kept.put(places[i][0], places[i][1], made)
    return torch.stack([each for each in found if each is not None])


def as_blocks(frames_RTSSC: Tensor, spec: EncoderSpec) -> Tensor:
    """Returns frames as a network takes them: uint8 [R, T, S, S, C] → float [R, N, C, T, S, S]."""
    clips = get_view(spec.view).present(frames_RTSSC.permute(0, 4, 1, 2, 3), spec.presentation)
    return clips.unflatten(2, (spec.blocks, spec.frames)).transpose(1, 2)
