"""A cascade so small that it runs in milliseconds: 3 frames of 16×16, then 9 frames, then 64×64 pixels."""

from copy import deepcopy
from pathlib import Path
from typing import Any

import torch
from small_model import SPEC, small_registry

from lavie.document import parse
from lavie.specfile import change_spec
from lavie.stages import Cascade, CascadeSpec, LatentDiffusion, LatentDiffusionSpec, Stage
from lavie.weights.stored import save_stage

Data = dict[str, Any]
BASE: Data = parse(SPEC, "small").data


def changed(**changes: Any) -> Data:
    """Return the small base stage with other values; those of the denoiser's fields begin with `denoiser_`."""
    data = deepcopy(BASE)
    for name, value in changes.items():
        owner, _, field = name.partition("denoiser_")
        (data if owner else data["denoiser"])[field or name] = value
    return data


INTERPOLATION = changed(
    video={"num_frames": 9, "height": 16, "width": 16, "fps": 24},
    source={"type": "given_frames", "every": 4, "fill": "nearest", "mask": False, "patterns": ["all"]},
    prompt={"suffix": ", blue", "negative": "None"},
    denoiser_conditioners=[{"type": "concat", "name": "frames", "channels": 4}],
)
UPSCALING = changed(
    video={"num_frames": 3, "height": 64, "width": 64, "fps": 8},
    autoencoder={**BASE["autoencoder"], "channels": [8, 8, 8]},
    source={"type": "low_res", "schedule": "scaled_linear"},
    denoiser_conditioners=[{"type": "concat", "name": "low_res", "channels": 3}, {"type": "noise_level"}],
)
CASCADE: Data = {"type": "cascade", "base": BASE, "interpolation": INTERPOLATION, "upscaling": UPSCALING}


def small_cascade_spec(*overrides: str) -> CascadeSpec:
    """Load the small cascade."""
    spec = small_registry().load(CascadeSpec, CASCADE)
    spec = change_spec(spec, overrides, small_registry()) if overrides else spec
    assert isinstance(spec, CascadeSpec)
    return spec


def small_part_spec(data: Data, *overrides: str) -> LatentDiffusionSpec:
    """Load one stage of it."""
    spec = small_registry().load(LatentDiffusionSpec, data)
    spec = change_spec(spec, overrides, small_registry()) if overrides else spec
    assert isinstance(spec, LatentDiffusionSpec)
    return spec


def built(spec: CascadeSpec | LatentDiffusionSpec) -> Stage:
    """Build a stage; what begins at zero is drawn anew, so that no layer is idle."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        stage = spec.build().eval()
        for parameter in stage.parameters():
            if not parameter.any():
                torch.nn.init.normal_(parameter, std=0.3)
    return stage


def small_cascade(*overrides: str) -> Cascade:
    """Build the small cascade; base stage and interpolation have the same autoencoder, as in LaVie."""
    cascade = built(small_cascade_spec(*overrides))
    assert isinstance(cascade, Cascade)
    base, interpolation = part_of(cascade, "base"), cascade.parts().get("interpolation")
    if isinstance(interpolation, LatentDiffusion):
        interpolation.autoencoder.load_state_dict(base.autoencoder.state_dict())
    return cascade


def small_part(data: Data, *overrides: str) -> LatentDiffusion:
    """Build one stage of it."""
    stage = built(small_part_spec(data, *overrides))
    assert isinstance(stage, LatentDiffusion)
    return stage


def part_of(cascade: Cascade, name: str) -> LatentDiffusion:
    """Return one stage of a cascade."""
    part = cascade.parts()[name]
    assert isinstance(part, LatentDiffusion)
    return part


def save_cascade(cascade: Cascade, folder: Path) -> Path:
    """Write one folder of weights per stage, and return their parent."""
    for name in cascade.parts():
        part = part_of(cascade, name)
        save_stage(part.networks(), part.spec, folder / name)
    return folder
