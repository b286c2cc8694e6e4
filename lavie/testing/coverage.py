"""What coverages promise, tried on a stage of a few thousand parameters."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

import lavie.builtin
from lavie.blocks.base import Site
from lavie.errors import SpecError
from lavie.registry import Registry
from lavie.stages.base import Request
from lavie.stages.coverage import Coverage, CoverageSpec
from lavie.stages.latent_diffusion import LatentDiffusion, LatentDiffusionSpec
from lavie.stages.run import Run
from lavie.testing.expect import expect, seeded

_STAGE: dict[str, Any] = {
    "video": {"height": 16, "width": 16},
    "text_encoder": {
        "type": "clip",
        **{"width": 8, "num_layers": 1, "num_heads": 1, "max_tokens": 4},
        "tokenizer": {"type": "words", "vocabulary": ["a"]},
    },
    "autoencoder": {"type": "kl", "channels": [4, 4], "num_res_blocks": 1, "norm_groups": 2, "attention": False},
    "schedule": "flow",
    "prediction_type": "flow",
    "sampler": {"type": "euler", "num_inference_steps": 2},
    "guidance": "none",
    "denoiser": {
        "type": "unet",
        **{"channels": [4], "num_res_blocks": 1, "context_dim": 8, "norm": {"groups": 2}},
        "attention": False,
    },
}
_WITH_FRAMES: dict[str, Any] = {
    "source": "given_frames",
    "denoiser": {**_STAGE["denoiser"], "conditioners": [{"type": "concat", "name": "frames", "channels": 5}]},
}


def check_coverage(spec: CoverageSpec, site: Site, inputs: Mapping[str, Tensor]) -> None:
    """Make videos of one frame and of many, repeat itself exactly, and report as many steps as announced."""
    stage = _stage(spec)
    expect(isinstance(stage.coverage, Coverage), spec, f"builds {type(stage.coverage).__name__}, which is no Coverage")
    for num_frames in (1, 40):
        latent, steps = _make(stage, num_frames)
        due = stage.coverage.num_steps(num_frames)
        expect(steps == due, spec, f"reports {steps} steps for {num_frames} frames and announces {due}")
        shape = (2, 4, num_frames, 8, 8)
        expect(latent.shape == shape, spec, f"makes latents of shape {tuple(latent.shape)} where {shape} is due")
        expect(bool(torch.isfinite(latent).all()), spec, "makes latents that are not finite")
        same = torch.equal(latent, _make(stage, num_frames)[0])
        expect(same, spec, "does not repeat itself, though noise is only to come from the run")


def _stage(spec: CoverageSpec) -> LatentDiffusion:
    """Build a stage for the coverage: from text alone, or else one that takes given frames."""
    registry, refusals = Registry(lavie.builtin), []
    for more in ({}, _WITH_FRAMES):
        stage = registry.load(LatentDiffusionSpec, {"type": "latent_diffusion", **_STAGE, **more})
        try:
            with seeded():
                return stage.model_copy(update={"coverage": spec}).build().eval()
        except SpecError as error:
            refusals.append(str(error))
    raise AssertionError(f"{type(spec).__name__} accepts no stage: {'; '.join(refusals)}")


@torch.inference_mode()
def _make(stage: LatentDiffusion, num_frames: int) -> tuple[Tensor, int]:
    shape, steps = stage.spec.video.model_copy(update={"num_frames": num_frames}), []
    run = Run(stage, [Request("a", seed=1), Request("a", seed=2)], shape, lambda name, step: steps.append(step))
    return stage.coverage.latent(run), len(steps)
