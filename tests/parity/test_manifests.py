"""Names and shapes of the full-size networks against those of the official ones, in both directions."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from lavie.blocks.unet import UNetSpec
from lavie.registry import installed
from lavie.specfile import load_spec
from lavie.stages import LatentDiffusionSpec
from lavie.weights.unet import map_for, spec_from_config

pytestmark = pytest.mark.parity
MANIFESTS = Path(__file__).parents[1] / "golden" / "manifests"
SD1: dict[str, Any] = {
    "block_out_channels": [320, 640, 1280, 1280],
    "cross_attention_dim": 768,
    "down_block_types": ["CrossAttnDownBlock3D"] * 3 + ["DownBlock3D"],
    "up_block_types": ["UpBlock3D"] + ["CrossAttnUpBlock3D"] * 3,
}
X4: dict[str, Any] = {
    "in_channels": 7,
    "block_out_channels": [256, 512, 512, 1024],
    "cross_attention_dim": 1024,
    "use_linear_projection": True,
    "num_class_embeds": 1000,
    "only_cross_attention": [True, True, True, False],
    "down_block_types": ["DownBlock3D"] + ["CrossAttnDownBlock3D"] * 3,
    "up_block_types": ["CrossAttnUpBlock3D"] * 3 + ["UpBlock3D"],
}


def base() -> UNetSpec:
    stage = load_spec("base", installed(), kind="stage")
    assert isinstance(stage, LatentDiffusionSpec)
    assert isinstance(stage.denoiser, UNetSpec)
    return stage.denoiser


NETWORKS = {
    "base": base,
    "interpolation": lambda: spec_from_config({**SD1, "in_channels": 8, "use_first_frame": True}, "interpolation"),
    "vsr": lambda: spec_from_config(X4, "upscaling"),
    "sd14_unet": lambda: spec_from_config(SD1, "image"),
    "x4_unet": lambda: spec_from_config(X4, "image"),
}
FIXED = "rotary_emb.freqs"
"""Entries that are not learned."""


@pytest.mark.parametrize("name", NETWORKS)
def test_names_and_shapes_are_exactly_those_of_the_official_network(name):
    manifest = json.loads((MANIFESTS / f"{name}.json").read_text())
    spec = NETWORKS[name]()
    with torch.device("meta"):
        network = spec.build()
        file = {key: torch.empty(shape) for key, (shape, _) in manifest.items()}
    written = map_for(spec).convert_to_official(network.state_dict())
    assert {key: list(value.shape) for key, value in written.items()} == {key: row[0] for key, row in manifest.items()}
    map_for(spec).load(network, file, assign=True)
    learned = sum(value.numel() for key, value in file.items() if not key.endswith(FIXED))
    assert sum(parameter.numel() for parameter in network.parameters()) == learned


def test_the_base_network_has_as_many_parameters_as_the_official_one():
    with torch.device("meta"):
        network = base().build()
    assert sum(parameter.numel() for parameter in network.parameters()) == 909_124_100


def test_the_base_spec_says_what_the_official_configuration_says():
    assert base() == spec_from_config(SD1, "base")
