"""The folder that generated videos go to: names without prompts, nothing overwritten, nothing made twice."""

import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from lavie.api import GeneratedVideo, Model, check_memory
from lavie.errors import VideoError
from lavie.prompts import hash_of
from lavie.record import Recipe, Record, read_record, sidecar_of, write_sidecar
from lavie.stages import OnStep, Request, Stage
from lavie.video import check_format

_REMEDY = "Overwrite it, or choose another folder"


@dataclass(frozen=True)
class Outputs:
    """Where videos are written, and how."""

    folder: Path
    ending: Literal["mp4", "gif"] = "mp4"
    scale: int = 1
    overwrite: bool = False

    def path(self, recipe: Recipe) -> Path:
        """Name the file of a recipe by seed, spec and prompt: the same in every run, and safe in every file system."""
        prompt = hash_of(recipe.prompt, recipe.negative_prompt)
        return self.folder / f"{recipe.seed}-{recipe.spec_hash}-{prompt}.{self.ending}"

    def prepare(self, model: Model) -> None:
        """Refuse what the format cannot hold, then create the folder and see that files can be written to it.

        Raises:
            VideoError: naming the folder or file.
            SpecError: if the enlarged video does not fit into memory.
        """
        shape, scale = model.shape(), self.scale
        check_format(self.folder / f"video.{self.ending}", shape.height * scale, shape.width * scale, shape.fps)
        check_memory(shape, scale)
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
            raise VideoError(f"{path} is in the way: {error}. Use --overwrite, or another folder") from None
        if differences:
            raise VideoError(
                f"{path} was made with another {', '.join(differences)}. Use --overwrite, or another folder"
            )
        self._complete(path, record)
        return True

    def _complete(self, path: Path, record: Record) -> None:
        """Write a missing sidecar anew: a run may have been ended between the two files."""
        if not sidecar_of(path).exists():
            write_sidecar(path, record)

    def write(self, video: GeneratedVideo) -> Path:
        """Write a video and its record.

        Raises:
            VideoError: naming the path, if the disk does not take it.
        """
        return video.save(self.path(video.record.recipe), self.scale)


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
    jobs: Iterable[Job], model: Model, stage: Stage, outputs: Outputs, on_step: OnStep | None = None
) -> Iterator[tuple[Job, GeneratedVideo]]:
    """Make the videos that are not there, one by one, and hand each out once it is whole on disk.

    Raises:
        VideoError: naming the path, if one cannot be written; those before it stay.
    """
    for job in jobs:
        if not job.is_done:
            video = model.make(stage, job.request, on_step)
            assert outputs.write(video) == job.path
            yield job, video


__all__ = ["Job", "Outputs", "plan", "run"]
