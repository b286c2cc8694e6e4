"""What is measured: the networks of a setting with seeded weights, and their inputs."""

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.settings import Setting
from lavie import Registry, dump, load_spec
from lavie.blocks.autoencoder import Autoencoder, AutoencoderSpec
from lavie.blocks.base import Conditioning, Denoiser, DenoiserSpec, TemporalLayer
from lavie.stages.latent_diffusion import LatentDiffusionSpec

PUBLISHED = "attention+rope+bias"
"""Label of the temporal layer of the shipped spec `base`; no component can be called so."""


@dataclass(frozen=True)
class Inputs:
    """What a denoiser is called with."""

    noisy: Tensor
    timestep: Tensor
    cond: Conditioning

    def to(self, device: torch.device, dtype: torch.dtype) -> "Inputs":
        """Return the inputs on a device in a dtype; the timestep stays float32."""
        cond = Conditioning(self.cond.context.to(device, dtype))
        return Inputs(self.noisy.to(device, dtype), self.timestep.to(device), cond)


@functools.cache
def base(registry: Registry) -> LatentDiffusionSpec:
    """Return the shipped spec of LaVie's base stage."""
    spec = load_spec("base", registry)
    assert isinstance(spec, LatentDiffusionSpec)
    return spec


def temporal_layers(registry: Registry) -> dict[str, Any]:
    """Return every registered temporal layer with its defaults, and the published one with its options."""
    layers: dict[str, Any] = {name: {"type": name} for name in registry.components("temporal")}
    return layers | {PUBLISHED: dump(base(registry).denoiser)["transformer"]["temporal"]}


def denoiser_spec(setting: Setting, temporal: Mapping[str, Any], registry: Registry) -> DenoiserSpec:
    """Return LaVie's base network in the widths of a setting, with a temporal layer of choice in its transformers.

    Raises:
        SpecError: if the layer does not load with these options alone.
    """
    data = dump(base(registry).denoiser)
    num_levels = len(setting.widths.channels)
    data["channels"] = list(setting.widths.channels)
    data["attention"] = {"levels": [True] * (num_levels - 1) + [False], "mid": True}
    data["num_res_blocks"] = setting.widths.num_res_blocks
    data["context_dim"] = setting.text.dim
    data["transformer"]["num_heads"] = list(setting.widths.num_heads)
    data["transformer"]["temporal"] = dict(temporal)
    return registry.load(DenoiserSpec, data)  # type: ignore[type-abstract]


def build_denoiser(spec: DenoiserSpec) -> Denoiser:
    """Build a network on the CPU in float32 with seeded weights, its zero parameters included."""
    torch.manual_seed(0)
    network = spec.build().eval().requires_grad_(False)
    awaken(network)
    return network


def awaken(network: nn.Module) -> None:
    """Draw the zero parameters of temporal layers anew: at their zeros an implementation could skip the layer."""
    generator = torch.Generator("cpu").manual_seed(1)
    for layer in network.modules():
        for parameter in layer.parameters() if isinstance(layer, TemporalLayer) else ():
            if not parameter.any():
                spread = parameter[0].numel() ** -0.5 if parameter.ndim > 1 else 0.1
                parameter.data.copy_(torch.randn(parameter.shape, generator=generator) * spread)


def build_autoencoder(setting: Setting, registry: Registry, decode_chunk: int) -> Autoencoder:
    """Build the autoencoder of a setting with seeded weights, decoding so many frames at once."""
    channels = setting.decoding.channels
    data = dump(base(registry).autoencoder)
    data |= {"channels": list(channels), "norm_groups": min(32, channels[0]), "decode_chunk": decode_chunk}
    torch.manual_seed(0)
    spec = registry.load(AutoencoderSpec, data)  # type: ignore[type-abstract]
    return spec.build().eval().requires_grad_(False)


def inputs(setting: Setting) -> Inputs:
    """Return seeded inputs on the CPU in float32."""
    generator = torch.Generator("cpu").manual_seed(2)
    noisy = torch.randn(setting.latent.of(4), generator=generator)
    context = torch.randn(1, setting.text.num_tokens, setting.text.dim, generator=generator)
    return Inputs(noisy, torch.full((1,), 500.0), Conditioning(context))
