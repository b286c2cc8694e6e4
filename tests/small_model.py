"""A stage so small that it makes a video in milliseconds: the real classes, weights drawn at random."""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

import lavie.builtin
from lavie.blocks.text import TextEncoder, TextEncoderSpec
from lavie.plugins import Owner, Plugin, hookimpl
from lavie.registry import Registry
from lavie.spec import Spec
from lavie.specfile import load_spec
from lavie.stages import LatentDiffusionSpec
from lavie.weights.stored import save_stage

SPEC = """
type: latent_diffusion
video: {num_frames: 3, height: 16, width: 16, fps: 8}
text_encoder:
  type: clip
  width: 8
  num_layers: 1
  num_heads: 1
  max_tokens: 8
  tokenizer: {type: words, vocabulary: [a, red, blue, circle, star, moving]}
autoencoder: {type: kl, channels: [8, 8], num_res_blocks: 1, latent_channels: 4, norm_groups: 4, attention: false}
schedule: flow
prediction_type: flow
sampler: {type: euler, num_inference_steps: 2}
guidance: {type: cfg, scale: 2.0}
denoiser:
  type: unet
  in_channels: 4
  out_channels: 4
  channels: [8]
  attention: true
  num_res_blocks: 1
  context_dim: 8
  norm: {groups: 4, eps: 1.0e-5}
  transformer: {num_heads: 1, temporal: none}
"""


class AnyText(TextEncoder):
    """Takes any text: a context that depends on its bytes."""

    def __init__(self) -> None:
        super().__init__()
        self.context_dim, self.max_tokens = 8, 4
        self.table = nn.Embedding(256, 8)

    def forward(self, token_ids: Int[Tensor, "b l"]) -> Float[Tensor, "b l d"]:
        return self.table(token_ids)

    def tokenize(self, prompts: Sequence[str]) -> Int[Tensor, "b l"]:
        return torch.tensor([[*prompt.encode()[:4].ljust(4, b"\0")] for prompt in prompts])

    def encode(self, prompts: Sequence[str]) -> Float[Tensor, "b l d"]:
        return self(self.tokenize(prompts))

    def lost_words(self, prompt: str) -> list[str]:
        return prompt.split()[20:]


class AnyTextSpec(TextEncoderSpec):
    type: Literal["any_text"] = "any_text"

    def build(self) -> AnyText:
        return AnyText()


class AnyTextPlugin:
    @hookimpl
    def lavie_components(self) -> list[type[Spec]]:
        return [AnyTextSpec]


def small_registry() -> Registry:
    """Return lavie's own components and a text encoder from elsewhere."""
    return Registry(lavie.builtin, Plugin(Owner("lavie-anytext", "1.2"), AnyTextPlugin()))


def small_spec(folder: Path, *overrides: str) -> LatentDiffusionSpec:
    """Load the small spec."""
    path = folder / "small.yaml"
    path.write_text(SPEC)
    spec = load_spec(path, small_registry(), overrides)
    assert isinstance(spec, LatentDiffusionSpec)
    return spec


def small_weights(folder: Path, *overrides: str) -> Path:
    """Write a folder of weights and return its path."""
    spec = small_spec(folder, *overrides)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        stage = spec.build()
    modules = {"denoiser": stage.denoiser, "autoencoder": stage.autoencoder, "text_encoder": stage.text_encoder}
    save_stage(modules, spec, folder / "weights")
    return folder / "weights"
