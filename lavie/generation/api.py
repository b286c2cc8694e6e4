"""From a prompt to a video in one call."""

import logging
from collections.abc import Sequence
from pathlib import Path

from lavie.blocks.kernels import check_attention
from lavie.errors import PromptError, WeightsError
from lavie.generation.choice import Pretrained, check_seed, choose_model
from lavie.generation.fitting import fitted
from lavie.generation.generated import GeneratedVideo
from lavie.generation.given import GivenFiles, read_given
from lavie.generation.memory import check_memory
from lavie.generation.prompts import normalise
from lavie.planning import parse_size
from lavie.stages import Request, StageSpec


def generate(
    prompt: str,
    *,
    negative_prompt: str | None = None,
    seed: int = 0,
    first_frame: str | Path | None = None,
    last_frame: str | Path | None = None,
    video: str | Path | None = None,
    spec: str | Path | StageSpec | None = None,
    overrides: Sequence[str] = (),
    weights: str | Path | None = None,
    pretrained: str | Path | None = None,
    converted: str | Path | None = None,
    device: str = "auto",
    max_memory: str | None = None,
) -> GeneratedVideo:
    """Make a video from a prompt: the same seed, spec and weights give the same video.

    `first_frame` and `last_frame` are pictures, `video` a file or a folder of numbered pictures, for models that start
    from them. `overrides` change the spec, as in `["sampler.num_inference_steps=8", "video.num_frames=32"]`. With
    `max_memory`, such as "6GB", settings are chosen that keep below it.
    `pretrained` is a folder of published files in place of `weights`; what is made of them is kept in `converted`, by
    default a folder `lavie` in it.

    Raises:
        LavieError: the kind of which tells what is wrong: prompt, spec, weights, files, or too little memory.
    """
    if not isinstance(prompt, str):
        raise PromptError(f"prompt: must be text, got {type(prompt).__name__}")
    negative = None if negative_prompt is None else normalise(negative_prompt, "negative prompt")
    if converted is not None and pretrained is None:
        raise WeightsError("converted says where what is made of pretrained goes; name that too")
    files_of = (
        None if pretrained is None else Pretrained(Path(pretrained), None if converted is None else Path(converted))
    )
    files = GivenFiles(*(None if path is None else Path(path) for path in (first_frame, last_frame, video)))
    model = choose_model(
        spec, overrides=overrides, weights=weights, pretrained=files_of, has_frames=bool(files), device=device
    )
    limit = None if max_memory is None else parse_size(max_memory)
    check_attention(None, model.device)
    logger = logging.getLogger(__name__)
    given = read_given(files, model, on_note=logger.warning)
    check_memory(model.spec, None if given is None else given.shape)
    if limit is not None:
        model = fitted(model, limit, given)
    request = Request(normalise(prompt), negative, check_seed(seed), given)
    stage = model.load()
    for warning in model.check_prompts(stage, [request.prompt, request.negative_prompt or ""]):
        logger.warning(warning)
    return model.make(stage, request, on_note=logger.warning)


__all__ = ["generate"]
