"""A folder of published files in small, as somebody has it after downloading, and the weights that are in it."""

import json
from collections.abc import Mapping
from pathlib import Path

import torch
from published import write_spec
from safetensors.torch import save_file
from torch import Tensor

from lavie.registry import installed
from lavie.specfile import load_spec
from lavie.stages import CascadeSpec, LatentDiffusion
from lavie.weights.configs import config_of
from lavie.weights.layouts import layout_for
from lavie.weights.source import Part
from lavie.weights.stored import save_stage

BASE = """
extends: small.yaml
text_encoder.num_layers: 1
autoencoder.channels: [8]
autoencoder.attention: false
denoiser.channels: [8]
denoiser.attention: true
"""
BETWEEN = """
extends: one.yaml
video: {num_frames: 3, height: 8, width: 8, fps: 24}
source: {type: given_frames, every: 2, fill: nearest, mask: false}
denoiser.conditioners: [{type: concat, name: frames, channels: 4}]
"""
LARGER = """
extends: one.yaml
video: {num_frames: 3, height: 16, width: 16, fps: 8}
source: {type: low_res, factor: 2, noise_level: 20, schedule: linear}
text_encoder.num_layers: 2
autoencoder.channels: [8, 8]
denoiser.conditioners: [{type: concat, name: low_res, channels: 3}, noise_level]
denoiser.after_level: {type: spatiotemporal_conv, norm_groups: 4}
"""
CASCADE = """
type: cascade
base: {extends: one.yaml}
interpolation: {extends: between.yaml}
upscaling: {extends: larger.yaml}
"""
SPECS = {"one": BASE, "between": BETWEEN, "larger": LARGER, "cascade": CASCADE}
FILES: Mapping[str, tuple[str, Part, str]] = {
    "lavie_base.pt": ("base", "denoiser", "official"),
    "lavie_interpolation.pt": ("interpolation", "denoiser", "official"),
    "more/lavie_vsr.pt": ("upscaling", "denoiser", "official"),
    "sd/vae/diffusion_pytorch_model.safetensors": ("base", "autoencoder", "diffusers_old"),
    "sd/text_encoder/pytorch_model.bin": ("base", "text_encoder", "transformers"),
    "x4/vae/diffusion_pytorch_model.bin": ("upscaling", "autoencoder", "diffusers"),
    "x4/text_encoder/model.safetensors": ("upscaling", "text_encoder", "transformers_bare"),
}
"""Where each network of the cascade lies, of which stage it is, and how it is spelt."""
WRAPPED = {
    "lavie_base.pt": ("ema", "module."),
    "lavie_interpolation.pt": ("model", ""),
    "more/lavie_vsr.pt": ("state_dict", ""),
}


def small_cascade(folder: Path, *overrides: str) -> CascadeSpec:
    """Write the spec files and load the cascade; its first two stages share all but the denoiser."""
    write_spec(folder)
    for name, text in SPECS.items():
        (folder / f"{name}.yaml").write_text(text)
    spec = load_spec(str(folder / "cascade.yaml"), installed(), overrides, "stage")
    assert isinstance(spec, CascadeSpec)
    return spec


def networks(spec: CascadeSpec) -> dict[str, LatentDiffusion]:
    """Build the stages with weights of which none is zero or the same by chance."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        stages = {name: part.build() for name, part in spec.parts().items()}
        for stage in stages.values():
            for value in stage.state_dict().values():
                value += 0.02 * torch.randn(value.shape)
    base, interpolation = stages["base"], stages["interpolation"]
    assert isinstance(base, LatentDiffusion)
    assert isinstance(interpolation, LatentDiffusion)
    interpolation.autoencoder, interpolation.text_encoder = base.autoencoder, base.text_encoder
    return {name: stage for name, stage in stages.items() if isinstance(stage, LatentDiffusion)}


def write_file(path: Path, tensors: dict[str, Tensor], container: str = "", prefix: str = "") -> None:
    """Write one file, as its suffix says."""
    path.parent.mkdir(parents=True, exist_ok=True)
    tensors = {
        prefix + key: tensor.detach().clone(memory_format=torch.contiguous_format) for key, tensor in tensors.items()
    }
    if path.suffix == ".safetensors":
        save_file(tensors, path)
    else:
        torch.save({container: tensors, "step": 7} if container else tensors, path)


def write_published(folder: Path, spec: CascadeSpec) -> dict[str, LatentDiffusion]:
    """Write the published files of a cascade, with configurations where there are any; return what is in them."""
    stages = networks(spec)
    for name, (stage, part, layout) in FILES.items():
        part_spec = getattr(spec.parts()[stage], part)
        tensors = layout_for(part, layout, part_spec).write(stages[stage].networks()[part].state_dict())
        write_file(folder / name, tensors, *WRAPPED.get(name, ()))
        if part != "denoiser":
            (folder / name).with_name("config.json").write_text(json.dumps(config_of(part, part_spec)))
    return stages


def save_all(stages: Mapping[str, LatentDiffusion], spec: CascadeSpec, folder: Path) -> Path:
    """Write the same weights as folders of lavie."""
    for name, stage in stages.items():
        save_stage(stage.networks(), spec.parts()[name], folder / name)
    return folder
