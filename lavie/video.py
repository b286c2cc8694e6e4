"""Video files: the only module that knows codecs.

On disk and here a video is uint8 `f h w c`; `to_frames` and `to_video` lead from and to pixels in [-1, 1].
The same frames and comment always give the same bytes: nothing of the time, the machine or its cores goes in.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import torch
from av.video.reformatter import ColorRange, Colorspace, Interpolation
from einops import rearrange
from jaxtyping import Float, UInt8
from torch import Tensor

from lavie.atomic import replacing
from lavie.errors import VideoError

Frames = UInt8[np.ndarray, "f h w 3"]
"""A video as files hold it."""

FORMATS = ("mp4", "gif")
"""What can be written, by file name ending."""
MAX_PIXELS = 2**32
"""Most pixels, over all frames, that a file may decode to (12 GiB)."""
MAX_SCALE = 64
"""Largest square that a pixel is written as."""
BT709 = 1
"""The code of ITU-R BT.709 in every colour tag of H.264; untagged files are shown in other colours by some players."""
THREADS = 4
"""Threads of the H.264 encoder: fixed, since its output depends on their number."""
COMMENT = b"\x21\xfe"
READABLE = "mov,mp4,m4a,3gp,3g2,mj2,gif,matroska,webm,avi"


@dataclass(frozen=True)
class VideoFile:
    """What a video file holds."""

    frames: Frames
    fps: int | float
    comment: str = ""


def to_frames(video: Float[Tensor, "3 f h w"]) -> Frames:
    """Turn pixels in [-1, 1] into bytes; what lies outside is clipped.

    Raises:
        VideoError: if pixels are not numbers.
    """
    video = video.detach().float().cpu()
    if not torch.isfinite(video).all():
        raise VideoError("the video has pixels that are no numbers (NaN or infinite); float32 may help")
    pixels = (video.clamp(-1, 1) + 1) * 127.5
    return rearrange(pixels.round().to(torch.uint8).numpy(), "c f h w -> f h w c")


def to_video(frames: Frames) -> Float[Tensor, "3 f h w"]:
    """Turn bytes into pixels in [-1, 1]."""
    return rearrange(torch.from_numpy(frames.copy()).float() / 127.5 - 1, "f h w c -> c f h w")


def enlarge(frames: Frames, scale: int) -> UInt8[np.ndarray, "f tall wide 3"]:
    """Make every pixel a square of `scale` × `scale`, edges kept sharp.

    Raises:
        VideoError: if the scale is not in [1, 64].
    """
    if not 1 <= scale <= MAX_SCALE:
        raise VideoError(f"scale must be in [1, {MAX_SCALE}], got {scale}")
    return frames if scale == 1 else frames.repeat(scale, axis=1).repeat(scale, axis=2)


def check_format(path: Path, height: int, width: int, fps: int | float) -> None:
    """Refuse a video that the format named by the ending of `path` cannot hold.

    Raises:
        VideoError: naming the path, the limit and what to do.
    """
    name = path.suffix.lower().removeprefix(".")
    if name not in FORMATS:
        raise VideoError(f"{path}: cannot write {path.suffix or 'a file without an ending'}; use .mp4 or .gif")
    if not 0 < fps <= (50 if name == "gif" else 1000):
        limit = "50, the fastest that browsers play a GIF" if name == "gif" else "1000"
        raise VideoError(f"{path}: {fps:g} frames per second; must be above 0 and at most {limit}")
    if name == "mp4" and (height % 2 or width % 2):
        remedy = "crop, write it at twice the size, or use .gif"
        raise VideoError(f"{path}: mp4 needs an even height and width, got {height}×{width}; {remedy}")
    if max(height, width) > 16384:
        raise VideoError(f"{path}: {height}×{width} pixels; the longest side may have 16384")


def write_video(path: Path, frames: Frames, fps: int | float, comment: str = "") -> None:
    """Write a video as H.264 (.mp4) or as an endless GIF (.gif), whole or not at all.

    The mp4 plays in browsers: yuv420p, BT.709, index first. `comment` is kept in the container.

    Raises:
        VideoError: naming the path, if the format cannot hold the video or the disk does not take it.
    """
    count, height, width, _ = frames.shape
    check_format(path, height, width, fps)
    if not count:
        raise VideoError(f"{path}: a video without frames cannot be written")
    rate = Fraction(fps).limit_denominator(1001)
    with _naming(path, "written"), replacing(path) as temporary:
        if path.suffix.lower() == ".mp4":
            _encode_mp4(temporary, frames, rate, comment)
        else:
            _encode_gif(temporary, frames, rate)
            temporary.write_bytes(_with_comment(temporary.read_bytes(), comment))


def _encode_mp4(path: Path, frames: Frames, rate: Fraction, comment: str) -> None:
    options = {"movflags": "+faststart", "fflags": "+bitexact"}
    with av.open(_url(path), "w", format="mp4", options=options) as container:
        if comment:
            container.metadata["comment"] = comment
        stream = container.add_stream("libx264", rate=rate, options={"crf": "12", "preset": "medium"})
        stream.height, stream.width, stream.pix_fmt = frames.shape[1], frames.shape[2], "yuv420p"
        context = stream.codec_context
        context.thread_count = THREADS
        context.color_primaries = context.color_trc = context.colorspace = BT709
        context.color_range = ColorRange.MPEG
        for index, pixels in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels), format="rgb24").reformat(
                format="yuv420p",
                interpolation=Interpolation.AREA,
                dst_colorspace=Colorspace.ITU709,
                src_color_range=ColorRange.JPEG,
                dst_color_range=ColorRange.MPEG,
            )
            frame.pts = index
            container.mux(stream.encode(frame))
        container.mux(stream.encode())


def _encode_gif(path: Path, frames: Frames, rate: Fraction) -> None:
    """Encode with one palette for the whole video, so that still parts do not flicker."""
    with av.open(_url(path), "w", format="gif", options={"loop": "0"}) as container:
        stream = container.add_stream("gif", rate=rate)
        stream.height, stream.width, stream.pix_fmt = frames.shape[1], frames.shape[2], "pal8"
        for frame in _with_palette(frames, 1 / rate):
            container.mux(stream.encode(frame))
        container.mux(stream.encode())


def _with_palette(frames: Frames, time_base: Fraction) -> Iterator[av.VideoFrame]:
    graph = av.filter.Graph()
    height, width = frames.shape[1:3]
    source = graph.add_buffer(width=width, height=height, format=av.VideoFormat("rgb24"), time_base=time_base)
    split, sink = graph.add("split"), graph.add("buffersink")
    palette = graph.add("palettegen", "reserve_transparent=0")
    colours = graph.add("paletteuse", "dither=bayer:bayer_scale=5")
    source.link_to(split)
    split.link_to(colours, 0, 0)
    split.link_to(palette, 1, 0)
    palette.link_to(colours, 0, 1)
    colours.link_to(sink)
    graph.configure()
    for index, pixels in enumerate(frames):
        frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels), format="rgb24")
        frame.pts, frame.time_base = index, time_base
        graph.vpush(frame)
    graph.vpush(None)
    for _ in frames:
        yield graph.vpull()


def _with_comment(gif: bytes, comment: str) -> bytes:
    """Insert a comment extension behind the global palette (GIF89a, section 24); ffmpeg writes none."""
    if not comment:
        return gif
    start = _palette_end(gif)
    data = comment.encode()
    blocks = [data[i : i + 255] for i in range(0, len(data), 255)]
    body = b"".join(bytes([len(block)]) + block for block in blocks)
    return gif[:start] + COMMENT + body + b"\0" + gif[start:]


def read_video(path: Path, max_pixels: int = MAX_PIXELS) -> VideoFile:
    """Read a whole video file into memory.

    Raises:
        VideoError: naming the path, if it is no video, is damaged, or decodes to more than `max_pixels`.
    """
    with _naming(path, "read"), _opened(path) as container:
        if not container.streams.video:
            raise VideoError(f"{path}: no video in it")
        stream = container.streams.video[0]
        pictures: list[np.ndarray] = []
        ends: list[Fraction] = []
        for frame in container.decode(stream):
            pixels = (len(pictures) + 1) * frame.width * frame.height
            if pixels > max_pixels:
                raise VideoError(f"{path}: more than {max_pixels:,} pixels in all; cut or shrink it first")
            pictures.append(frame.to_ndarray(format="rgb24", interpolation=Interpolation.AREA))
            ends.append((frame.pts or 0) * Fraction(frame.time_base or 0))
        if not pictures or len({picture.shape for picture in pictures}) > 1:
            raise VideoError(f"{path}: {'frames of several sizes' if pictures else 'no frames in it'}")
        if stream.frames and stream.frames != len(pictures):
            raise VideoError(f"{path}: damaged: {len(pictures)} frames where the file announces {stream.frames}")
        fps = float(stream.average_rate or 1)
        if container.format.name == "gif" and len(ends) > 1:
            fps = _simplest_rate(len(ends) - 1, ends[-1] - ends[0])
        comment = str(container.metadata.get("comment", ""))
    return VideoFile(np.stack(pictures), fps, comment or _gif_comment(path))


def _simplest_rate(count: int, seconds: Fraction) -> float:
    """Return the roundest frame rate that a GIF, which counts in hundredths of a second, may have been made with."""
    step = Fraction(1, 100)
    low, high = count / (seconds + step), count / max(seconds - step, step)
    guess = count / max(seconds, step)
    rates = (Fraction(round(guess * parts), parts) for parts in range(1, 1002))
    return float(next((rate for rate in rates if low <= rate <= high), guess))


def read_comment(path: Path) -> str:
    """Return the comment kept in a video file's container, or nothing.

    Raises:
        VideoError: naming the path, if it is no video.
    """
    with _naming(path, "read"), _opened(path) as container:
        comment = str(container.metadata.get("comment", ""))
    return comment or _gif_comment(path)


def _gif_comment(path: Path) -> str:
    """Read the comment back from where `_with_comment` puts it."""
    gif = path.read_bytes() if path.suffix.lower() == ".gif" else b""
    if len(gif) < 13:
        return ""
    start = _palette_end(gif)
    data, at = b"", start + 2
    while gif[start : start + 2] == COMMENT and at < len(gif) and gif[at]:
        data += gif[at + 1 : at + 1 + gif[at]]
        at += 1 + gif[at]
    return data.decode(errors="replace")


def _palette_end(gif: bytes) -> int:
    """Return where the global palette ends and the blocks begin (GIF89a, sections 18 and 19)."""
    return 13 + (3 * 2 ** ((gif[10] & 7) + 1) if gif[10] & 0x80 else 0)


def _url(path: Path) -> str:
    """Name a file so that no part of the path is taken for a protocol."""
    return f"file:{path.absolute()}"


@contextmanager
def _opened(path: Path) -> Iterator["av.container.InputContainer"]:
    """Open a local file of a known container format: no network, no playlists, no devices."""
    if not path.is_file():
        raise VideoError(f"{path}: {'not a file' if path.exists() else 'no such file'}")
    options = {"protocol_whitelist": "file", "format_whitelist": READABLE}
    with av.open(_url(path), options=options) as container:
        yield container


@contextmanager
def _naming(path: Path, verb: str) -> Iterator[None]:
    """Turn what the system and the codecs raise into an error that names the path."""
    try:
        yield
    except VideoError:
        raise
    except (OSError, av.FFmpegError, ValueError, MemoryError) as error:
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        raise VideoError(f"{path}: cannot be {verb}: {reason}") from error


__all__ = [
    "FORMATS",
    "Frames",
    "VideoFile",
    "check_format",
    "enlarge",
    "read_comment",
    "read_video",
    "to_frames",
    "to_video",
    "write_video",
]
