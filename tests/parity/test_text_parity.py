"""CLIP's text encoder against recorded outputs and names of the published ones."""

import json
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor

from lavie.blocks.text import ClipText, ClipTextSpec
from lavie.blocks.tokenizer import ClipBpeSpec
from lavie.weights.clip import clip_map, spec_from_config

pytestmark = pytest.mark.parity
GOLDEN = Path(__file__).parents[1] / "golden"
TOLERANCE = 1e-4
"""Of the largest value; float32 summation order differs between implementations."""

SIZES = {
    "clip_l14_text": ClipTextSpec(),
    "clip_h14_text": ClipTextSpec(
        width=1024, num_layers=23, num_heads=16, activation="gelu", tokenizer=ClipBpeSpec(pad_id=0)
    ),
}


def recorded(name: str) -> tuple[ClipText, dict[str, Tensor], dict[str, Tensor]]:
    """Return a network with recorded weights, those weights, and the rest of the recording."""
    path = GOLDEN / f"{name}.safetensors"
    with safe_open(path, "pt") as file:
        encoder = spec_from_config(json.loads(file.metadata()["config"])).build()
    tensors = load_file(path)
    weights = {key[len("weights.") :]: value.float() for key, value in tensors.items() if key.startswith("weights.")}
    clip_map().load(encoder, weights)
    return encoder, weights, tensors


@pytest.mark.parametrize("name", ["clip_quickgelu", "clip_gelu"])
@torch.no_grad()
def test_context_equals_the_recorded_last_hidden_state(name):
    encoder, _, tensors = recorded(name)
    expected = tensors["output"]
    context = encoder(tensors["inputs.input_ids"])
    assert float((context - expected).abs().max() / expected.abs().max()) < TOLERANCE


@pytest.mark.parametrize("name", SIZES)
def test_names_and_shapes_are_exactly_those_of_the_published_files(name):
    manifest = json.loads((GOLDEN / "manifests" / f"{name}.json").read_text())
    with torch.device("meta"):
        encoder = SIZES[name].build()
    written = clip_map().convert_to_official(encoder.state_dict())
    assert {key: list(value.shape) for key, value in written.items()} == {key: row[0] for key, row in manifest.items()}
    assert written["text_model.embeddings.position_ids"].dtype == torch.int64


@pytest.mark.parametrize("name", SIZES)
def test_a_published_file_fits_with_or_without_prefix_and_position_ids(name):
    manifest = json.loads((GOLDEN / "manifests" / f"{name}.json").read_text())
    with torch.device("meta"):
        encoder = SIZES[name].build()
        file = {key: torch.empty(shape, dtype=getattr(torch, dtype)) for key, (shape, dtype) in manifest.items()}
    bare = {key.removeprefix("text_model."): value for key, value in file.items() if "position_ids" not in key}
    for state in (file, bare):
        assert clip_map().convert_from_official(state).keys() == encoder.state_dict().keys()
        clip_map().load(encoder, state, assign=True)


def test_weights_are_written_back_unchanged():
    encoder, weights, _ = recorded("clip_quickgelu")
    written = clip_map().convert_to_official(encoder.state_dict(), derived=False)
    assert written.keys() == weights.keys()
    assert all(torch.equal(written[key], weights[key]) for key in weights)
