"""Decodes video files: frames are RGB uint8 [H, W, 3], or the codec's own motion vectors.

Only the commands that read video use it; training reads shards.
"""

from __future__ import annotations

import errno
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

import av
import cv2
import numpy as np
from av.video.frame import PictureType
from av.video.reformatter import VideoReformatter

from vidssl.dataset.coded_frames import (
    LUMA_SIDE,
    NO_VECTORS,
    SEVERAL_REFERENCES,
    SOUND_IN_B_FRAMES,
    CodedFrame,
    NoVectors,
    PacketPlace,
    may_be_referred_to,
    nal_length_bytes,
)
from vidssl.dataset.video_bounds import DEFAULT_BOUNDS, StallClock, UnreadableVideo, VideoBounds

# What FFmpeg may open beside a video's own file: nothing over a network. What only names other
# files is no video: it would bring in any file that this user may read.
LOCAL_FILES_ONLY = {"protocol_whitelist": "file"}
PLAYLISTS = frozenset(("concat", "hls", "dash", "imf", "sdp", "rtsp", "webm_dash_manifest"))
# Vectors do not depend on pixels, so what only smooths these is left out. A packet's mark goes
# with it to its frame, since decoders give frames in another order.
VECTOR_OPTIONS = {"flags2": "+export_mvs", "flags": "+copy_opaque", "skip_loop_filter": "all"}
KINDS = {int(PictureType.I): "I", int(PictureType.SI): "I", int(PictureType.B): "B"}
NONE_SO_FAR = 100  # frames predicted from others after which vectors are no longer waited for

T = TypeVar("T")
Size = tuple[int, int]


def frame_rate(path: Path, bounds: VideoBounds = DEFAULT_BOUNDS) -> float:
    """Returns a video's frames per second, 0.0 if the file does not say.

    Raises:
        UnreadableVideo: no video stream can be opened.
    """
    with _timed(bounds) as clock, _open(path, bounds, clock) as container:
        stream = _video_stream(container)
        assert stream is not None  # _open has looked
        return float(stream.average_rate or stream.guessed_rate or 0)


def duration(path: Path, bounds: VideoBounds = DEFAULT_BOUNDS) -> float:
    """Returns a video's length in seconds according to its header, 0.0 if that is unknown."""
    try:
        with _timed(bounds) as clock, _open(path, bounds, clock) as container:
            return max(0.0, (container.duration or 0) / av.time_base)
    except (UnreadableVideo, MemoryError):
        return 0.0


def decode(
    path: Path | str, notes: list[str] | None = None, bounds: VideoBounds = DEFAULT_BOUNDS
) -> Iterator[np.ndarray]:
    """Yields a video's frames, RGB uint8 [H, W, 3], upright, all of the size of the first one.

    Frames come in decode order, without regard to timestamps and announced frame counts: AVI files
    with packed B-frames have timestamps that jump back, and some headers announce frames that do
    not exist. Damage ends the video: the frames before it are used, and a sentence about it is
    appended to `notes`. Packets that fail before the first good frame are skipped. Pixels are taken
    as stored; the aspect ratio that the file asks for is ignored.

    Raises:
        UnreadableVideo: no frame can be decoded; the text says why.
        OverBound: a bound is exceeded, at whatever frame.
        MemoryError: this process may not have the memory that the decoder asks for.
    """

    as_rgb = _rgb_converter()

    def rgb(frame: av.VideoFrame, codec: str, size: Size | None) -> tuple[np.ndarray, Size]:
        image = _upright(as_rgb(frame), *_orientation(frame))
        height, width = own = image.shape[:2]
        if size not in (None, own):
            image = cv2.resize(image, size[::-1], interpolation=cv2.INTER_AREA)
        return image, (height, width)

    yield from _convert(Path(path), rgb, [] if notes is None else notes, bounds)


def decode_vectors(
    path: Path | str, notes: list[str] | None = None, bounds: VideoBounds = DEFAULT_BOUNDS
) -> Iterator[CodedFrame]:
    """Yields what the codec recorded about each frame that :func:`decode` yields.

    Raises:
        NoVectors: no frame has motion vectors; the text says of which codec.
        As :func:`decode`.
    """
    count = predicted = 0
    codec, found = "", False
    notes = [] if notes is None else notes
    for frame in _convert(Path(path), _coded_frame, notes, bounds, vectors=True):
        codec, found = frame.codec, found or len(frame.vectors) > 0
        count += 1
        predicted += frame.kind != "I"
        if predicted > NONE_SO_FAR and not found:
            break
        yield frame
    if count > 1 and not found:
        raise NoVectors(
            f"its codec, {codec}, gives no motion vectors"
            if predicted
            else f"each of its frames is coded by itself, without motion vectors ({codec})"
        )


def _convert(
    path: Path,
    convert: Callable[[av.VideoFrame, str, Size | None], tuple[T, Size]],
    notes: list[str],
    bounds: VideoBounds,
    vectors: bool = False,
) -> Iterator[T]:
    """Yields what `convert` makes of each frame.

    Args:
        convert: takes a frame, the codec's name, and the (height, width) of the first frame, None
            at that; returns what is yielded, and the frame's own size.
        vectors: whether frames carry motion vectors and their packets' marks; then their pixels
            are not those that are meant to be seen.
    """
    size, resized, count = None, 0, 0
    with _timed(bounds) as clock, _open(path, bounds, clock, vectors) as container:
        codec = container.streams.best("video").codec_context.name
        for frame in _frames(container, notes, bounds, clock, vectors):
            made, own = convert(frame, codec, size)
            size = size or own
            resized += own != size
            count += 1
            clock.stop()  # what is done with the frame takes the time it takes
            yield made
            clock.start()
    if not count:
        damage = f" ({notes.pop()})" if notes else ""
        raise UnreadableVideo(f"not one frame can be decoded{damage}")
    if resized:
        notes.append(f"{resized} of {count} frames changed size and were scaled to the first's")


@contextmanager
def _timed(bounds: VideoBounds) -> Iterator[StallClock]:
    clock = StallClock(bounds)
    try:
        yield clock
    finally:
        clock.stop()


def _open(
    path: Path, bounds: VideoBounds, clock: StallClock, vectors: bool = False
) -> av.container.InputContainer:
    """Opens a file that has a video stream of a size within the bounds.

    Args:
        vectors: as of :func:`_convert`.
    """
    # FFmpeg itself refuses larger pictures, before it decodes one to see what is in the file.
    options = {"max_pixels": str(bounds.max_pixels)}
    # An absolute path, since FFmpeg takes what stands before a colon for a protocol.
    address = str(path.absolute())
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            raise UnreadableVideo("it is no regular file")
        if status.st_size == 0:
            raise UnreadableVideo("the file is empty")
        container = av.open(
            address,
            metadata_errors="replace",
            options=options | LOCAL_FILES_ONLY,
            timeout=bounds.max_stall,
        )
    except FileNotFoundError:
        raise UnreadableVideo("the file is gone") from None
    except av.error.ExitError:
        raise clock.over() from None
    except MemoryError:
        raise
    except (av.error.FFmpegError, OSError) as error:
        raise UnreadableVideo(f"it cannot be opened as video ({_reason(error)})") from error
    try:
        clock.check()
        if container.format.name in PLAYLISTS:
            name = container.format.name
            raise UnreadableVideo(f"it is a list of other files ({name}), not a video")
        stream = _video_stream(container)
        if stream is None:
            others = {stream.type for stream in container.streams} - {"video"}
            holds = f", only {' and '.join(sorted(others))}" if others else ""
            raise UnreadableVideo(f"it has no moving picture{holds}")
        if stream.codec_context is None:
            raise UnreadableVideo("its moving picture is of a kind that cannot be decoded here")
        bounds.check_size(stream.codec_context.width, stream.codec_context.height)
        stream.codec_context.options = options | (VECTOR_OPTIONS if vectors else {})
    except BaseException:
        container.close()
        raise
    return container


def _video_stream(container: av.container.InputContainer) -> av.VideoStream | None:
    """Returns the main video stream; None if there is none, or only the cover of a sound file."""
    stream = container.streams.best("video")
    cover = stream is not None and bool(stream.disposition & av.stream.Disposition.attached_pic)
    return None if cover else stream


def _frames(
    container: av.container.InputContainer,
    notes: list[str],
    bounds: VideoBounds,
    clock: StallClock,
    vectors: bool,
) -> Iterator[av.VideoFrame]:
    """Decodes packet by packet, up to the first damage after a good frame."""
    stream = _video_stream(container)
    assert stream is not None  # _open has looked
    stream.thread_type = "NONE"  # one core per video: many videos are decoded at once
    count = 0
    packets = container.demux(stream)
    try:
        for packet in _marked(packets, stream) if vectors else packets:
            clock.check()
            try:
                frames = packet.decode()
            except av.error.EOFError:
                return
            except av.error.FFmpegError as error:
                _raise_if_refused(error, stream, bounds, clock)
                if not count:
                    notes[:] = [_reason(error)]
                    continue
                raise
            for frame in frames:
                count += 1
                bounds.check_count(count)
                bounds.check_size(frame.width, frame.height)
                if count == 1 and notes:
                    notes[:] = [f"the start is damaged and was skipped ({notes[0]})"]
                yield frame
    except av.error.FFmpegError as error:
        _raise_if_refused(error, stream, bounds, clock)
        text = _reason(error)
        tail = f"damaged after frame {count}, the rest is left out ({text})"
        notes.append(tail if count else text)


def _raise_if_refused(
    error: Exception, stream: av.VideoStream, bounds: VideoBounds, clock: StallClock
) -> None:
    """Raises where an error is no damage but a bound, or a lack of memory."""
    if isinstance(error, MemoryError):
        raise error
    if isinstance(error, av.error.ExitError):
        raise clock.over() from None
    context = stream.codec_context
    if getattr(error, "errno", None) == errno.EINVAL and not (context.width or context.height):
        raise bounds.size_refused() from error  # FFmpeg forgets a size that it refuses


def _reason(error: Exception) -> str:
    """Returns FFmpeg's message without the error number and the file name."""
    return str(getattr(error, "strerror", None) or error).lower()


def _rgb_converter() -> Callable[[av.VideoFrame], np.ndarray]:
    """Returns what converts the frames of one video to RGB: uint8 [H, W, 3].

    One converter for all frames, with one thread: `to_ndarray` makes one for each frame, and in
    newer releases of PyAV threads for each core as well, which takes many times as long.
    """
    converter = VideoReformatter()

    def convert(frame: av.VideoFrame) -> np.ndarray:
        try:
            return converter.reformat(frame, format="rgb24", threads=1).to_ndarray()
        except TypeError:  # older releases know no `threads`, and take one
            return converter.reformat(frame, format="rgb24").to_ndarray()

    return convert


def _upright(image: np.ndarray, turns: int, mirrored: bool) -> np.ndarray:
    """Mirrors and rotates a frame [H, W, 3] as the file asks, rounded to quarter turns."""
    if mirrored:
        image = image[:, ::-1]
    return np.ascontiguousarray(np.rot90(image, turns))


def _orientation(frame: av.VideoFrame) -> tuple[int, bool]:
    """Returns the quarter turns, anticlockwise, and whether left and right are exchanged before.

    A file asks by a matrix (FFmpeg's display matrix), whose determinant is negative if it mirrors.
    """
    table = frame.side_data.get("DISPLAYMATRIX")
    if table is None:
        return 0, False
    matrix = np.frombuffer(bytes(table), np.int32, 9).astype(float)
    mirrored = bool(matrix[0] * matrix[4] < matrix[1] * matrix[3])
    return (round(frame.rotation / 90) + 2 * mirrored) % 4, mirrored


# ── motion vectors


def _marked(packets: Iterator[av.Packet], stream: av.VideoStream) -> Iterator[av.Packet]:
    """Yields packets that carry their place in decoding order, and so do their frames."""
    h264 = stream.codec_context.name == "h264"
    length_bytes = nal_length_bytes(stream.codec_context.extradata)
    for order, packet in enumerate(packets):
        if h264:
            packet.opaque = PacketPlace(order, may_be_referred_to(bytes(packet), length_bytes))
        yield packet


def _coded_frame(frame: av.VideoFrame, codec: str, size: Size | None) -> tuple[CodedFrame, Size]:
    kind = KINDS.get(int(frame.pict_type), "P")
    place = frame.opaque
    table = frame.side_data.get("MOTION_VECTORS")
    turns, mirrored = _orientation(frame)
    sound = table is not None and (kind != "B" or codec in SOUND_IN_B_FRAMES)
    made = CodedFrame(
        codec=codec,
        width=frame.width,
        height=frame.height,
        turns=turns,
        mirrored=mirrored,
        kind=kind,
        order=place.order if place is not None else None,
        reference=place.reference if place is not None else kind != "B",
        vectors=table.to_ndarray() if sound else NO_VECTORS,
        luma=_small_luma(frame) if codec in SEVERAL_REFERENCES else None,
    )
    return made, made.upright_size()


def _small_luma(frame: av.VideoFrame) -> np.ndarray:
    """Returns the first plane in small; FFmpeg's own conversion would take longer than decoding."""
    plane, bits = frame.planes[0], frame.format.components[0].bits
    samples = np.frombuffer(plane, np.uint8 if bits == 8 else "<u2")
    luma = samples.reshape(plane.height, -1)[:, : plane.width]
    shrink = max(1, min(luma.shape) // LUMA_SIDE)
    size = luma.shape[1] // shrink, luma.shape[0] // shrink
    small = cv2.resize(luma, size, interpolation=cv2.INTER_AREA)
    return small if bits == 8 else (small >> (bits - 8)).astype(np.uint8)
