"""From a prompt to a video in one call."""

import logging
from collections.abc import Sequence
from pathlib import Path

from lavie.errors import PromptError
from lavie.generation.choice import check_seed, choose_model
from lavie.generation.model import GeneratedVideo
from lavie.generation.prompts import normalise
from lavie.stages import Request, StageSpec


def generate(
    prompt: str,
    *,
    negative_prompt: str | None = None,
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
    negative = None if negative_prompt is None else normalise(negative_prompt, "negative prompt")
    request = Request(normalise(prompt), negative, check_seed(seed))
    model = choose_model(spec, overrides=overrides, weights=weights, device=device)
    stage = model.load()
    for warning in model.check_prompts(stage, [request.prompt, request.negative_prompt or ""]):
        logging.getLogger(__name__).warning(warning)
    return model.make(stage, request)


__all__ = ["generate"]
