"""Decoding latents to pixels."""

import pytest
import torch
from torch import Tensor, nn

from benchmarks.measuring import Bench, Place, count_flops, plain
from benchmarks.settings import Setting
from benchmarks.subjects import build_autoencoder
from lavie import Registry
from lavie.blocks.autoencoder import Autoencoder


def decode(autoencoder: nn.Module, latent: Tensor) -> Tensor:
    """Decode a latent."""
    assert isinstance(autoencoder, Autoencoder)
    return autoencoder.decode(latent)


@pytest.mark.benchmark(group="vae")
@torch.no_grad()
def bench_decode(bench: Bench, place: Place, setting: Setting, registry: Registry) -> None:
    """Compare decoding frame by frame, which bounds the memory, with decoding all frames at once."""
    shape = setting.decoding.latent
    single, batched = (build_autoencoder(setting, registry, chunk) for chunk in (1, shape.num_frames))
    latent = torch.randn(shape.of(single.latent_channels), generator=torch.Generator("cpu").manual_seed(4))
    expected = plain(batched, lambda twin: decode(twin, latent.double()))
    given = latent.to(place.device, place.dtype)
    single, batched = single.to(place.device, place.dtype), batched.to(place.device, place.dtype)
    bench.compare(lambda: decode(single, given), lambda: decode(batched, given), expected)
    with torch.device("meta"):
        skeleton = build_autoencoder(setting, registry, 1)
    bench.note(
        case=f"{shape.num_frames} frames one by one",
        baseline="all at once",
        gflop=count_flops(lambda: decode(skeleton, latent.to("meta"))) / 1e9,
        parameters=sum(parameter.numel() for parameter in single.parameters()),
    )
