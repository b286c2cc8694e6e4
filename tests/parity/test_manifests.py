"""Names and shapes of the shipped specs' networks against those of the official ones, in both directions."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from lavie.blocks.unet import UNetSpec
from lavie.spec import PerLevel, Spec
from lavie.specfile import load_spec
from lavie.stages import LatentDiffusionSpec, StageSpec
from lavie.weights.clip import clip_map
from lavie.weights.keymap import KeyMap
from lavie.weights.kl import kl_map
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
CONFIGS: dict[str, Spec] = {
    "base": spec_from_config(SD1, "base"),
    "interpolation": spec_from_config({**SD1, "in_channels": 8, "use_first_frame": True}, "interpolation"),
    "upscaling": spec_from_config(X4, "upscaling"),
}
"""What the official configurations say."""
DENOISERS = {"base": "base", "interpolation": "interpolation", "upscaling": "vsr"}
AUTOENCODERS = {"base": "vae_sd14", "interpolation": "vae_sd14", "upscaling": "vae_x4"}
TEXT_ENCODERS = {"base": "clip_l14_text", "interpolation": "clip_l14_text", "upscaling": "clip_h14_text"}
IMAGE_NETWORKS = {"sd14_unet": SD1, "x4_unet": X4}
COUNTS = {"base": 909_124_100, "interpolation": 909_131_524, "upscaling": 691_036_420}
"""Learned parameters of the denoisers."""
FIXED = ("rotary_emb.freqs", "position_ids")
"""What names of entries that are not learned end with."""
each_stage = pytest.mark.parametrize("stage", DENOISERS)


def stage_spec(name: str) -> LatentDiffusionSpec:
    spec = load_spec(name)
    assert isinstance(spec, LatentDiffusionSpec)
    return spec


def check(spec: Spec, key_map: KeyMap, manifest: str) -> int:
    """Write a network's names and shapes, compare them, load a file that has the listed ones; count what is learned."""
    listed = json.loads((MANIFESTS / f"{manifest}.json").read_text())
    with torch.device("meta"):
        network = spec.build()  # type: ignore[attr-defined]
        file = {key: torch.empty(shape, dtype=getattr(torch, dtype)) for key, (shape, dtype) in listed.items()}
    written = key_map.convert_to_official(network.state_dict())
    assert {key: list(value.shape) for key, value in written.items()} == {key: row[0] for key, row in listed.items()}
    key_map.load(network, file, assign=True)
    learned = sum(parameter.numel() for parameter in network.parameters())
    assert learned == sum(value.numel() for key, value in file.items() if not key.endswith(FIXED))
    return learned


@each_stage
def test_denoisers_have_exactly_the_names_and_shapes_of_the_official_ones(stage):
    spec = stage_spec(stage).denoiser
    assert isinstance(spec, UNetSpec)
    assert check(spec, map_for(spec), DENOISERS[stage]) == COUNTS[stage]


@pytest.mark.parametrize("legacy", [False, True])
@each_stage
def test_autoencoders_have_exactly_the_names_and_shapes_of_the_published_ones(stage, legacy):
    name = AUTOENCODERS[stage] + ("_legacy_names" if legacy else "")
    check(stage_spec(stage).autoencoder, kl_map(legacy=legacy), name)


@each_stage
def test_text_encoders_have_exactly_the_names_and_shapes_of_the_published_ones(stage):
    check(stage_spec(stage).text_encoder, clip_map(), TEXT_ENCODERS[stage])


@pytest.mark.parametrize("name", IMAGE_NETWORKS)
def test_image_networks_have_exactly_the_names_and_shapes_of_the_published_ones(name):
    spec = spec_from_config(IMAGE_NETWORKS[name], "image")
    check(spec, map_for(spec), name)


def spelled_out(value: Any, num_levels: int) -> Any:
    """Return fields by name and per-level values level by level, the middle last, however they were written."""
    if isinstance(value, PerLevel):
        return [*(value.at(level) for level in range(num_levels)), value.at_mid()]
    return {name: spelled_out(each, num_levels) for name, each in value} if isinstance(value, Spec) else value


@each_stage
def test_the_shipped_specs_say_what_the_official_configurations_say(stage):
    found, due = (spelled_out(spec, 4) for spec in (stage_spec(stage).denoiser, CONFIGS[stage]))
    assert found == due


@pytest.mark.parametrize("name", ["cascade", "cascade-official"])
def test_cascades_are_made_of_the_stages_that_are_compared_here(name):
    cascade = load_spec(name)
    assert isinstance(cascade, StageSpec)
    for stage, part in cascade.parts().items():
        assert isinstance(part, LatentDiffusionSpec)
        assert part.networks() == stage_spec(stage).networks()
