"""The published network beside other implementations of it, and beside other video UNets, where they are at hand."""

import pytest
import torch

from benchmarks.bench_denoiser import call
from benchmarks.measuring import PLAIN, Bench, Place, check, count_flops, plain
from benchmarks.peers import PEERS
from benchmarks.settings import Setting
from benchmarks.subjects import PUBLISHED, build_denoiser, denoiser_spec, inputs, temporal_layers
from lavie import Registry
from lavie.blocks.unet import UNetSpec


@pytest.mark.benchmark(group="peers")
@pytest.mark.parametrize("name", PEERS)
@torch.no_grad()
def bench_peer(name: str, bench: Bench, place: Place, setting: Setting, registry: Registry) -> None:
    """Compare our forward pass with a peer's on the same input, and with the same weights where there is a map.

    Other architectures do other work, so their GFLOP and parameters are told beside the ratio.
    """
    spec = denoiser_spec(setting, temporal_layers(registry)[PUBLISHED], registry)
    assert isinstance(spec, UNetSpec)
    network = build_denoiser(spec)
    peer = PEERS[name](setting, network, spec)
    given = inputs(setting)
    expected = plain(network, lambda twin: call(twin, given.to(PLAIN.device, PLAIN.dtype)))
    if peer.has_our_weights:
        check(peer.run(given), expected)
    network, theirs = network.to(place.device, place.dtype), peer.network.to(place.device, place.dtype)
    moved = given.to(place.device, place.dtype)
    bench.compare(lambda: call(network, moved), lambda: peer.call(theirs, moved), expected)
    meta = torch.device("meta")
    shapes = given.to(meta, torch.float32)
    network, theirs = network.to(meta, torch.float32), theirs.to(meta, torch.float32)
    bench.note(
        case=PUBLISHED,
        baseline=name,
        gflop=count_flops(lambda: call(network, shapes)) / 1e9,
        baseline_gflop=count_flops(lambda: peer.call(theirs, shapes)) / 1e9,
        parameters=sum(parameter.numel() for parameter in network.parameters()),
    )
