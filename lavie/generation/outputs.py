"""The folder that generated videos go to: names without prompts, nothing overwritten, nothing made twice."""

import tempfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from lavie.errors import VideoError
from lavie.generation.generated import GeneratedVideo, OnFrame
from lavie.generation.latents import Latents
from lavie.generation.memory import check_memory
from lavie.generation.model import Model
from lavie.generation.prompts import hash_of
from lavie.generation.record import Recipe, Record, environment, read_record, sidecar_of, write_sidecar
from lavie.stages import Given, OnStep, Request, Stage
from lavie.video import ENDINGS, check_format

_REMEDY = "Use --overwrite, or another folder"


@dataclass(frozen=True)
class Outputs:
    """Where videos are written, and how."""

    folder: Path
    format: Literal["mp4", "webm", "gif", "png"] = "mp4"
    scale: int = 1
    overwrite: bool = False
    keep_latents: bool = False
    """Leave the latents of every stage in a folder beside the video."""

    def path(self, recipe: Recipe) -> Path:
        """Name the file of a recipe by seed, spec, and prompt and given frames.

        The name is the same in every run, and safe in every file system.
        """
        prompt = hash_of(recipe.prompt, recipe.negative_prompt or "", recipe.given)
        return self.folder / f"{recipe.seed}-{recipe.spec_hash}-{prompt}{ENDINGS[self.format]}"

    def check(self, model: Model, given: Given | None = None) -> None:
        """Refuse videos that the format cannot hold or that do not fit into memory.

        Raises:
            VideoError: naming the limit.
            SpecError: naming the size.
        """
        shape, scale = model.shape(given), self.scale
        check_format(self.folder / f"video{ENDINGS[self.format]}", shape.height * scale, shape.width * scale, shape.fps)
        check_memory(model.spec, None if given is None else given.shape, scale)

    def prepare(self) -> None:
        """Make the folder if it is missing, and see that files can be written to it.

        Raises:
            VideoError: naming the folder.
        """
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=self.folder):
                pass
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or error
            raise VideoError(f"{self.folder}: cannot be the output folder: {reason}") from None

    def has(self, recipe: Recipe) -> bool:
        """Tell whether the file of a recipe is there already, made by the same recipe.

        Raises:
            VideoError: if the file is there but was made in another way, saying in which; not with `overwrite`.
        """
        path = self.path(recipe)
        if self.overwrite or not path.exists():
            return False
        try:
            record = read_record(path)
            differences = record.recipe.differences(recipe)
        except VideoError as error:
            raise VideoError(f"{path} is in the way: {error}. {_REMEDY}") from None
        if differences:
            raise VideoError(f"{path} is there, made with another {', '.join(differences)}. {_REMEDY}")
        self._complete(path, record)
        return True

    def _complete(self, path: Path, record: Record) -> None:
        """Write a missing sidecar anew: a run may have been ended between the two files."""
        if not sidecar_of(path).exists():
            write_sidecar(path, record)

    def write(self, video: GeneratedVideo, on_frame: OnFrame | None = None) -> Path:
        """Write a video and its record.

        Raises:
            VideoError: naming the path, if the disk does not take it.
            OutOfMemoryError: if its pixels cannot be decoded.
        """
        return video.save(self.path(video.record.recipe), self.scale, on_frame)

    def latents_of(self, path: Path) -> Path:
        """Return where the latents of a video stay if they are kept."""
        return path.with_suffix(".latents")


@dataclass(frozen=True)
class Watch:
    """Who is told how a run gets on."""

    on_step: OnStep | None = None
    on_frame: OnFrame | None = None
    on_note: Callable[[str], None] | None = None
    """Called with a line on whatever may surprise."""


@dataclass(frozen=True)
class Job:
    """One file of a run."""

    request: Request
    path: Path
    is_done: bool
    """Whether an earlier run has made it."""


def plan(requests: Iterable[Request], model: Model, outputs: Outputs) -> list[Job]:
    """Say which file each request gets, and which are there already; equal requests get one file.

    Raises:
        VideoError: if a file made in another way is in the place of one.
    """
    jobs: dict[Path, Job] = {}
    for request in requests:
        recipe = model.recipe(request, outputs.scale)
        path = outputs.path(recipe)
        if path not in jobs:
            jobs[path] = Job(request, path, outputs.has(recipe))
    return list(jobs.values())


def run(
    jobs: Iterable[Job], model: Model, stage: Stage | None, outputs: Outputs, watch: Watch = Watch()
) -> Iterator[Job]:
    """Make the videos that are not there, one by one, and hand out each job once its file is whole on disk.

    The stage may be left out where every job is done. Latents lie in the folder from when a stage has made them until
    the video is whole; what is there of an earlier run, which did not come to its end, is not made again.

    Raises:
        VideoError: naming the path, if one cannot be written; those before it stay.
        OutOfMemoryError: naming what did not fit.
    """
    for job in jobs:
        if not job.is_done:
            assert stage is not None, "there are videos to make"
            kept = outputs.latents_of(job.path)
            latents = Latents(
                model.recipe(job.request),
                environment(model.device),
                outputs.folder,
                kept=None if outputs.overwrite else kept,
                on_note=watch.on_note,
            )
            made = model.make(stage, job.request, watch.on_step, latents.keep, watch.on_note)
            outputs.write(made, watch.on_frame)
            if outputs.keep_latents:
                latents.move(kept)
            else:
                latents.remove()
        yield job


__all__ = ["Job", "Outputs", "Watch", "plan", "run"]
