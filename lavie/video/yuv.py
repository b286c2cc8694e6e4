"""H.264 in mp4 and VP9 in WebM: as yuv420p, which browsers play, in the colours of BT.709."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from av.video.reformatter import ColorRange, Colorspace, Interpolation

from lavie.video.files import url
from lavie.video.pixels import Picture

BT709 = 1
"""The code of ITU-R BT.709 in every colour tag; untagged files are shown in other colours by some players."""
AHEAD_PIXELS = 2**24
"""Pixels that the encoder looks ahead: 25 frames, less for frames of more than 800×800."""
THREADS = 4
"""Threads of the encoder: fixed, since the output of H.264 depends on their number."""


@dataclass(frozen=True)
class Codec:
    """An encoder, and the container that its stream goes into."""

    container: str
    name: str
    options: dict[str, str]
    ahead: str
    """Its name for how many frames it looks at, and holds in memory, before it writes the first of them."""
    flags: dict[str, str] = field(default_factory=dict)
    """Options of the container."""


MP4 = Codec("mp4", "libx264", {"crf": "12", "preset": "medium"}, "rc-lookahead", {"movflags": "+faststart"})
WEBM = Codec("webm", "libvpx-vp9", {"crf": "12", "b": "0", "deadline": "good", "cpu-used": "3"}, "lag-in-frames")


def encode(
    path: Path, pictures: Iterable[Picture], size: tuple[int, int], rate: Fraction, comment: str, codec: Codec
) -> None:
    """Write pictures of (height, width) to a file, one by one."""
    with av.open(url(path), "w", format=codec.container, options={"fflags": "+bitexact", **codec.flags}) as container:
        if comment:
            container.metadata["comment"] = comment
        ahead = min(max(AHEAD_PIXELS // (size[0] * size[1]), 4), 25)
        stream = container.add_stream(codec.name, rate=rate, options={**codec.options, codec.ahead: str(ahead)})
        assert isinstance(stream, av.VideoStream)
        stream.height, stream.width = size
        stream.pix_fmt = "yuv420p"
        context = stream.codec_context
        context.thread_count = THREADS
        context.color_primaries = context.color_trc = context.colorspace = BT709
        context.color_range = ColorRange.MPEG
        for index, picture in enumerate(pictures):
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24").reformat(
                format="yuv420p",
                interpolation=Interpolation.AREA,
                dst_colorspace=Colorspace.ITU709,
                src_color_range=ColorRange.JPEG,
                dst_color_range=ColorRange.MPEG,
            )
            frame.pts = index
            container.mux(stream.encode(frame))
        container.mux(stream.encode())


__all__ = ["MP4", "WEBM", "Codec", "encode"]
