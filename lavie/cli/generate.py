"""`lavie generate`: prompts in, video files out."""

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import Parameter
from cyclopts.validators import Number

from lavie.cli.app import DONE, FAILED, UsageError, complain, say
from lavie.errors import Fault, SpecError, VideoError
from lavie.generation.prompts import normalise, read_prompts

if TYPE_CHECKING:
    from lavie.generation.model import Model
    from lavie.generation.outputs import Job, Outputs, Sheet
    from lavie.stages import Request, Stage

SMALL = 128
"""Videos with a shorter side below this, in pixels, look tiny on a screen."""


@Parameter(name="*", group="What is made")
@dataclass(frozen=True)
class VideoOptions:
    """Size and rate; what is left out comes from the spec."""

    num_frames: int | None = None
    """Frames of each video."""
    height: int | None = None
    """Pixels, a multiple of the autoencoder's factor."""
    width: int | None = None
    """Pixels, a multiple of the autoencoder's factor."""
    fps: float | None = None
    """Frames per second."""


@Parameter(name="*", group="How it is sampled")
@dataclass(frozen=True)
class SamplingOptions:
    """Sampler and guidance; what is left out comes from the spec."""

    steps: int | None = None
    """Steps of the sampler: more take longer and may look better."""
    guidance_scale: float | None = None
    """How strongly to follow the prompt; 1 is not at all more than it was learned."""
    sampler: str | None = None
    """Another sampler, by name: ddpm, ddim, euler, ..."""


@Parameter(name="*", group="With what model")
@dataclass(frozen=True)
class ModelOptions:
    """Spec, weights, device."""

    spec: str | None = None
    """Name of a shipped spec, or path of a spec file. [default: base-tiny, or what --weights were made with]"""
    weights: Path | None = None
    """Folder of weights, as training writes it; shipped specs bring theirs."""
    settings: Annotated[tuple[str, ...], Parameter(name="--set", show_default=False)] = ()
    """Change a value of the spec: path=value. May be given several times."""
    device: str = "auto"
    """auto, cpu, cuda or cuda:1; auto takes CUDA where there is one."""
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    """Precision of the networks; the noise is the same in all."""


@Parameter(name="*", group="Where it goes")
@dataclass(frozen=True)
class OutputOptions:
    """Files."""

    output_dir: Path = Path("out")
    """Folder for the files; made if missing."""
    format: Literal["mp4", "gif"] = "mp4"
    """File format."""
    scale: Annotated[int, Parameter(validator=Number(gte=1, lte=64))] = 1
    """Write each pixel as a square of this many pixels a side: for small videos."""
    contact_sheet: bool = False
    """Also write one picture with a row of frames from each video."""
    overwrite: bool = False
    """Make and replace files that are already there."""


def generate(
    *prompts: str,
    prompt_file: Path | None = None,
    negative_prompt: str | None = None,
    seed: Annotated[int, Parameter(validator=Number(gte=0, lt=2**63))] = 0,
    num_videos: Annotated[int, Parameter(validator=Number(gte=1, lte=10_000))] = 1,
    video: VideoOptions = VideoOptions(),
    sampling: SamplingOptions = SamplingOptions(),
    model: ModelOptions = ModelOptions(),
    output: OutputOptions = OutputOptions(),
) -> int:
    """Make videos from prompts.

    Writes one file per prompt and seed, with a record of what made it inside and beside it, and prints the paths.
    Files that are there already are not made again, so that a long list goes on where it was stopped.

    Parameters
    ----------
    prompts
        What to show, one video each: put it in quotes.
    prompt_file
        File with one prompt per line; blank lines and lines that start with # are left out.
    negative_prompt
        What to keep away from. [default: what the spec says]
    seed
        Where the noise comes from: another seed, another video.
    num_videos
        Videos per prompt, with the seeds that follow.
    """
    texts = _prompts(prompts, prompt_file)
    negative = None if negative_prompt is None else normalise(negative_prompt, "--negative-prompt")
    with _naming_options(video, sampling):
        from lavie.generation.choice import check_seed, choose_model
        from lavie.generation.outputs import Outputs, Sheet, plan
        from lavie.stages import Request

        check_seed(seed + num_videos - 1)
        chosen = choose_model(
            model.spec,
            overrides=_overrides(model, video, sampling),
            weights=model.weights,
            device=model.device,
            dtype=model.dtype,
        )
        outputs = Outputs(output.output_dir, output.format, output.scale, output.overwrite)
        outputs.check(chosen)
    requests = [Request(text, negative, seed + i) for text in texts for i in range(num_videos)]
    jobs = plan(requests, chosen, outputs)
    stage = _load(jobs, chosen)
    outputs.prepare()
    _note(requests, jobs, chosen, outputs)
    return _make(jobs, chosen, stage, outputs, Sheet(jobs, outputs.folder) if output.contact_sheet else None)


def _prompts(prompts: Sequence[str], prompt_file: Path | None) -> list[str]:
    texts = [normalise(prompt, f"prompt {number}") for number, prompt in enumerate(prompts, start=1)]
    if prompt_file is not None:
        texts += read_prompts(prompt_file)
    if not texts:
        raise UsageError('say what to show, as in: lavie generate "a red circle moving left"')
    if len(prompts) > 1 and all(len(prompt.split()) == 1 for prompt in prompts):
        complain(f"note: {len(prompts)} prompts of one word each; put a prompt of several words in quotes")
    return texts


_OPTIONS = {
    "--num-frames": "video.num_frames",
    "--height": "video.height",
    "--width": "video.width",
    "--fps": "video.fps",
    "--steps": "sampler.num_inference_steps",
    "--guidance-scale": "guidance.scale",
}
"""The place in the spec that each option stands for."""


def _given(video: VideoOptions, sampling: SamplingOptions) -> dict[str, int | float]:
    """Return the options of _OPTIONS that were given."""
    values = (video.num_frames, video.height, video.width, video.fps, sampling.steps, sampling.guidance_scale)
    return {option: value for option, value in zip(_OPTIONS, values, strict=True) if value is not None}


def _overrides(model: ModelOptions, video: VideoOptions, sampling: SamplingOptions) -> list[str]:
    """Turn options into changes of the spec; another sampler keeps the number of steps."""
    overrides = list(model.settings)
    if sampling.sampler is not None:
        from lavie.generation.choice import choose_spec

        before = choose_spec(model.spec, overrides=overrides, weights=model.weights)
        node = {"type": sampling.sampler, "num_inference_steps": before.sampler.num_inference_steps}  # type: ignore[attr-defined]
        overrides.append(f"sampler={json.dumps(node)}")
    return overrides + [f"{_OPTIONS[option]}={value}" for option, value in _given(video, sampling).items()]


@contextmanager
def _naming_options(video: VideoOptions, sampling: SamplingOptions) -> Iterator[None]:
    """Name the option in errors about a place in the spec that the command line has set."""
    names = {_OPTIONS[option]: option for option in _given(video, sampling)}
    names |= {"sampler": "--sampler", "sampler.type": "--sampler"} if sampling.sampler is not None else {}
    sizes = [option for option in names.values() if option in {"--num-frames", "--height", "--width"}]
    names |= {"video": ", ".join(sizes)} if sizes else {}
    names |= {"seed": "--seed", "device": "--device", "dtype": "--dtype"}
    try:
        yield
    except SpecError as error:
        raise SpecError([_renamed(fault, fault.where or error.source, names) for fault in error.faults]) from None


def _renamed(fault: Fault, where: str, names: dict[str, str]) -> Fault:
    path, message = fault.path, fault.message
    if not path and where.startswith("--set "):
        path = where.removeprefix("--set ").partition(":")[0]
    elif not path and message.partition(": ")[0] in names:
        path, _, message = message.partition(": ")
    return Fault("", message, names[path]) if path in names else Fault(fault.path, fault.message, where)


def _load(jobs: Sequence["Job"], model: "Model") -> "Stage | None":
    """Load what is needed, and see that it knows the words of what is missing."""
    missing = [job.request for job in jobs if not job.is_done]
    if not missing:
        return None
    stage = model.load()
    texts = dict.fromkeys(text for request in missing for text in (request.prompt, request.negative_prompt or ""))
    for warning in model.check_prompts(stage, list(texts)):
        complain(f"warning: {warning}")
    return stage


def _note(requests: Sequence["Request"], jobs: Sequence["Job"], model: "Model", outputs: "Outputs") -> None:
    """Say on stderr what may surprise."""
    done, shape = sum(job.is_done for job in jobs), model.shape()
    if any(not request.prompt for request in requests):
        complain("note: an empty prompt asks for any video at all")
    if len(jobs) < len(requests):
        complain(f"note: {len(requests) - len(jobs)} of {len(requests)} videos are asked for twice and made once")
    if done:
        complain(f"note: {done} of {len(jobs)} videos are already there; --overwrite makes them anew")
    trained = model.trained_shape()
    sizes = [f"{each.num_frames} frames of {each.height}×{each.width}" for each in (trained, shape)]
    if sizes[0] != sizes[1]:
        complain(f"note: the weights were made for {sizes[0]}; {sizes[1]} may look worse")
    if min(shape.height, shape.width) * outputs.scale < SMALL:
        complain(f"note: {shape.height}×{shape.width} pixels are small on a screen; --scale 4 writes larger ones")


def _make(
    jobs: Sequence["Job"], model: "Model", stage: "Stage | None", outputs: "Outputs", sheet: "Sheet | None"
) -> int:
    """Make what is missing, and print every path once the file is whole."""
    from lavie.cli.progress import Display
    from lavie.generation.outputs import run

    finished, missing = 0, sum(not job.is_done for job in jobs)
    try:
        with Display(missing, stage.num_steps() if stage else 0) as display:
            for job, video in run(jobs, model, stage, outputs, display.on_step):
                finished += 1
                display.say(str(job.path))
                if sheet is not None:
                    sheet.add(job, video)
        if sheet is not None:
            say(str(sheet.write()))
    except (VideoError, KeyboardInterrupt, SystemExit) as error:
        if isinstance(error, VideoError):
            complain(str(error))
        complain(f"{finished} of {len(jobs)} videos are done; the same command makes the rest")
        if isinstance(error, VideoError):
            return FAILED
        raise
    return DONE
