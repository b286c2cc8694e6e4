"""Single blocks of the denoiser's finest level: attention kernels, spatial layers and residual blocks."""

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import pytest
import torch
from torch import Tensor, nn

from benchmarks.measuring import PLAIN, Bench, Place, count_flops, plain
from benchmarks.settings import Setting
from lavie import Registry, installed
from lavie.blocks.attention import attend
from lavie.blocks.base import Conditioning, ResBlockSpec, Site, SpatialSpec
from lavie.blocks.kernels import KERNELS, use_attention, why_not

SPATIAL = installed().components("spatial")
RESBLOCKS = installed().components("resblock")


@dataclass(frozen=True)
class Heads:
    """Sequences, heads, queries and keys of one attention; `biased` as along frames."""

    sequences: int
    num_heads: int
    queries: int
    keys: int
    biased: bool = False


def heads_of(kind: str, setting: Setting) -> Heads:
    """Return the sizes of the finest level's attention."""
    latent, num_heads = setting.latent, setting.widths.num_heads[0]
    positions = latent.height * latent.width
    match kind:
        case "spatial":
            return Heads(latent.num_frames, num_heads, positions, positions)
        case "text":
            return Heads(1, num_heads, latent.num_frames * positions, setting.text.num_tokens)
        case _:
            return Heads(positions, num_heads, latent.num_frames, latent.num_frames, biased=True)


def drawn(*shape: int, seed: int) -> Tensor:
    """Return a seeded standard normal draw."""
    return torch.randn(shape, generator=torch.Generator("cpu").manual_seed(seed))


@pytest.mark.benchmark(group="attention")
@pytest.mark.parametrize("name", [name for name in KERNELS if name != "math"])
@pytest.mark.parametrize("kind", ["spatial", "text", "temporal"])
@torch.no_grad()
def bench_attention_kernel(kind: str, name: str, bench: Bench, place: Place, setting: Setting) -> None:
    """Compare an attention kernel with attention written out."""
    if reason := why_not(name, place.device, place.dtype):
        pytest.skip(f"does not work here: {reason}")
    sizes = heads_of(kind, setting)
    dim = setting.widths.channels[0] // sizes.num_heads
    tokens = (sizes.queries, sizes.keys, sizes.keys)
    tensors = [drawn(sizes.sequences, sizes.num_heads, count, dim, seed=seed) for seed, count in enumerate(tokens)]
    if sizes.biased:
        tensors.append(drawn(sizes.num_heads, sizes.queries, sizes.keys, seed=3))
    given = [tensor.to(place.device, place.dtype) for tensor in tensors]

    def run(kernel: str, tensors: Sequence[Tensor]) -> Tensor:
        with use_attention(kernel, place.device, place.dtype):
            return attend(*tensors)

    expected = run("math", [tensor.double() for tensor in tensors])
    bench.compare(lambda: run(name, given), lambda: run("math", given), expected)
    flops = count_flops(lambda: attend(*(tensor.to("meta") for tensor in tensors)))
    bench.note(case=f"{kind}, {name}", baseline="math", gflop=flops / 1e9)


def site_of(setting: Setting) -> Site:
    """Return the place of a block in the finest level."""
    widths = setting.widths
    return Site(widths.channels[0], widths.num_heads[0], setting.text.dim, 4 * widths.channels[0])


def given_to_block(setting: Setting) -> tuple[Tensor, Conditioning]:
    """Return activations in the memory order of the library, and the conditioning."""
    width = setting.widths.channels[0]
    x = drawn(*setting.latent.of(width), seed=0).contiguous(memory_format=torch.channels_last_3d)
    text = drawn(1, setting.text.num_tokens, setting.text.dim, seed=1)
    return x, Conditioning(text, time_embed=drawn(1, 1, 4 * width, seed=2))


def moved(given: tuple[Tensor, Conditioning], place: Place) -> tuple[Tensor, Conditioning]:
    """Return a block's input on a device in a dtype."""
    x, cond = given
    assert cond.time_embed is not None
    to = partial(Tensor.to, device=place.device, dtype=place.dtype)
    return to(x), Conditioning(to(cond.context), time_embed=to(cond.time_embed))


def run_block(block: nn.Module, given: tuple[Tensor, Conditioning]) -> Tensor:
    """Call a block."""
    return block(*given)


def built(build: Callable[[], nn.Module]) -> nn.Module:
    """Build a block with seeded weights, or skip it with the reason if its defaults do not fit."""
    torch.manual_seed(0)
    try:
        return build().eval().requires_grad_(False)
    except ValueError as error:
        pytest.skip(f"cannot be built with its defaults in this setting: {error}")


@pytest.mark.benchmark(group="attention")
@pytest.mark.parametrize("name", SPATIAL)
@torch.no_grad()
def bench_spatial_layer(name: str, bench: Bench, place: Place, setting: Setting, registry: Registry) -> None:
    """Compare a spatial layer with full attention inside frames."""
    layer, full = (
        built(lambda label=label: registry.load(SpatialSpec, label).build(site_of(setting)))  # type: ignore
        for label in (name, "full")
    )
    given = given_to_block(setting)
    expected = plain(layer, lambda twin: run_block(twin, moved(given, PLAIN)))
    given = moved(given, place)
    layer, full = layer.to(place.device, place.dtype), full.to(place.device, place.dtype)
    bench.compare(lambda: run_block(layer, given), lambda: run_block(full, given), expected)
    bench.note(case=name, baseline="full", parameters=sum(parameter.numel() for parameter in layer.parameters()))


@pytest.mark.benchmark(group="resnet")
@pytest.mark.parametrize("name", RESBLOCKS)
@torch.no_grad()
def bench_resblock(name: str, bench: Bench, place: Place, setting: Setting, registry: Registry) -> None:
    """Compare a residual block in the library's memory order, channels last, with the same block channels first."""
    site = site_of(setting)
    block = built(lambda: registry.load(ResBlockSpec, name).build(site, site.channels))  # type: ignore
    given = given_to_block(setting)
    expected = plain(block, lambda twin: run_block(twin, moved(given, PLAIN)))
    first = copy.deepcopy(block).to(place.device, place.dtype)
    last = block.to(place.device, place.dtype).to(memory_format=torch.channels_last)
    x, cond = moved(given, place)
    channels_first = (x.contiguous(), cond)
    bench.compare(lambda: run_block(last, (x, cond)), lambda: run_block(first, channels_first), expected)
    bench.note(case=name, baseline="channels first", parameters=sum(each.numel() for each in last.parameters()))
