"""The comparison itself: clips made again by every method, and how near to the truth each comes."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from benchmarks.baselines import Baseline
from benchmarks.comparison_report import Made
from benchmarks.held_out import Sample
from benchmarks.measuring import Lap, Stopwatch
from lavie.blocks.autoencoder import Autoencoder
from lavie.data.base import Clip
from lavie.metrics import flicker, psnr, ssim
from lavie.stages import Given, LatentDiffusion, LatentVideo, LazyVideo, PixelVideo, Request, VideoShape

MAX_PSNR = 100.0
"""What a perfect copy counts as, in dB."""
OURS = "ours"


@dataclass(frozen=True)
class Task:
    """A clip to be made again."""

    truth: Float[Tensor, "3 f h w"]
    given: Given
    shape: VideoShape
    caption: str
    seed: int


@dataclass(frozen=True, eq=False)
class Options:
    """How clips are made."""

    seed: int = 0
    """Of the first clip; the next has the next."""
    before: Autoencoder | None = None
    """What the given video has been through."""


Method = Callable[[Task], Float[Tensor, "3 f h w"]]


@dataclass(frozen=True)
class Result:
    """What came of one clip, by method."""

    group: str
    label: str
    name: str
    caption: str
    shape: tuple[int, ...]
    """Frames, height, width."""
    methods: Mapping[str, Mapping[str, float]]


def methods_of(stage: LatentDiffusion, baselines: Mapping[str, Baseline]) -> dict[str, Method]:
    """Return the methods by name: the stage, what its autoencoder alone leaves of the truth, and the baselines."""

    def ours(task: Task) -> Tensor:
        return stage.generate([Request(task.caption, seed=task.seed, given=task.given)]).video()[0]

    def autoencoder(task: Task) -> Tensor:
        return through(stage.autoencoder, PixelVideo(task.truth[None], task.shape.fps)).video()[0]

    def plain(baseline: Baseline) -> Method:
        return lambda task: baseline(task.given, task.shape)

    return {OURS: ours, "autoencoder": autoencoder, **{name: plain(each) for name, each in baselines.items()}}


@torch.inference_mode()
def through(autoencoder: Autoencoder, video: LazyVideo) -> LazyVideo:
    """Return what an autoencoder leaves of a video."""
    decoded = LatentVideo(video.encode(autoencoder), autoencoder, video.fps).video()
    return PixelVideo(decoded, video.fps)


def make(task: Task, methods: Mapping[str, Method], watch: Stopwatch) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Let every method make a clip; return the videos, and how near to the truth and how fast each was.

    PSNR and SSIM are of the frames that were not given, flicker is of all.
    """
    places = task.given.places or ()
    new = [frame for frame in range(task.shape.num_frames) if frame not in places]
    truth = task.truth[None]
    videos: dict[str, Tensor] = {}
    measures = {}
    for name, method in methods.items():
        videos[name], lap = _timed(method, task, watch)
        video = videos[name][None]
        measures[name] = {
            "psnr": min(MAX_PSNR, psnr(video[:, :, new], truth[:, :, new]).item()),
            "ssim": ssim(video[:, :, new], truth[:, :, new]).item(),
            "flicker": flicker(video, truth).item(),
            "seconds": lap.wall,
            "cpu_seconds": lap.cpu,
        }
    return videos, measures


def _timed(method: Method, task: Task, watch: Stopwatch) -> tuple[Tensor, Lap]:
    made: list[Tensor] = []
    lap = watch.lap(lambda: made.append(method(task)))
    return made[0], lap


def compare(
    stage: LatentDiffusion, samples: Iterable[Sample], methods: Mapping[str, Method], options: Options
) -> Iterator[tuple[Result, Made]]:
    """Make every clip by every method; with each result comes what was made, the truth first.

    The stage is given what its source would be given to have the clip made, and the clip's caption.
    """
    watch = Stopwatch(next(stage.parameters()).device)
    for number, sample in enumerate(samples):
        task = _task(stage, sample.clip, options.seed + number)
        if options.before is not None:
            given = Given(through(options.before, task.given.video), task.given.places)
            task = replace(task, given=given)
        videos, measures = make(task, methods, watch)
        made = Made(sample.group, f"{sample.name}: {task.caption or 'no caption'}", {"truth": task.truth, **videos})
        size = tuple(task.truth.shape[1:])
        yield Result(sample.group, sample.label, sample.name, task.caption, size, measures), made


def _task(stage: LatentDiffusion, clip: Clip, seed: int) -> Task:
    assert stage.source is not None, "a stage that has baselines has a source"
    given = stage.source.given(clip.video[None], clip.fps)[0]
    video = given.video
    size = VideoShape(num_frames=video.num_frames, height=video.height, width=video.width, fps=video.fps)
    shape = stage.spec.shape(size)
    return Task(clip.video[:, : shape.num_frames], given, shape, clip.caption, seed)
