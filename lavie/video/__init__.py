"""Video files and pictures: the only package that knows codecs.

On disk and here a video is uint8 `f h w c`, handed on picture by picture, so that no file needs its whole video in
memory; `to_frames` and `to_video` lead from and to pixels in [-1, 1]. The same pictures and comment always give the
same bytes: nothing of the time, the machine or its cores goes in.
"""

from lavie.video.images import fit, read_image
from lavie.video.pixels import Frames, Picture, enlarge, to_frames, to_video
from lavie.video.reading import VideoFile, read_comment, read_video
from lavie.video.writing import ENDINGS, check_format, write_video

__all__ = [
    "ENDINGS",
    "Frames",
    "Picture",
    "VideoFile",
    "check_format",
    "enlarge",
    "fit",
    "read_comment",
    "read_image",
    "read_video",
    "to_frames",
    "to_video",
    "write_video",
]
