"""What a clip is (its frames, stride and size), and the batches of clips that methods train on.

Legend: B samples, N clips of one video, C channels, T frames, H and W pixels.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from vidssl.base.errors import require
from vidssl.base.typed_settings import added_later


@dataclass(frozen=True)
class ClipSpec:
    """A clip: `frames` frames, `stride` apart, `size`×`size` pixels.

    With `blocks` above 1 a clip is that many of these one after another, without a gap.

    Raises:
        UsageError: a number is below 1.
    """

    frames: int = 32
    stride: int = 1
    size: int = 128
    blocks: int = added_later(1)

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            require(name, value, value >= 1, "at least 1")


@dataclass(frozen=True)
class ClipBatch:
    """A batch as methods see it.

    Attributes:
        clips: network input per view, float32 [B, N, C, T, H, W]. N are clips of one video drawn
            independently, or consecutive blocks of one clip, as the method asks for. Where a
            method reads only the last clip of a view, N is 1.
        source: number of the group the video was cut from [B].
        label: class number, -1 where there is none [B].
        index: number of the video in its pack [B].
    """

    clips: dict[str, Tensor]
    source: Tensor
    label: Tensor
    index: Tensor
