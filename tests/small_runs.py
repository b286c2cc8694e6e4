"""A stage so small that it runs in milliseconds, in which every frame and pixel changes all others."""

from pathlib import Path

import torch
from small_model import small_spec
from torch import Tensor

from lavie.stages import LatentDiffusion, Request, Run

ATTENTION = "denoiser.transformer.temporal={type: attention, position: {type: rope, dim: 4}}"
GIVEN = (
    "source=given_frames",
    "denoiser.conditioners=[{type: concat, name: frames, channels: 5}]",
)
"""Makes it a stage that takes given frames."""


def small_stage(folder: Path, *overrides: str) -> LatentDiffusion:
    """Build the stage; what begins at zero is drawn anew, so that no layer is idle."""
    spec = small_spec(folder, ATTENTION, "denoiser.transformer.num_heads=2", *overrides)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        stage = spec.build().eval()
        for parameter in stage.parameters():
            if not parameter.any():
                torch.nn.init.normal_(parameter, std=0.3)
    return stage


def run_of(stage: LatentDiffusion, num_frames: int = 8, side: int = 16, prompt: str = "a red circle") -> Run:
    """Return a run of one request, of another size than the stage's own if asked."""
    shape = stage.spec.video.model_copy(update={"num_frames": num_frames, "height": side, "width": side})
    return Run(stage, [Request(prompt, seed=3)], shape)


@torch.inference_mode()
def latent_of(stage: LatentDiffusion, *requests: Request) -> Tensor:
    """Return the latents that a stage makes."""
    return stage.generate(requests or [Request("a red circle", seed=3)]).latent
