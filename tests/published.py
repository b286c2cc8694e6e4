"""Published weight files in small: every layout, from a spec so small that its networks take kilobytes."""

import json
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from lavie.errors import WeightsError
from lavie.registry import installed
from lavie.specfile import load_spec
from lavie.stages import LatentDiffusionSpec
from lavie.weights import unpickling
from lavie.weights.configs import config_of
from lavie.weights.layouts import layout_for
from lavie.weights.pickled import Unpickled
from lavie.weights.source import Part

SPEC = """
type: latent_diffusion
video: {num_frames: 2, height: 8, width: 8, fps: 8}
text_encoder:
  type: clip
  width: 8
  num_layers: 2
  num_heads: 2
  max_tokens: 8
  tokenizer: {type: words, vocabulary: [a, red, blue, circle]}
autoencoder: {type: kl, channels: [8, 16], num_res_blocks: 1, latent_channels: 4, norm_groups: 4, attention: true}
schedule: {type: linear}
sampler: {type: ddim, num_inference_steps: 2}
guidance: {type: cfg, scale: 2.0}
denoiser:
  type: unet
  channels: [16, 32]
  attention: {levels: [true, false], mid: true}
  num_res_blocks: 1
  context_dim: 8
  norm: {groups: 4, eps: 1.0e-5}
  transformer:
    num_heads: 2
    temporal: {type: attention, position: {type: rope, dim: 4}, bias: relative}
"""
IMAGE = "denoiser.transformer.temporal=none"
"""Override that makes the denoiser an image network."""
FILES: dict[str, Part] = {
    "unet/diffusion_pytorch_model": "denoiser",
    "vae/diffusion_pytorch_model": "autoencoder",
    "text_encoder/model": "text_encoder",
}
LDM: dict[str, tuple[Part, str]] = {
    "model.diffusion_model.": ("denoiser", "ldm"),
    "first_stage_model.": ("autoencoder", "ldm"),
    "cond_stage_model.transformer.": ("text_encoder", "transformers"),
}


def write_spec(folder: Path) -> Path:
    """Write the small spec and return its path."""
    path = folder / "small.yaml"
    path.write_text(SPEC)
    return path


def small_spec(folder: Path, *overrides: str) -> LatentDiffusionSpec:
    """Load the small spec."""
    spec = load_spec(str(write_spec(folder)), installed(), overrides, "stage")
    assert isinstance(spec, LatentDiffusionSpec)
    return spec


def states(spec: LatentDiffusionSpec, seed: int = 0) -> dict[Part, dict[str, Tensor]]:
    """Return weights of every part under our names, every number drawn at random, zeros included."""
    parts: dict[Part, dict[str, Tensor]] = {}
    for part in FILES.values():
        generator = torch.Generator().manual_seed(seed)
        state = getattr(spec, part).build().state_dict()
        parts[part] = {key: torch.randn(value.shape, generator=generator) for key, value in state.items()}
    return parts


def official(spec: LatentDiffusionSpec, part: Part, layout: str, seed: int = 0) -> dict[str, Tensor]:
    """Return the weights of one part as a published file has them."""
    return layout_for(part, layout, getattr(spec, part)).write(states(spec, seed)[part])


def write_diffusers(folder: Path, spec: LatentDiffusionSpec, layouts: Mapping[Part, str] | None = None) -> Path:
    """Write a folder as diffusers has it."""
    chosen = {"denoiser": "official", "autoencoder": "diffusers_old", "text_encoder": "transformers", **(layouts or {})}
    for name, part in FILES.items():
        path = folder / f"{name}.safetensors"
        path.parent.mkdir(parents=True)
        save_file(official(spec, part, chosen[part]), path)
        (path.parent / "config.json").write_text(json.dumps(config_of(part, getattr(spec, part))))
    return folder


def single_file(spec: LatentDiffusionSpec) -> dict[str, Tensor]:
    """Return all parts as a single file of the latent-diffusion code has them, with what else is in such files."""
    tensors = {
        prefix + key: tensor
        for prefix, (part, layout) in LDM.items()
        for key, tensor in official(spec, part, layout).items()
    }
    tables = ("betas", "alphas_cumprod", "sqrt_one_minus_alphas_cumprod", "posterior_mean_coef1", "logvar")
    extra = {"model_ema.decay": torch.tensor(0.99), "model_ema.diffusion_modelout0weight": torch.ones(2)}
    return tensors | extra | {name: torch.ones(4) for name in tables}


@contextmanager
def unpickled_here(path: Path) -> Iterator[Unpickled]:
    """Do what `unpickled` does without another process and without limits: faster, for files that we made."""
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder, "tensors.safetensors")
        try:
            found = unpickling.read(path, output, lambda spare: None)
        except unpickling.Refused as error:
            raise WeightsError(f"{path} cannot be read: {error}") from None
        yield Unpickled(output, found["container"], found["left_over"])


def names_here(path: Path) -> dict[str, Any]:
    """Do what `names_in` does without another process."""
    try:
        return unpickling.read(path, None, lambda spare: None)
    except unpickling.Refused as error:
        raise WeightsError(f"{path} cannot be read: {error}") from None


def same_bits(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> bool:
    """Tell whether two files hold the same tensors: names, dtypes, shapes and bits."""
    return one.keys() == other.keys() and all(
        one[key].dtype == other[key].dtype and one[key].shape == other[key].shape and torch.equal(one[key], other[key])
        for key in one
    )
