"""The folder that generated videos go to: names without prompts, nothing overwritten, nothing made twice."""

import tempfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from lavie.contact_sheet import MAX_ROWS, Row, write_contact_sheet
from lavie.errors import VideoError
from lavie.generation.choice import check_memory
from lavie.generation.model import GeneratedVideo, Model
from lavie.generation.prompts import hash_of, shorten
from lavie.generation.record import Recipe, Record, read_record, sidecar_of, write_sidecar
from lavie.stages import OnStep, Request, Stage
from lavie.video import check_format, read_video

_REMEDY = "Use --overwrite, or another folder"


@dataclass(frozen=True)
class Outputs:
    """Where videos are written, and how."""

    folder: Path
    ending: Literal["mp4", "gif"] = "mp4"
    scale: int = 1
    overwrite: bool = False

    def path(self, recipe: Recipe) -> Path:
        """Name the file of a recipe by seed, spec and prompt: the same in every run, and safe in every file system."""
        prompt = hash_of(recipe.prompt, recipe.negative_prompt or "")
        return self.folder / f"{recipe.seed}-{recipe.spec_hash}-{prompt}.{self.ending}"

    def check(self, model: Model) -> None:
        """Refuse videos that the format cannot hold or that, enlarged, do not fit into memory.

        Raises:
            VideoError: naming the limit.
            SpecError: naming the size.
        """
        shape, scale = model.shape(), self.scale
        check_format(self.folder / f"video.{self.ending}", shape.height * scale, shape.width * scale, shape.fps)
        check_memory(shape, scale)

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
    jobs: Iterable[Job], model: Model, stage: Stage | None, outputs: Outputs, on_step: OnStep | None = None
) -> Iterator[tuple[Job, GeneratedVideo | None]]:
    """Make the videos that are not there, one by one, and hand out each job once its file is whole on disk.

    The stage may be left out where every job is done; a done job comes without a video.

    Raises:
        VideoError: naming the path, if one cannot be written; those before it stay.
    """
    for job in jobs:
        if job.is_done:
            yield job, None
        else:
            assert stage is not None, "there are videos to make"
            video = model.make(stage, job.request, on_step)
            outputs.write(video)
            yield job, video


class Sheet:
    """A contact sheet of a run, a row per video, as far as one sheet reaches."""

    def __init__(self, jobs: Sequence[Job], folder: Path) -> None:
        names = "\0".join(job.path.name for job in jobs)
        self.path = folder / f"contact-sheet-{hash_of(names)}.png"
        self._rows: list[Row] = []

    def add(self, job: Job, video: GeneratedVideo | None) -> None:
        """Add one video; one that an earlier run has made is read from its file."""
        if len(self._rows) < MAX_ROWS:
            frames = read_video(job.path).frames if video is None else video.frames()
            prompt = shorten(job.request.prompt, 100)
            self._rows.append(Row.of(frames, f"{prompt}  seed {job.request.seed}"))

    def write(self) -> Path:
        """Write the sheet.

        Raises:
            VideoError: naming the path, if it cannot be written.
        """
        write_contact_sheet(self.path, self._rows)
        return self.path


__all__ = ["Job", "Outputs", "Sheet", "plan", "run"]
