"""Endless GIFs with one palette for the whole video, so that still parts do not flicker."""

import tempfile
from collections.abc import Iterable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import IO

import av
import numpy as np

from lavie.video.pixels import Picture

_EXTENSION = b"\x21\xfe"
"""How a comment begins (GIF89a, section 24)."""
_MAX_COMMENT = 8 * 2**20
"""Most bytes that are read in search of a comment."""


def encode(path: Path, pictures: Iterable[Picture], size: tuple[int, int], rate: Fraction, comment: str) -> None:
    """Write pictures of (height, width) to a file.

    The palette is known after the last picture only; until then they wait on the disk, in a file without a name.
    """
    with tempfile.TemporaryFile(dir=path.parent) as waiting, path.open("wb") as file:
        palette = _palette(_kept(pictures, waiting), size, 1 / rate)
        sink = _WithComment(file, comment)
        try:
            with av.open(sink, "w", format="gif", options={"loop": "0"}) as container:
                stream = container.add_stream("gif", rate=rate)
                stream.height, stream.width = size
                stream.pix_fmt = "pal8"
                for frame in _coloured(_waiting(waiting, size), palette, size, 1 / rate):
                    container.mux(stream.encode(frame))
                container.mux(stream.encode())
        except av.FFmpegError:
            if sink.error is not None:
                raise sink.error from None
            raise


def _kept(pictures: Iterable[Picture], file: IO[bytes]) -> Iterator[Picture]:
    for picture in pictures:
        file.write(np.ascontiguousarray(picture).data)
        yield picture


def _waiting(file: IO[bytes], size: tuple[int, int]) -> Iterator[Picture]:
    file.seek(0)
    shape = (*size, 3)
    while data := file.read(size[0] * size[1] * 3):
        yield np.frombuffer(data, np.uint8).reshape(shape)


def _palette(pictures: Iterable[Picture], size: tuple[int, int], time_base: Fraction) -> av.VideoFrame:
    graph = av.filter.Graph()
    source = _source(graph, size, "rgb24", time_base)
    palette, sink = graph.add("palettegen", "reserve_transparent=0"), graph.add("buffersink")
    source.link_to(palette)
    palette.link_to(sink)
    graph.configure()
    for index, picture in enumerate(pictures):
        source.push(_frame(picture, index, time_base))
    source.push(None)
    frame = graph.vpull()
    assert isinstance(frame, av.VideoFrame)
    return frame


def _coloured(
    pictures: Iterable[Picture], palette: av.VideoFrame, size: tuple[int, int], time_base: Fraction
) -> Iterator[av.VideoFrame]:
    graph = av.filter.Graph()
    source = _source(graph, size, "rgb24", time_base)
    chosen = _source(graph, (palette.height, palette.width), palette.format.name, time_base)
    colours, sink = graph.add("paletteuse", "dither=bayer:bayer_scale=5"), graph.add("buffersink")
    source.link_to(colours, 0, 0)
    chosen.link_to(colours, 0, 1)
    colours.link_to(sink)
    graph.configure()
    palette.pts = 0
    chosen.push(palette)
    chosen.push(None)
    for index, picture in enumerate(pictures):
        source.push(_frame(picture, index, time_base))
        yield from _ready(graph)
    source.push(None)
    yield from _ready(graph)


def _ready(graph: av.filter.Graph) -> Iterator[av.VideoFrame]:
    """Yield the frames that a graph has finished."""
    while True:
        try:
            frame = graph.vpull()
        except (av.BlockingIOError, av.EOFError):
            return
        assert isinstance(frame, av.VideoFrame)
        yield frame


def _source(
    graph: av.filter.Graph, size: tuple[int, int], pixels: str, time_base: Fraction
) -> av.filter.context.FilterContext:
    return graph.add_buffer(width=size[1], height=size[0], format=av.VideoFormat(pixels), time_base=time_base)


def _frame(picture: Picture, index: int, time_base: Fraction) -> av.VideoFrame:
    frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24")
    frame.pts, frame.time_base = index, time_base
    return frame


class _WithComment:
    """A file for a GIF being written, which puts a comment behind its palette; ffmpeg writes none."""

    def __init__(self, file: IO[bytes], comment: str) -> None:
        self._file = file
        self._comment = _blocks(comment.encode())
        self._head: bytearray | None = bytearray()
        self.error: OSError | None = None
        """Why the system did not take what was written: ffmpeg forgets it."""

    def write(self, data: bytes) -> int:
        try:
            if self._head is not None:
                self._head += data
                if len(self._head) < 13 or len(self._head) < (end := palette_end(self._head)):
                    return len(data)
                self._file.write(self._head[:end] + self._comment + self._head[end:])
                self._head = None
            else:
                self._file.write(data)
        except OSError as error:
            self.error = error
            raise
        return len(data)


def _blocks(data: bytes) -> bytes:
    if not data:
        return b""
    parts = [data[i : i + 255] for i in range(0, len(data), 255)]
    return _EXTENSION + b"".join(bytes([len(part)]) + part for part in parts) + b"\0"


def palette_end(gif: bytes | bytearray) -> int:
    """Return where the global palette ends and the blocks begin (GIF89a, sections 18 and 19)."""
    return 13 + (3 * 2 ** ((gif[10] & 7) + 1) if gif[10] & 0x80 else 0)


def read_comment(path: Path) -> str:
    """Return the comment behind the palette of a GIF, or nothing."""
    with path.open("rb") as file:
        gif = file.read(_MAX_COMMENT)
    if len(gif) < 13 or not gif.startswith(b"GIF8"):
        return ""
    start = palette_end(gif)
    data, at = b"", start + 2
    while gif[start : start + 2] == _EXTENSION and at < len(gif) and gif[at]:
        data += gif[at + 1 : at + 1 + gif[at]]
        at += 1 + gif[at]
    return data.decode(errors="replace")


def simplest_rate(count: int, seconds: Fraction) -> float:
    """Return the roundest frame rate that a GIF, which counts in hundredths of a second, may have been made with."""
    step = Fraction(1, 100)
    low, high = count / (seconds + step), count / max(seconds - step, step)
    guess = count / max(seconds, step)
    rates = (Fraction(round(guess * parts), parts) for parts in range(1, 1002))
    return float(next((rate for rate in rates if low <= rate <= high), guess))


__all__ = ["encode", "read_comment", "simplest_rate"]
