"""Small models that start from frames: go on from a first one, put frames between, and make larger."""

from pathlib import Path

import torch
from small_cascade import FILES, write_cascade

from lavie.registry import installed
from lavie.specfile import load_spec
from lavie.stages import LatentDiffusionSpec
from lavie.weights.stored import save_stage

FIRST = """
extends: small.yaml
video.num_frames: 6
source: {type: given_frames}
denoiser.conditioners: [{type: concat, name: frames, channels: 5}]
"""
NAMES = ("first", *(name for name in FILES if name != "cascade"))


def given_weights(folder: Path) -> None:
    """Write NAME.yaml and weights of each of NAMES into the folder NAME."""
    write_cascade(folder)
    (folder / "first.yaml").write_text(FIRST)
    for name in NAMES:
        spec = load_spec(str(folder / f"{name}.yaml"), installed(), (), "stage")
        assert isinstance(spec, LatentDiffusionSpec)
        with torch.random.fork_rng():
            torch.manual_seed(0)
            stage = spec.build()
        save_stage(stage.networks(), spec, folder / name)
