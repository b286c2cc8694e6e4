"""`lavie generate`: prompts in, video files out."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter
from cyclopts.validators import Number

from lavie.cli.app import DONE, FAILED, UsageError, Whole, complain, say
from lavie.cli.options import Choices, GivenOptions, ModelOptions, OutputOptions, SamplingOptions, VideoOptions
from lavie.errors import OutOfMemoryError, VideoError
from lavie.generation.prompts import normalise, read_prompts

if TYPE_CHECKING:
    from lavie.generation.model import Model
    from lavie.generation.outputs import Job, Outputs
    from lavie.stages import Given, Request, Stage
    from lavie.video import Picture

SMALL = 128
"""Videos with a shorter side below this, in pixels, look tiny on a screen."""


def generate(
    *prompts: str,
    prompt_file: Path | None = None,
    negative_prompt: str | None = None,
    seed: Annotated[Whole, Parameter(validator=Number(gte=0, lt=2**63))] = 0,
    num_videos: Annotated[Whole, Parameter(validator=Number(gte=1, lte=10_000))] = 1,
    given: GivenOptions = GivenOptions(),
    video: VideoOptions = VideoOptions(),
    sampling: SamplingOptions = SamplingOptions(),
    model: ModelOptions = ModelOptions(),
    output: OutputOptions = OutputOptions(),
) -> int:
    """Make videos from prompts.

    Writes one file per prompt and seed, with a record of what made it inside and beside it, and prints the paths.
    Files that are there already are not made again, so that a long list goes on where it was stopped; a cascade goes on
    behind the last stage that was finished.

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
    texts = _prompts(prompts, prompt_file, is_optional=bool(given.names()))
    negative = None if negative_prompt is None else normalise(negative_prompt, "--negative-prompt")
    choices, published = Choices(model, video, sampling, given), model.files()
    with choices.naming():
        from lavie.blocks.kernels import check_attention, use_attention
        from lavie.generation.choice import check_seed, choose_model
        from lavie.generation.given import Wish, read_given
        from lavie.generation.model import DTYPES
        from lavie.generation.outputs import Outputs, plan
        from lavie.stages import Request

        check_seed(seed + num_videos - 1)
        chosen = choose_model(
            model.spec,
            overrides=choices.overrides(),
            weights=model.weights,
            pretrained=published,
            has_frames=bool(given.names()),
            device=model.device,
            dtype=model.dtype,
        )
        check_attention(model.attention, chosen.device, DTYPES[chosen.dtype])
        frames = read_given(given.files(), chosen, Wish(video.num_frames, video.fps), complain)
        outputs = Outputs(output.output_dir, output.format, output.scale, output.overwrite, output.keep_latents)
        outputs.check(chosen, frames)
        with use_attention(model.attention, chosen.device, DTYPES[chosen.dtype]):
            chosen = _economical(chosen, model, frames)
    requests = [Request(text, negative, seed + i, frames) for text in texts for i in range(num_videos)]
    jobs = plan(requests, chosen, outputs)
    stage = _load(jobs, chosen)
    outputs.prepare()
    _note(requests, jobs, chosen, outputs)
    num_frames = chosen.shape(frames).num_frames
    with use_attention(model.attention, chosen.device, DTYPES[chosen.dtype]):
        return _make(jobs, chosen, stage, outputs, num_frames, has_sheet=output.contact_sheet)


def _economical(model: "Model", options: ModelOptions, given: "Given | None") -> "Model":
    """Return the model with the settings that keep below the limit that was given, if any was."""
    from lavie.generation.fitting import fitted
    from lavie.generation.model import Economy
    from lavie.planning import parse_size

    model = replace(model, economy=Economy(options.in_turn))
    if options.max_memory is not None:
        model = fitted(model, parse_size(options.max_memory), given)
        complain(f"note: {model.economy.told[-1]}")
    return model


def _prompts(prompts: Sequence[str], prompt_file: Path | None, is_optional: bool) -> list[str]:
    texts = [normalise(prompt, f"prompt {number}") for number, prompt in enumerate(prompts, start=1)]
    if prompt_file is not None:
        texts += read_prompts(prompt_file)
    if not texts and not is_optional:
        raise UsageError('say what to show, as in: lavie generate "a red circle moving left"')
    if len(prompts) > 1 and all(len(prompt.split()) == 1 for prompt in prompts):
        complain(f"note: {len(prompts)} prompts of one word each; put a prompt of several words in quotes")
    return texts or [""]


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
    given = requests[0].given
    done, shape = sum(job.is_done for job in jobs), model.shape(given)
    if given is None and any(not request.prompt for request in requests):
        complain("note: an empty prompt asks for any video at all")
    if len(jobs) < len(requests):
        complain(f"note: {len(requests) - len(jobs)} of {len(requests)} videos are asked for twice and made once")
    if done:
        complain(f"note: {done} of {len(jobs)} videos are already there; --overwrite makes them anew")
    first = model.trained_shape(), model.first().shape()
    sizes = [f"{each.num_frames} frames of {each.height}×{each.width}" for each in first]
    if sizes[0] != sizes[1]:
        complain(f"note: the weights were made for {sizes[0]}; {sizes[1]} may look worse")
    if min(shape.height, shape.width) * outputs.scale < SMALL:
        complain(f"note: {shape.height}×{shape.width} pixels are small on a screen; --scale 4 writes larger ones")


def _make(
    jobs: Sequence["Job"],
    model: "Model",
    stage: "Stage | None",
    outputs: "Outputs",
    num_frames: int,
    *,
    has_sheet: bool,
) -> int:
    """Make what is missing, and print every path once the file is whole."""
    from lavie.cli.progress import Display, units_of
    from lavie.generation.outputs import Watch, run
    from lavie.generation.sheet import Sheet

    sheet = Sheet(jobs, outputs.folder, num_frames) if has_sheet else None
    finished, units = 0, {} if stage is None else units_of(stage, num_frames)
    try:
        with Display(sum(not job.is_done for job in jobs), units) as display:

            def on_frame(number: int, picture: "Picture") -> None:
                display.on_frame()
                if sheet is not None:
                    sheet.on_frame(number, picture)

            for job in run(jobs, model, stage, outputs, Watch(display.on_step, on_frame, display.note)):
                finished += 1
                display.say(str(job.path))
                if sheet is not None:
                    sheet.add(job)
        if sheet is not None:
            say(str(sheet.write()))
    except (VideoError, OutOfMemoryError, KeyboardInterrupt, SystemExit) as error:
        return _ended(error, f"{finished} of {len(jobs)} videos are done")
    return DONE


def _ended(error: BaseException, state: str) -> int:
    """Say what has ended a run and how to go on; interrupts end the program too."""
    if isinstance(error, OutOfMemoryError):
        complain(f"{error}\n{state}")
        return FAILED
    if isinstance(error, VideoError):
        complain(str(error))
    complain(f"{state}; the same command makes the rest")
    if isinstance(error, VideoError):
        return FAILED
    raise error
