"""Damages video files with regard to their structure, as a hostile or unlucky writer would."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import av
import numpy as np
from container_elements import TAKE_APART, Element, join, places
from video_files import moving_square

LARGEST = 4 << 20  # bytes of a mutated file, but for holes
HOLE = 16 << 20

# What a container holds, as people have it: (video, sound, options of the container).
FILMS: Mapping[str, tuple[str, str | None, dict[str, str]]] = {
    "mp4": ("libx264", "aac", {}),
    "mov": ("mjpeg", "aac", {}),
    "mkv": ("libx264", "aac", {}),
    "webm": ("libvpx-vp9", None, {}),
    "avi": ("mpeg4", "mp2", {}),
    "ts": ("mpeg2video", "mp2", {}),
    "mpg": ("mpeg1video", "mp2", {}),
    "flv": ("flv", "aac", {}),
    "gif": ("gif", None, {}),
    "fragmented.mp4": ("libx264", "aac", {"movflags": "frag_keyframe+empty_moov"}),
    "h264.ts": ("libx264", None, {}),
    "vp8.webm": ("libvpx", None, {}),
}


def write_film(path: Path, film: str) -> bytes:
    """Writes twelve frames of a film of :data:`FILMS`, with sound where it has some."""
    video, sound, options = FILMS[film]
    with av.open(str(path), "w", options=options) as container:
        stream = container.add_stream(video, rate=25)
        stream.width, stream.height = 64, 48
        stream.pix_fmt = {"gif": "rgb8", "mjpeg": "yuvj420p"}.get(video, "yuv420p")
        stream.codec_context.gop_size = 5
        speaker = container.add_stream(sound, rate=44100) if sound else None
        for picture in moving_square(12):
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            container.mux(stream.encode(frame.reformat(format=stream.pix_fmt)))
        container.mux(stream.encode(None))
        if speaker is not None:
            _write_silence(container, speaker)
    return path.read_bytes()


def _write_silence(container: av.container.OutputContainer, speaker: av.AudioStream) -> None:
    layout, form = "stereo", speaker.format.name
    size = speaker.codec_context.frame_size or 1152
    for number in range(12):
        silence = np.zeros((2, size) if form.endswith("p") else (1, 2 * size), "f4")
        silence = silence if form.startswith("flt") else silence.astype("i2")
        frame = av.AudioFrame.from_ndarray(silence, format=form, layout=layout)
        frame.sample_rate, frame.pts = 44100, number * size
        container.mux(speaker.encode(frame))
    container.mux(speaker.encode(None))


# ── mutations: each changes the elements in place

Draw = np.random.Generator
Mutation = Callable[[list[Element], Draw], None]


def _pick(elements: list[Element], draw: Draw) -> tuple[list[Element], int]:
    every = list(places(elements))
    return every[int(draw.integers(len(every)))]


def _leaf(elements: list[Element], draw: Draw) -> Element:
    """Returns an element with a body, those of headers as often as those of pictures."""
    leaves = [e[i] for e, i in places(elements) if e[i].children is None and e[i].body]
    kinds = sorted({leaf.kind for leaf in leaves})
    kind = kinds[int(draw.integers(len(kinds)))]
    same = [leaf for leaf in leaves if leaf.kind == kind]
    return same[int(draw.integers(len(same)))]


def _number(draw: Draw, bits: int, near: int) -> int:
    """Returns a number at which readers stumble, in so many bits."""
    edges = [0, 1, 2, 2 ** (bits - 1) - 1, 2 ** (bits - 1), 2**bits - 1, 2**bits - 2]
    edges += [near - 1, near + 1, 2 * near, near // 2, int(draw.integers(2**62))]
    return int(draw.choice(np.array(edges, dtype=object))) % 2**bits


def field(elements: list[Element], draw: Draw) -> None:
    """A count, size, time or name in an element becomes another one; mostly near its begin."""
    leaf = _leaf(elements, draw)
    width = int(draw.choice([1, 2, 4, 4, 4, 8]))
    last = max(0, len(leaf.body) - width)
    reach = last if draw.random() < 0.3 else min(last, 64)
    at = int(draw.integers(reach + 1))
    order = "big" if draw.random() < 0.7 else "little"
    near = int.from_bytes(leaf.body[at : at + width], order)
    number = _number(draw, 8 * width, near).to_bytes(width, order)
    leaf.body = leaf.body[:at] + number + leaf.body[at + width :]


def claim(elements: list[Element], draw: Draw) -> None:
    """An element claims a size that it does not have."""
    siblings, index = _pick(elements, draw)
    element = siblings[index]
    size = len(element.body if element.children is None else join(element.children))
    element.claim = _number(draw, int(draw.choice([8, 16, 24, 32, 56])), size)


def repeat(elements: list[Element], draw: Draw) -> None:
    """An element comes twice, or a hundred times."""
    siblings, index = _pick(elements, draw)
    times = int(draw.choice([1, 2, 100]))
    most = LARGEST // 4 // max(1, len(siblings[index].to_bytes()))
    siblings[index:index] = [siblings[index]] * min(times, most)


def remove(elements: list[Element], draw: Draw) -> None:
    """An element is missing."""
    siblings, index = _pick(elements, draw)
    del siblings[index]


def swap(elements: list[Element], draw: Draw) -> None:
    """Two elements change places, at whatever depth they are."""
    (one, i), (two, j) = _pick(elements, draw), _pick(elements, draw)
    if one[i].children is None and two[j].children is None:
        one[i], two[j] = two[j], one[i]
    elif one is two:
        one[i], one[j] = one[j], one[i]


def cut(elements: list[Element], draw: Draw) -> None:
    """The end of an element is missing; its size fits, or is the one that it had."""
    leaf = _leaf(elements, draw)
    if draw.random() < 0.5:
        leaf.claim = len(leaf.body)
    leaf.body = leaf.body[: int(draw.integers(len(leaf.body)))]


def zero(elements: list[Element], draw: Draw) -> None:
    """An element holds zeros only, from some place on."""
    leaf = _leaf(elements, draw)
    at = int(draw.integers(len(leaf.body)))
    leaf.body = leaf.body[:at] + bytes(len(leaf.body) - at)


def noise(elements: list[Element], draw: Draw) -> None:
    """A few bytes of an element are any."""
    leaf = _leaf(elements, draw)
    body = bytearray(leaf.body)
    for _ in range(int(draw.integers(1, 9))):
        body[int(draw.integers(len(body)))] = int(draw.integers(256))
    leaf.body = bytes(body)


def rename(elements: list[Element], draw: Draw) -> None:
    """An element has the kind of another one."""
    (one, i), (two, j) = _pick(elements, draw), _pick(elements, draw)
    one[i].kind = two[j].kind


def stretch(elements: list[Element], draw: Draw) -> None:
    """An element has more bytes than it needs."""
    leaf = _leaf(elements, draw)
    more = int(draw.choice([1, 1000, 100_000, 1_000_000]))
    leaf.body += (
        bytes(more) if draw.random() < 0.5 else (leaf.body * (1 + more // len(leaf.body)))[:more]
    )


MUTATIONS: tuple[Mutation, ...] = (
    field, field, field, claim, claim, repeat, remove, swap, cut, zero, noise, rename, stretch
)  # fmt: skip


def mutate(film: str, data: bytes, draw: Draw) -> tuple[bytes, int, str]:
    """Returns a damaged copy of a film, its length with a hole at the end, and what was done."""
    elements = TAKE_APART[film.rpartition(".")[2]](data)
    done = []
    for _ in range(int(draw.integers(1, 5))):
        mutation = MUTATIONS[int(draw.integers(len(MUTATIONS)))]
        if sum(1 for _ in places(elements)) > 1:
            mutation(elements, draw)
            done.append(mutation.__name__)
    damaged = join(elements)[:LARGEST]
    length = len(damaged)
    if draw.random() < 0.05:
        done.append("end")
        length = int(draw.integers(1, len(damaged) + 1))
        damaged = damaged[:length]
    elif draw.random() < 0.01:
        done.append("hole")
        length += HOLE
    return damaged, length, "+".join(done)
