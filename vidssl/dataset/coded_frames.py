"""What a codec recorded about a frame beside its pixels: kind, order and motion vectors."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from vidssl.dataset.video_bounds import UnreadableVideo

# Of other codecs FFmpeg exports what earlier frames left in its tables: MPEG-4's direct mode, in
# which most blocks of a B-frame are coded, leaves zeros.
SOUND_IN_B_FRAMES = frozenset(("h264", "mpeg1video", "mpeg2video"))
SEVERAL_REFERENCES = frozenset(("h264",))
LUMA_SIDE = 80  # least short side of the picture in small
SLICES = frozenset((1, 2, 5))  # types of NAL units (H.264, table 7-1) that begin a picture
START_CODE = b"\x00\x00\x01"
NO_VECTORS: np.ndarray = np.zeros(
    0,
    [("source", "<i4"), *((name, "u1") for name in ("w", "h"))]
    + [(name, "<i2") for name in ("dst_x", "dst_y")]
    + [("motion_x", "<i4"), ("motion_y", "<i4"), ("motion_scale", "<u2")],
)


class NoVectors(UnreadableVideo):
    """A video whose decoder gives no motion vectors; the text is the reason."""


@dataclass(frozen=True, eq=False)
class PacketPlace:
    """A packet's place in decoding order, and whether its picture may be referred to."""

    order: int
    reference: bool


@dataclass(frozen=True, eq=False)
class CodedFrame:
    """One frame, in the order in which frames are shown.

    Attributes:
        codec: FFmpeg's name of the decoder.
        width, height: of the frame as coded, in pixels.
        turns: quarter turns, anticlockwise, that bring it upright.
        mirrored: whether left and right are exchanged before the turns.
        kind: I (coded by itself), P or B.
        order: its place in decoding order; None where that is unknown.
        reference: whether other frames may be predicted from it.
        vectors: one entry a block, as FFmpeg's AVMotionVector: the block's middle (dst_x, dst_y)
            and size (w, h); motion_x / motion_scale and motion_y / motion_scale lead from it to
            the place in another frame that it is predicted from; source is -1 for a frame of the
            codec's first list, mostly an earlier one, and 1 for its second, mostly a later one.
            Empty where the frame has none.
        luma: the picture in small, uint8 [h, w], not turned, where vectors may refer to several
            frames; its pixels are about right. None for codecs in which they refer to one.
    """

    codec: str
    width: int
    height: int
    turns: int
    kind: str
    order: int | None
    reference: bool
    vectors: np.ndarray
    luma: np.ndarray | None = None
    mirrored: bool = False

    def upright_size(self) -> tuple[int, int]:
        """Returns (height, width) after the turns."""
        return (self.width, self.height) if self.turns % 2 else (self.height, self.width)


def may_be_referred_to(packet: bytes, length_bytes: int) -> bool:
    """Returns whether an H.264 packet's picture is a reference: nal_ref_idc of its first slice.

    Args:
        length_bytes: those of the length before each NAL unit; 0 where start codes divide them.
    """
    for first in _nal_headers(packet, length_bytes):
        if first & 31 in SLICES:
            return bool(first >> 5 & 3)
    return True


def nal_length_bytes(extradata: bytes | None) -> int:
    """Returns `length_bytes` of an H.264 stream from its header: avcC's, or 0 for start codes."""
    is_avcc = extradata is not None and len(extradata) > 4 and extradata[0] == 1
    return (extradata[4] & 3) + 1 if is_avcc and extradata is not None else 0


def _nal_headers(packet: bytes, length_bytes: int) -> Iterator[int]:
    """Yields the first byte of each NAL unit."""
    if not length_bytes:
        place = packet.find(START_CODE)
        while 0 <= place < len(packet) - 3:
            yield packet[place + 3]
            place = packet.find(START_CODE, place + 3)
        return
    place = 0
    while place + length_bytes < len(packet):
        yield packet[place + length_bytes]
        place += length_bytes + int.from_bytes(packet[place : place + length_bytes], "big")
