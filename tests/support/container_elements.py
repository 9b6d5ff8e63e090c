"""Takes video containers apart into their elements, and puts them together again.

The elements are boxes (MP4, MOV), EBML elements (MKV, WebM), chunks (AVI), packets (MPEG-TS,
MPEG-PS), tags (FLV) and blocks (GIF). What is taken apart and put together is the same file; an
element whose body was changed gets the size that fits, unless it claims another one.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass

# Writes an element's head and tail for (kind, size of the body).
Frame = Callable[[bytes, int], tuple[bytes, bytes]]


@dataclass
class Element:
    """One element of a container.

    Attributes:
        kind: what stands before the size: a name, an id, the head of a packet.
        body: what the element holds; unused where it has children.
        frame: writes head and tail.
        children: of an element that holds elements.
        claim: the size that it claims, where that is a lie.
    """

    kind: bytes
    body: bytes
    frame: Frame
    children: list[Element] | None = None
    claim: int | None = None

    def to_bytes(self) -> bytes:
        body = self.body if self.children is None else join(self.children)
        head, tail = self.frame(self.kind, len(body) if self.claim is None else self.claim)
        return head + body + tail


def join(elements: list[Element]) -> bytes:
    """Returns the bytes of elements, one after the other."""
    return b"".join(element.to_bytes() for element in elements)


def places(elements: list[Element]) -> Iterator[tuple[list[Element], int]]:
    """Yields (list, index) of each element, at any depth."""
    for index, element in enumerate(elements):
        yield elements, index
        yield from places(element.children or [])


# ── boxes of MP4 and MOV


BOXES = b"moov trak mdia minf stbl edts dinf udta mvex moof traf mfra".split()


def _box(kind: bytes, size: int) -> tuple[bytes, bytes]:
    return struct.pack(">I", (size + 8) % 2**32) + kind, b""


def boxes(data: bytes) -> list[Element]:
    found, at = [], 0
    while at + 8 <= len(data):
        size, kind = struct.unpack_from(">I4s", data, at)
        body = data[at + 8 : at + size]
        assert 8 <= size <= len(data) - at, (kind, size)
        found.append(Element(kind, body, _box, boxes(body) if kind in BOXES else None))
        at += size
    return found


# ── elements of MKV and WebM


MASTERS = bytes.fromhex(
    "18538067 1f43b675 1654ae6b 1549a966 114d9b74 1c53bb6b 1a45dfa3 1254c367"  # four bytes each
)
SHORT_MASTERS = (b"\xae", b"\xe0", b"\xe1", b"\xbb", b"\xb7", b"\xa0", b"\x4d\xbb")


def _is_master(kind: bytes) -> bool:
    fours = {MASTERS[i : i + 4] for i in range(0, len(MASTERS), 4)}
    return kind in fours or kind in SHORT_MASTERS


def _width(first: int) -> int:
    return 9 - first.bit_length()


def _ebml(width: int) -> Frame:
    def frame(kind: bytes, size: int) -> tuple[bytes, bytes]:
        wide = width if size < 2 ** (7 * width) - 1 else 8
        return kind + (size % 2 ** (7 * wide) | 1 << 7 * wide).to_bytes(wide, "big"), b""

    return frame


def ebml(data: bytes) -> list[Element]:
    found, at = [], 0
    while at < len(data):
        kind = data[at : at + _width(data[at])]
        at += len(kind)
        width = _width(data[at])
        size = int.from_bytes(data[at : at + width], "big") & (1 << 7 * width) - 1
        at += width
        body = data[at : at + size]
        found.append(Element(kind, body, _ebml(width), ebml(body) if _is_master(kind) else None))
        at += size
    return found


# ── chunks of AVI


def _chunk(kind: bytes, size: int) -> tuple[bytes, bytes]:
    within = len(kind) - 4  # the type of a list counts as part of it
    return kind[:4] + struct.pack("<I", (size + within) % 2**32) + kind[4:], b"\0" * (size % 2)


def chunks(data: bytes) -> list[Element]:
    found, at = [], 0
    while at + 8 <= len(data):
        name, size = struct.unpack_from("<4sI", data, at)
        holds = name in (b"RIFF", b"LIST")
        kind = name + (data[at + 8 : at + 12] if holds else b"")
        body = data[at + 4 + len(kind) : at + 8 + size]
        found.append(Element(kind, body, _chunk, chunks(body) if holds else None))
        at += 8 + size + size % 2
    return found


# ── packets of MPEG


def _plain(kind: bytes, size: int) -> tuple[bytes, bytes]:
    return kind, b""


def transport_packets(data: bytes) -> list[Element]:
    return [
        Element(data[i : i + 4], data[i + 4 : i + 188], _plain) for i in range(0, len(data), 188)
    ]


def program_packets(data: bytes) -> list[Element]:
    """Packs, system headers and PES packets; the start codes of video within them are theirs."""
    starts = [m.start() for m in re.finditer(rb"\x00\x00\x01[\xb9-\xff]", data)]
    return [
        Element(data[a : a + 4], data[a + 4 : b], _plain)
        for a, b in zip(starts, [*starts[1:], len(data)], strict=True)
    ]


# ── tags of FLV


def _tag(kind: bytes, size: int) -> tuple[bytes, bytes]:
    """Its size counts from behind time stamp and stream, which are part of the body here."""
    length = (size - 7) % 2**24
    return kind + length.to_bytes(3, "big"), struct.pack(">I", (size + 4) % 2**32)


def tags(data: bytes) -> list[Element]:
    found, at = [Element(data[:13], b"", _plain)], 13
    while at + 11 <= len(data):
        end = at + 11 + int.from_bytes(data[at + 1 : at + 4], "big")
        found.append(Element(data[at : at + 1], data[at + 4 : end], _tag))
        at = end + 4
    return found


# ── blocks of GIF


def _sub_block(kind: bytes, size: int) -> tuple[bytes, bytes]:
    return bytes([size % 256]), b""


def blocks(data: bytes) -> list[Element]:
    table = 3 << (data[10] & 7) + 1 if data[10] & 0x80 else 0
    found, at = [Element(data[:13], data[13 : 13 + table], _plain)], 13 + table
    while at < len(data):
        if data[at] == 0x3B:
            return [*found, Element(data[at:], b"", _plain)]
        begin = at
        if data[at] == 0x2C:
            local = 3 << (data[at + 9] & 7) + 1 if data[at + 9] & 0x80 else 0
            at += 11 + local
        else:
            at += 2
        head, parts = data[begin:at], []
        while data[at]:
            parts.append(Element(b"", data[at + 1 : at + 1 + data[at]], _sub_block))
            at += 1 + data[at]
        parts.append(Element(b"", b"", _sub_block))
        at += 1
        found.append(Element(head, b"", _plain, parts))
    return found


TAKE_APART: dict[str, Callable[[bytes], list[Element]]] = {
    "mp4": boxes,
    "mov": boxes,
    "mkv": ebml,
    "webm": ebml,
    "avi": chunks,
    "ts": transport_packets,
    "mpg": program_packets,
    "flv": tags,
    "gif": blocks,
}
