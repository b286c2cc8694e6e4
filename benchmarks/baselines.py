"""What a stage is compared with: ways to put frames between frames, or to enlarge them, that learned nothing."""

from collections.abc import Callable
from importlib.util import find_spec
from itertools import pairwise

import numpy as np
import torch
from einops import rearrange
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from lavie.errors import LavieError
from lavie.stages import Given, VideoShape
from lavie.video import to_frames

Baseline = Callable[[Given, VideoShape], Float[Tensor, "3 f h w"]]
"""Makes a video of a shape from what a stage is given."""
Flow = Float[np.ndarray, "h w 2"]
"""Where the content of each pixel goes: pixels to the right, and down."""


class MissingError(LavieError):
    """A method whose package is not installed."""


def repetition(given: Given, shape: VideoShape) -> Float[Tensor, "3 f h w"]:
    """Show the nearest given frame, the earlier of two."""
    frames, places = _frames(given)
    nearest = [min(places, key=lambda place: (abs(place - frame), place)) for frame in range(shape.num_frames)]
    return frames[:, [places.index(place) for place in nearest]]


def blend(given: Given, shape: VideoShape) -> Float[Tensor, "3 f h w"]:
    """Fade from one given frame to the next."""
    return _between(given, shape, _fade)


def dis(given: Given, shape: VideoShape) -> Float[Tensor, "3 f h w"]:
    """Move both given frames along the optical flow between them, and fade from one to the other.

    The flow is OpenCV's DIS (Kroeger et al. 2016, preset medium), both ways, of grey frames. At a moment between them
    it is composed of the two as in Super SloMo (Jiang et al. 2018, eq. 4); nothing is learned, visibility neither.

    """
    return _between(given, shape, _along_flow)


def bicubic(given: Given, shape: VideoShape) -> Float[Tensor, "3 f h w"]:
    """Enlarge frame by frame with Pillow's bicubic filter (a = -0.5)."""
    return _resized(given, shape, Image.Resampling.BICUBIC)


def lanczos(given: Given, shape: VideoShape) -> Float[Tensor, "3 f h w"]:
    """Enlarge frame by frame with Pillow's Lanczos filter (three lobes)."""
    return _resized(given, shape, Image.Resampling.LANCZOS)


def check_installed(name: str) -> None:
    """Refuse the method that needs OpenCV where that is missing.

    Raises:
        MissingError: naming the package to install.
    """
    if name == "dis" and find_spec("cv2") is None:
        remedy = "pip install opencv-python-headless, or leave the method out with --methods"
        raise MissingError(f"the method dis needs OpenCV, which is not installed; {remedy}")


def _frames(given: Given) -> tuple[Float[Tensor, "3 n h w"], list[int]]:
    assert given.places is not None, "what is put between frames has places"
    return given.video.video()[0], list(given.places)


def _between(
    given: Given, shape: VideoShape, make: Callable[[Tensor, Tensor, list[float]], Float[Tensor, "n 3 h w"]]
) -> Float[Tensor, "3 f h w"]:
    """Keep given frames, and make what lies between two of them: `make(first, last, moments in (0, 1))`."""
    frames, places = _frames(given)
    made = [frames[:, :1]]
    for index, (start, stop) in enumerate(pairwise(places)):
        moments = [(frame - start) / (stop - start) for frame in range(start + 1, stop)]
        made.append(rearrange(make(frames[:, index], frames[:, index + 1], moments), "n c h w -> c n h w"))
        made.append(frames[:, index + 1 : index + 2])
    video = torch.cat(made, dim=1)
    assert video.shape[1] == shape.num_frames, "the last frame is given"
    return video


def _fade(first: Float[Tensor, "3 h w"], last: Float[Tensor, "3 h w"], moments: list[float]) -> Tensor:
    return torch.stack([torch.lerp(first, last, moment) for moment in moments])


def _along_flow(first: Float[Tensor, "3 h w"], last: Float[Tensor, "3 h w"], moments: list[float]) -> Tensor:
    forth, back = _flow(first, last), _flow(last, first)
    made = []
    for t in moments:
        to_first = t * (t * back - (1 - t) * forth)
        to_last = (1 - t) * ((1 - t) * forth - t * back)
        made.append(torch.lerp(_fetched(first, to_first), _fetched(last, to_last), t))
    return torch.stack(made)


def _flow(first: Float[Tensor, "3 h w"], last: Float[Tensor, "3 h w"]) -> Flow:
    """Say where the pixels of one frame are in another."""
    import cv2

    pair = to_frames(torch.stack((first, last), dim=1))
    grey = [cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY) for frame in pair]
    return cv2.DISOpticalFlow_create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM).calc(*grey, None)


def _fetched(frame: Float[Tensor, "3 h w"], flow: Flow) -> Float[Tensor, "3 h w"]:
    """Take each pixel from where its flow leads; beyond the edge, the edge goes on."""
    import cv2

    rows, columns = np.indices(flow.shape[:2], dtype=np.float32)
    pixels = rearrange(frame.numpy(), "c h w -> h w c")
    x, y = (columns + flow[..., 0]).astype(np.float32), (rows + flow[..., 1]).astype(np.float32)
    moved = cv2.remap(pixels, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    return rearrange(torch.from_numpy(moved), "h w c -> c h w")


def _resized(given: Given, shape: VideoShape, kernel: Image.Resampling) -> Float[Tensor, "3 f h w"]:
    """Resize in floating point, channel by channel, and clip what overshoots."""
    planes = [
        [Image.fromarray(plane).resize((shape.width, shape.height), kernel) for plane in channel]
        for channel in given.video.video()[0].numpy()
    ]
    return torch.from_numpy(np.stack([[np.asarray(plane) for plane in channel] for channel in planes])).clamp(-1, 1)


INTERPOLATION: dict[str, Baseline] = {"repetition": repetition, "blend": blend, "dis": dis}
UPSCALING: dict[str, Baseline] = {"bicubic": bicubic, "lanczos": lanczos}
