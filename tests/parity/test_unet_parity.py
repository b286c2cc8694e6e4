"""The UNets, losses and tables against recorded numbers of the official implementation."""

import json
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from torch import Tensor

from lavie.blocks.base import Conditioning
from lavie.verification import verify_file
from lavie.weights.unet import map_for, spec_from_config

pytestmark = pytest.mark.parity
GOLDEN = Path(__file__).parents[1] / "golden"
NETWORKS = {"base", "interpolation", "upscaling", "image"}
OTHERS = ["misc_tables", "train_losses", "resp_ddim_15", "resp_ddpm_10"]


def recordings() -> list[Path]:
    files = GOLDEN.glob("*.safetensors")
    return sorted(path for path in files if path.stem.partition("_")[0] in {"base", "interp", "vsr", "unet2d"})


@pytest.mark.parametrize("path", recordings(), ids=lambda path: path.stem)
def test_recorded_predictions_are_reproduced(path):
    result = verify_file(path)
    assert result.status == "pass", result
    assert result.kind in NETWORKS
    assert result.max_error is not None
    assert result.max_error < 2e-5


def test_every_kind_of_network_is_recorded():
    assert {verify_file(path).kind for path in recordings()} == NETWORKS


@pytest.mark.parametrize("name", OTHERS)
def test_recorded_tables_losses_and_trajectories_are_reproduced(name):
    result = verify_file(GOLDEN / f"{name}.safetensors")
    assert result.status == "pass", result


def read(name: str) -> tuple[dict[str, Tensor], dict[str, str]]:
    with safe_open(GOLDEN / f"{name}.safetensors", "pt") as file:
        return {key: file.get_tensor(key).float() for key in file.keys()}, file.metadata()  # noqa: SIM118


def test_a_freshly_inflated_network_is_its_2d_parent():
    tensors, metadata = read("unet2d_a")
    video, image = (spec_from_config(json.loads(metadata["config"]), network) for network in ("base", "image"))
    weights = {key.removeprefix("weights."): value for key, value in tensors.items() if key.startswith("weights.")}
    parent = map_for(image).convert_from_official(weights)
    network = video.build().eval()
    fresh = {key: value for key, value in network.state_dict().items() if ".temporal." in key}
    network.load_state_dict(fresh | parent, strict=True)
    with torch.inference_mode():
        context = Conditioning(tensors["inputs.encoder_hidden_states"])
        found = network(tensors["inputs.sample"].unsqueeze(2), tensors["inputs.timestep"], context)
    torch.testing.assert_close(found.squeeze(2), tensors["output"], atol=5e-5, rtol=0)
