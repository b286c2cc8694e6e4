"""A cascade so small that it makes a video in a fraction of a second: base, interpolation and super-resolution."""

from pathlib import Path

import torch
from small_model import SPEC

from lavie.registry import installed
from lavie.specfile import load_spec
from lavie.stages import CascadeSpec, LatentDiffusion
from lavie.weights.stored import save_stage

CASCADE = """
type: cascade
base: {extends: small.yaml}
interpolation: {extends: between.yaml}
upscaling: {extends: larger.yaml}
"""
BETWEEN = """
extends: small.yaml
video.num_frames: 5
source: {type: given_frames, every: 2, fill: nearest, mask: false}
denoiser.conditioners: [{type: concat, name: frames, channels: 4}]
"""
LARGER = """
extends: small.yaml
video: {num_frames: 3, height: 32, width: 32, fps: 8}
source: {type: low_res, factor: 2, noise_level: 20, schedule: linear}
denoiser.conditioners: [{type: concat, name: low_res, channels: 3}, noise_level]
"""
FILES = {"small": SPEC, "between": BETWEEN, "larger": LARGER, "cascade": CASCADE}


def write_cascade(folder: Path) -> Path:
    """Write the spec files and return the path of the cascade's."""
    for name, text in FILES.items():
        (folder / f"{name}.yaml").write_text(text)
    return folder / "cascade.yaml"


def small_cascade(folder: Path, *overrides: str) -> CascadeSpec:
    """Load the cascade's spec."""
    spec = load_spec(str(write_cascade(folder)), installed(), overrides, "stage")
    assert isinstance(spec, CascadeSpec)
    return spec


def cascade_weights(folder: Path, *overrides: str) -> Path:
    """Write a folder of weights for every stage; text encoders and autoencoders of the first two are the same."""
    spec = small_cascade(folder, *overrides)
    for number, (name, part) in enumerate(spec.parts().items()):
        with torch.random.fork_rng():
            torch.manual_seed(number)
            stage = part.build()
            torch.manual_seed(max(number, 1))
            other = part.build()
        assert isinstance(stage, LatentDiffusion)
        assert isinstance(other, LatentDiffusion)
        modules = {**other.networks(), "denoiser": stage.denoiser}
        save_stage(modules, part, folder / "weights" / name)
    return folder / "weights"
