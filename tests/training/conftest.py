"""A model and a recipe small enough to train in a second."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from lavie import builtin
from lavie.registry import Registry
from lavie.training import TrainSpec

WORLD = {"type": "shapes", "num_frames": 4, "height": 16, "width": 16}
IMAGES = {**WORLD, "num_frames": 1}
MODEL = {
    "type": "latent_diffusion",
    "video": {"num_frames": 4, "height": 16, "width": 16},
    "text_encoder": {
        "type": "clip",
        "width": 8,
        "num_layers": 1,
        "num_heads": 2,
        "max_tokens": 16,
        "tokenizer": {
            "type": "words",
            "vocabulary": ["a", "red", "green", "blue", "circle", "moving", "left", "right"],
        },
    },
    "autoencoder": {
        "type": "kl",
        "channels": [8, 8, 8],
        "num_res_blocks": 1,
        "latent_channels": 4,
        "scaling_factor": 1.0,
        "norm_groups": 4,
        "attention": False,
        "decode_chunk": 64,
    },
    "schedule": "flow",
    "prediction_type": "flow",
    "sampler": {"type": "euler", "num_inference_steps": 2},
    "guidance": {"type": "cfg", "scale": 2.0},
    "denoiser": {
        "type": "unet",
        "in_channels": 4,
        "out_channels": 4,
        "channels": [8, 16],
        "attention": True,
        "num_res_blocks": 1,
        "context_dim": 8,
        "norm": {"groups": 4, "eps": 1e-5},
        "resblock": "modulated",
        "transformer": {
            "order": ["spatial", "text", "temporal", "feed_forward"],
            "num_heads": 2,
            "spatial": "full",
            "temporal": {"type": "attention", "position": {"type": "rope", "dim": 2}},
        },
    },
}
OPTIMIZER = {"learning_rate": 0.003, "warmup_steps": 2}
LOOK = {"every": 3, "num_clips": 2}
AUTOENCODER = {
    "type": "autoencoder",
    "name": "autoencoder",
    "data": IMAGES,
    "num_steps": 3,
    "batch_size": 2,
    "optimizer": OPTIMIZER,
    "evaluation": LOOK,
}
IMAGES_ONLY = {
    "type": "denoiser",
    "name": "text_to_image",
    "images": IMAGES,
    "images_per_step": 3,
    "num_steps": 4,
    "train_text_encoder": True,
    "optimizer": OPTIMIZER,
    "evaluation": LOOK,
}
JOINT = {
    "type": "denoiser",
    "name": "joint",
    "clips": WORLD,
    "images": IMAGES,
    "clips_per_step": 2,
    "images_per_clip": 2,
    "num_steps": 4,
    "train_text_encoder": True,
    "optimizer": OPTIMIZER,
    "evaluation": LOOK,
}


@pytest.fixture(scope="session")
def registry() -> Registry:
    return Registry(builtin)


@pytest.fixture
def recipe_data() -> dict[str, Any]:
    """All three phases in eleven steps, saved every second one."""
    return {
        "type": "train",
        "model": MODEL,
        "checkpoints": {"every": 2, "keep": 2},
        "phases": [AUTOENCODER, IMAGES_ONLY, JOINT],
    }


@pytest.fixture
def recipe(recipe_data: dict[str, Any], registry: Registry) -> TrainSpec:
    return registry.load(TrainSpec, recipe_data)


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def run_folder(tmp_path: Path) -> Path:
    return tmp_path / "run"
