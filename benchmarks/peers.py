"""Other people's video UNets in the sizes of a setting, each behind the same adapter; none is needed to run."""

import importlib
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from benchmarks.settings import Setting
from benchmarks.subjects import Inputs
from lavie.blocks.base import Denoiser
from lavie.blocks.unet import UNetSpec
from lavie.weights.unet import map_for

OFFICIAL = "LAVIE_OFFICIAL"
"""Environment variable with the folder of a checkout of the official code, whose requirements are installed."""


@dataclass(frozen=True)
class Peer:
    """A network of somebody else's and how to call it."""

    network: nn.Module
    call: Callable[[nn.Module, Inputs], Tensor]
    has_our_weights: bool
    """Whether it must give the same answer as ours."""

    def run(self, given: Inputs) -> Tensor:
        """Return its prediction."""
        return self.call(self.network, given)


def block_types(setting: Setting, plain: str, attending: str) -> dict[str, Any]:
    """Return the names that diffusers configurations give to the blocks, e.g. `DownBlock3D`."""
    count = len(setting.widths.channels) - 1
    return {
        "down_block_types": (attending.format("Down"),) * count + (plain.format("Down"),),
        "up_block_types": (plain.format("Up"),) + (attending.format("Up"),) * count,
    }


def sizes(setting: Setting) -> dict[str, Any]:
    """Return the fields that all configurations share."""
    return {
        "block_out_channels": setting.widths.channels,
        "layers_per_block": setting.widths.num_res_blocks,
        "cross_attention_dim": setting.text.dim,
        "norm_num_groups": 32,
    }


def _call_diffusers(network: nn.Module, given: Inputs) -> Tensor:
    return network(given.noisy, given.timestep, encoder_hidden_states=given.cond.context).sample


def _call_motion(network: nn.Module, given: Inputs) -> Tensor:
    """Repeat the text for every frame, as that network's own pipeline does."""
    context = given.cond.context.repeat_interleave(given.noisy.shape[2], dim=0)
    return network(given.noisy, given.timestep, encoder_hidden_states=context).sample


def official(setting: Setting, ours: Denoiser, spec: UNetSpec) -> Peer:
    """Return the official base network with the weights of ours."""
    if not (checkout := os.environ.get(OFFICIAL)):
        pytest.skip(f"{OFFICIAL} does not name a checkout of the official code")
    sys.path.insert(0, str(Path(checkout) / "base"))
    try:
        module = importlib.import_module("models.unet")
    except Exception as error:
        pytest.skip(f"the official code in {checkout} cannot be imported: {type(error).__name__}: {error}")
    finally:
        sys.path.pop(0)
    blocks = block_types(setting, "{}Block3D", "CrossAttn{}Block3D")
    network = module.UNet3DConditionModel(**sizes(setting), **blocks, attention_head_dim=setting.widths.num_heads)
    network.load_state_dict(map_for(spec).convert_to_official(ours.state_dict()))
    return Peer(network.eval(), _call_diffusers, has_our_weights=True)


def diffusers_unet3d(setting: Setting, ours: Denoiser, spec: UNetSpec) -> Peer:
    """Return diffusers' text-to-video UNet: temporal convolutions and temporal transformers."""
    diffusers = pytest.importorskip("diffusers", reason="diffusers is not installed")
    blocks = block_types(setting, "{}Block3D", "CrossAttn{}Block3D")
    head_dim = setting.widths.channels[0] // setting.widths.num_heads[0]
    torch.manual_seed(0)
    network = diffusers.UNet3DConditionModel(**sizes(setting), **blocks, attention_head_dim=head_dim)
    return Peer(network.eval(), _call_diffusers, has_our_weights=False)


def diffusers_motion(setting: Setting, ours: Denoiser, spec: UNetSpec) -> Peer:
    """Return diffusers' UNet with motion modules: a temporal transformer after every layer."""
    diffusers = pytest.importorskip("diffusers", reason="diffusers is not installed")
    blocks = block_types(setting, "{}BlockMotion", "CrossAttn{}BlockMotion")
    heads = setting.widths.num_heads
    torch.manual_seed(0)
    network = diffusers.UNetMotionModel(
        **sizes(setting), **blocks, num_attention_heads=heads, motion_num_attention_heads=heads
    )
    return Peer(network.eval(), _call_motion, has_our_weights=False)


PEERS = {"official": official, "diffusers UNet3D": diffusers_unet3d, "diffusers Motion": diffusers_motion}
