"""From a prompt to a video in one call, and the pieces of it that the command line uses one by one."""

import logging
import os
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from lavie.building import build
from lavie.errors import Fault, PromptError, SpecError, VideoError, WeightsError
from lavie.prompts import normalise
from lavie.record import Recipe, Record, comment_of, environment, foreign_components, sidecar_of, write_sidecar
from lavie.registry import Registry, installed
from lavie.spec import dump, spec_hash, type_of
from lavie.specfile import change_spec, load_spec
from lavie.stages import OnStep, Request, Stage, StageSpec, VideoShape, load_stage, shipped_weights
from lavie.video import Frames, enlarge, to_frames, write_video
from lavie.vocabulary import check_words
from lavie.weights.files import WEIGHTS_FILE, read_manifest

DEFAULT_SPEC = "base-tiny"
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
MAX_SEED = 2**63 - 1


@dataclass(frozen=True, eq=False)
class GeneratedVideo:
    """A video and the record of what made it."""

    video: Float[Tensor, "3 f h w"]
    """Pixels in [-1, 1]."""
    fps: float
    record: Record

    def frames(self) -> Frames:
        """Return the video as files hold it: uint8, `f h w c`."""
        return to_frames(self.video)

    def save(self, path: str | Path, scale: int = 1) -> Path:
        """Write an .mp4 or .gif, each pixel as a square of `scale` × `scale`, and the record beside it.

        Raises:
            VideoError: naming the path, if the format cannot hold the video or the disk does not take it.
        """
        path = Path(path)
        frames = enlarge(self.frames(), scale)
        recipe = self.record.recipe.model_copy(update={"scale": scale})
        record = self.record.model_copy(update={"recipe": recipe})
        with suppress(OSError):
            sidecar_of(path).unlink()  # it would tell of the video that is replaced
        write_video(path, frames, self.fps, comment_of(record))
        write_sidecar(path, record)
        return path


@dataclass(frozen=True, eq=False)
class Model:
    """What is to run: a stage's spec, its weights, device and dtype; nothing is built or loaded yet."""

    spec: StageSpec
    name: str
    weights: Path | None
    weights_sha256: str
    device: str
    dtype: str
    registry: Registry = field(repr=False)

    def shape(self) -> VideoShape:
        """Return size and rate of the videos that come out."""
        return shape_of(self.spec)

    def recipe(self, request: Request, scale: int = 1) -> Recipe:
        """Return everything that determines the pixels of a request's file."""
        return Recipe(
            prompt=request.prompt,
            negative_prompt=request.negative_prompt,
            seed=request.seed,
            spec_hash=spec_hash(self.spec),
            weights_sha256=self.weights_sha256,
            dtype=self.dtype,
            scale=scale,
        )

    def load(self) -> Stage:
        """Build the stage and load its weights.

        Raises:
            WeightsError: if they are damaged or belong to another network.
        """
        return load_stage(self.spec, self.weights, self.device, DTYPES[self.dtype])

    def make(self, stage: Stage, request: Request, on_step: OnStep | None = None) -> GeneratedVideo:
        """Make one video, alone in its batch, so that what else is asked for cannot change it."""
        start = time.perf_counter()
        try:
            video = stage.generate([request], on_step)[0]
        except (MemoryError, RuntimeError) as error:
            if isinstance(error, MemoryError | torch.OutOfMemoryError) or "allocate memory" in str(error):
                raise VideoError(f"out of memory on {self.device}: ask for fewer frames or a smaller size") from error
            raise
        record = Record(
            recipe=self.recipe(request),
            spec_name=self.name,
            spec=dump(self.spec),
            environment=environment(self.device),
            components=foreign_components(self.spec, self.registry),
            seconds={"generate": round(time.perf_counter() - start, 3)},
        )
        return GeneratedVideo(video, self.shape().fps, record)


def choose_model(
    spec: str | Path | StageSpec | None = None,
    *,
    overrides: Sequence[str] = (),
    weights: str | Path | None = None,
    device: str = "auto",
    dtype: str = "float32",
    registry: Registry | None = None,
) -> Model:
    """Settle what is to run, and refuse what cannot, before anything is built.

    Without `spec` it is the one that the weights were made with, and without either it is `base-tiny`.

    Raises:
        SpecError: with the path of whatever is wrong in the spec, or naming `device` or `dtype`.
        WeightsError: if there are no weights.
    """
    registry = registry or installed()
    if dtype not in DTYPES:
        raise SpecError([Fault("dtype", f"unknown dtype {dtype!r}. Known: {', '.join(DTYPES)}")])
    if spec is None and weights is not None:
        spec = registry.load(StageSpec, _manifest_of(weights).get("spec"), str(weights))
    folder, name = _weights_for(spec or DEFAULT_SPEC, weights)
    loaded = _load(spec or DEFAULT_SPEC, overrides, registry)
    check_memory(shape_of(loaded))
    with torch.device("meta"):
        build(loaded, registry)
    if folder is None:
        raise WeightsError(f"the spec {name!r} comes without weights; name a folder of weights made for it")
    sha256 = _manifest_of(folder)["files"].get(WEIGHTS_FILE, {}).get("sha256", "")
    return Model(loaded, name, folder, sha256, _device(device), dtype, registry)


def _load(spec: str | Path | StageSpec, overrides: Sequence[str], registry: Registry) -> StageSpec:
    if isinstance(spec, StageSpec):
        loaded = change_spec(spec, overrides, registry) if overrides else spec
    else:
        loaded = load_spec(spec, registry, overrides, "stage")
    assert isinstance(loaded, StageSpec), "the registry was asked for a stage"
    return loaded


def shape_of(spec: StageSpec) -> VideoShape:
    """Return size and rate of the videos that a stage makes.

    Raises:
        SpecError: if it makes none.
    """
    shape = getattr(spec, "video", None)
    if not isinstance(shape, VideoShape):
        raise SpecError([Fault("video", f"{type_of(type(spec))} has no video shape, so it cannot generate by itself")])
    return shape


def _weights_for(spec: str | Path | StageSpec, weights: str | Path | None) -> tuple[Path | None, str]:
    """Return the folder of weights, and what the model is called in records and messages."""
    name = "" if isinstance(spec, StageSpec) else Path(spec).stem
    if weights is None:
        return (shipped_weights(name) if name == str(spec) else None), name
    folder = Path(weights)
    return folder.parent if folder.is_file() else folder, name or folder.name


def _manifest_of(weights: str | Path) -> dict[str, Any]:
    folder = Path(weights)
    return read_manifest(folder.parent if folder.is_file() else folder)


def _device(name: str) -> str:
    """Work out `auto`, and refuse devices that are not here."""
    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError:
        raise SpecError([Fault("device", f"unknown device {name!r}. Known: auto, cpu, cuda")]) from None
    if device.type == "cuda" and (not torch.cuda.is_available() or (device.index or 0) >= torch.cuda.device_count()):
        found = f"torch {torch.__version__} sees {torch.cuda.device_count()} CUDA devices here"
        raise SpecError([Fault("device", f"{name} is not available: {found}. Use cpu")])
    if device.type not in {"cpu", "cuda"}:
        raise SpecError([Fault("device", f"{name} is not supported. Known: auto, cpu, cuda")])
    return name


def check_memory(shape: VideoShape, scale: int = 1) -> None:
    """Refuse a video whose pixels alone, once as floats and once as bytes of the file, exceed this machine's memory.

    Raises:
        SpecError: with both numbers of bytes.
    """
    needed = shape.num_frames * shape.height * shape.width * 3 * (8 + scale**2)
    present = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") if hasattr(os, "sysconf") else needed
    if needed > present:
        size = f"{shape.num_frames} frames of {shape.height}×{shape.width}"
        reason = f"{size} need more than {needed / 2**30:,.0f} GiB for pixels alone; this machine has"
        raise SpecError([Fault("video", f"{reason} {present / 2**30:,.0f} GiB of memory")])


def check_seed(seed: int) -> int:
    """Return a seed, or refuse it.

    Raises:
        SpecError: if it is not in [0, 2^63).
    """
    if isinstance(seed, bool) or not isinstance(seed, int) or not 0 <= seed <= MAX_SEED:
        raise SpecError([Fault("seed", f"must be a whole number in [0, 2^63), got {seed!r:.80}")])
    return seed


def check_prompts(prompts: Sequence[str], stage: Stage, model: Model) -> list[str]:
    """Refuse prompts with words that the model never learned; return warnings about what is cut off.

    Raises:
        PromptError: answering with what the model knows.
    """
    warnings = [check_words(prompt, stage.unknown_words(prompt), model.spec, model.name) for prompt in prompts]
    return [warning for warning in warnings if warning]


def generate(
    prompt: str,
    *,
    negative_prompt: str = "",
    seed: int = 0,
    spec: str | Path | StageSpec | None = None,
    overrides: Sequence[str] = (),
    weights: str | Path | None = None,
    device: str = "auto",
) -> GeneratedVideo:
    """Make a video from a prompt: the same seed, spec and weights give the same video.

    `overrides` change the spec, as in `["sampler.num_inference_steps=8", "video.num_frames=32"]`.

    Raises:
        LavieError: the kind of which tells what is wrong: prompt, spec or weights.
    """
    if not isinstance(prompt, str):
        raise PromptError(f"prompt: must be text, got {type(prompt).__name__}")
    request = Request(normalise(prompt), normalise(negative_prompt, "negative prompt"), check_seed(seed))
    model = choose_model(spec, overrides=overrides, weights=weights, device=device)
    stage = model.load()
    for warning in check_prompts([request.prompt, request.negative_prompt], stage, model):
        logging.getLogger(__name__).warning(warning)
    return model.make(stage, request)


__all__ = ["GeneratedVideo", "Model", "choose_model", "generate"]
