"""The KL autoencoder against recorded outputs and names of the published one."""

import json
from pathlib import Path

import pytest
import torch
from einops import rearrange
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor

from lavie.blocks.autoencoder import AutoencoderKLSpec
from lavie.weights.kl import kl_map, spec_from_config

pytestmark = pytest.mark.parity
GOLDEN = Path(__file__).parents[1] / "golden"
TOLERANCE = 1e-4
"""Of the largest value; float32 summation order differs between implementations."""

SIZES = {
    "vae_sd14": AutoencoderKLSpec(),
    "vae_x4": AutoencoderKLSpec(channels=(128, 256, 512), scaling_factor=0.08333),
}


@pytest.fixture(scope="module")
def recorded() -> dict[str, Tensor]:
    return load_file(GOLDEN / "vae_a.safetensors")


@pytest.fixture(scope="module")
def spec() -> AutoencoderKLSpec:
    with safe_open(GOLDEN / "vae_a.safetensors", "pt") as file:
        return spec_from_config(json.loads(file.metadata()["config"]))


@pytest.fixture(scope="module")
def weights(recorded: dict[str, Tensor]) -> dict[str, Tensor]:
    return {
        key.removeprefix("weights."): value.float() for key, value in recorded.items() if key.startswith("weights.")
    }


def frames(images: Tensor) -> Tensor:
    return rearrange(images, "f c h w -> 1 c f h w")


def relative_error(found: Tensor, expected: Tensor) -> float:
    return float((found - expected).abs().max() / expected.abs().max())


@torch.no_grad()
def test_moments_equal_the_recorded_ones(recorded, spec, weights):
    autoencoder = spec.build()
    kl_map().load(autoencoder, weights)
    mean, log_variance = autoencoder.moments(frames(recorded["inputs.image"]))
    expected = recorded["output.moments"]
    assert relative_error(mean, frames(expected[:, :4])) < TOLERANCE
    assert relative_error(log_variance, frames(expected[:, 4:]).clamp(-30, 20)) < TOLERANCE


@torch.no_grad()
def test_decoded_images_equal_the_recorded_ones(recorded, spec, weights):
    autoencoder = spec.build()
    kl_map().load(autoencoder, weights)
    # The recording applies no scaling factor.
    decoded = autoencoder.decode(frames(recorded["inputs.latent"]) * spec.scaling_factor)
    assert relative_error(decoded, frames(recorded["output.decoded"])) < TOLERANCE


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize("name", SIZES)
def test_names_and_shapes_are_exactly_those_of_the_published_files(name, legacy):
    manifest = json.loads((GOLDEN / "manifests" / f"{name}{'_legacy_names' if legacy else ''}.json").read_text())
    with torch.device("meta"):
        autoencoder = SIZES[name].build()
    written = kl_map(legacy=legacy).convert_to_official(autoencoder.state_dict())
    assert {key: list(value.shape) for key, value in written.items()} == {key: row[0] for key, row in manifest.items()}


@pytest.mark.parametrize("legacy", [False, True])
def test_both_spellings_load_and_are_written_back_unchanged(spec, weights, legacy):
    modern = kl_map()
    autoencoder = spec.build()
    modern.load(autoencoder, weights)
    file = kl_map(legacy=legacy).convert_to_official(autoencoder.state_dict())
    again = spec.build()
    modern.load(again, file)
    written = modern.convert_to_official(again.state_dict())
    assert written.keys() == weights.keys()
    assert all(torch.equal(written[key], weights[key]) for key in weights)
    assert any("proj_attn" in key for key in file) == legacy
