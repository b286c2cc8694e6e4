"""Image networks to video networks."""

import json
from pathlib import Path

import pytest
import torch
from published import IMAGE, official, same_bits, small_spec
from safetensors import safe_open
from safetensors.torch import load_file

from lavie.blocks.base import Conditioning
from lavie.blocks.conditioning import ConcatSpec
from lavie.errors import WeightsError
from lavie.weights.inflate import fresh_names, inflate
from lavie.weights.layouts import layout_for
from lavie.weights.unet import spec_from_config

GOLDEN = Path(__file__).parents[1] / "golden" / "unet2d_a.safetensors"


@pytest.fixture(scope="module")
def recorded():
    return load_file(GOLDEN)


@pytest.fixture(scope="module")
def config():
    with safe_open(GOLDEN, "pt") as file:
        return json.loads(file.metadata()["config"])


@pytest.fixture(scope="module")
def image(recorded, config):
    weights = {
        key.removeprefix("weights."): value.float() for key, value in recorded.items() if key.startswith("weights.")
    }
    return layout_for("denoiser", "official", spec_from_config(config, "image")).read(weights).state


@pytest.mark.parametrize("network", ["base", "interpolation"])
@torch.no_grad()
def test_at_one_frame_an_inflated_network_gives_the_output_of_its_image_network(network, recorded, config, image):
    spec = spec_from_config(config | {"use_first_frame": False}, network)
    video_network = spec.build()
    video_network.load_state_dict(inflate(spec, image))
    noisy, timestep, context = (recorded[f"inputs.{name}"] for name in ("sample", "timestep", "encoder_hidden_states"))
    prediction = video_network(noisy[:, :, None], timestep, Conditioning(context))
    assert (prediction[:, :, 0] - recorded["output"]).abs().max() < 2e-5


@torch.no_grad()
def test_inputs_that_the_image_network_does_not_have_start_without_influence(recorded, config, image):
    spec = spec_from_config(config, "base").model_copy(
        update={"conditioners": (ConcatSpec(name="frames", channels=4),)}
    )
    weights = inflate(spec, image)
    assert torch.equal(weights["conv_in.weight"][:, :4], image["conv_in.weight"])
    assert not weights["conv_in.weight"][:, 4:].any()
    video_network = spec.build()
    video_network.load_state_dict(weights)
    noisy, timestep, context = (recorded[f"inputs.{name}"] for name in ("sample", "timestep", "encoder_hidden_states"))
    frames = torch.randn(2, 4, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    prediction = video_network(noisy[:, :, None], timestep, Conditioning(context, inputs={"frames": frames}))
    assert (prediction[:, :, 0] - recorded["output"]).abs().max() < 2e-5


def test_all_that_the_image_network_has_is_taken_over_bit_by_bit(config, image):
    spec = spec_from_config(config, "base")
    weights = inflate(spec, image)
    assert same_bits({key: weights[key] for key in image}, image)
    assert sorted(weights.keys() - image.keys()) == sorted(fresh_names(spec, image))
    assert all("temporal" in key for key in fresh_names(spec, image))


def test_fresh_parts_depend_on_the_seed_alone(config, image):
    spec = spec_from_config(config, "base")
    first = inflate(spec, image, seed=3)
    torch.rand(7)
    assert same_bits(inflate(spec, image, seed=3), first)
    assert not same_bits(inflate(spec, image, seed=4), first)


def test_drawing_fresh_parts_leaves_the_global_generator_alone(config, image):
    before = torch.get_rng_state()
    inflate(spec_from_config(config, "base"), image)
    assert torch.equal(torch.get_rng_state(), before)


def test_a_network_with_temporal_parts_has_nothing_fresh(tmp_path):
    spec = small_spec(tmp_path)
    reading = layout_for("denoiser", "official", spec.denoiser).read(official(spec, "denoiser", "official"))
    assert fresh_names(spec.denoiser, reading.state) == []


@pytest.mark.parametrize("layout", ["official", "ldm"])
def test_an_image_network_can_come_in_any_layout(layout, tmp_path):
    spec = small_spec(tmp_path)
    file = official(small_spec(tmp_path, IMAGE), "denoiser", layout)
    reading = layout_for("denoiser", layout, spec.denoiser).read(file)
    weights = inflate(spec.denoiser, reading.state)
    assert weights.keys() == spec.denoiser.build().state_dict().keys()
    assert same_bits({key: weights[key] for key in reading.state}, reading.state)


def test_an_image_network_that_does_not_fit_is_refused(config, image):
    spec = spec_from_config(config, "base")
    less = {key: value for key, value in image.items() if key != "conv_out.bias"}
    with pytest.raises(WeightsError, match=r"conv_out\.bias: missing"):
        inflate(spec, less)
    with pytest.raises(WeightsError, match=r"strange: not part"):
        inflate(spec, image | {"strange": torch.ones(1)})
    with pytest.raises(
        WeightsError, match=r"conv_in\.weight: shape \[32, 5, 3, 3\] where the network has \[32, 4, 3, 3\]"
    ):
        inflate(spec, image | {"conv_in.weight": torch.ones(32, 5, 3, 3)})
