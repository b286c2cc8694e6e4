"""The forward pass of the denoiser with every registered temporal layer in its transformers."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from benchmarks.measuring import PLAIN, Bench, Place, count_flops, plain
from benchmarks.peak import UnmeasurableError
from benchmarks.settings import Setting
from benchmarks.subjects import Inputs, build_denoiser, denoiser_spec, inputs, temporal_layers
from lavie import Registry, installed
from lavie.blocks.base import DenoiserSpec

LAYERS = temporal_layers(installed())


def spec_of(label: str, setting: Setting, registry: Registry) -> DenoiserSpec:
    """Return the network with one temporal layer; skip a layer that needs options of its own or does not fit."""
    try:
        spec = denoiser_spec(setting, LAYERS[label], registry)
        with torch.device("meta"):
            spec.build()
    except ValueError as error:
        pytest.skip(f"cannot be built with its defaults in this setting: {error}")
    return spec


def call(network: nn.Module, given: Inputs) -> Tensor:
    """Run the denoiser."""
    return network(given.noisy, given.timestep, given.cond)


@pytest.mark.benchmark(group="forward")
@pytest.mark.parametrize("label", LAYERS)
@torch.no_grad()
def bench_forward(
    label: str,
    bench: Bench,
    place: Place,
    setting: Setting,
    registry: Registry,
    baseline_layer: str,
    peak: Callable[[dict[str, Any]], dict[str, float]],
) -> None:
    """Compare one forward pass with that of the network with the baseline's temporal layer."""
    spec = spec_of(label, setting, registry)
    network = build_denoiser(spec)
    given = inputs(setting)
    expected = plain(network, lambda twin: call(twin, given.to(PLAIN.device, PLAIN.dtype)))
    network = network.to(place.device, place.dtype)
    other = build_denoiser(spec_of(baseline_layer, setting, registry)).to(place.device, place.dtype)
    given = given.to(place.device, place.dtype)
    bench.compare(lambda: call(network, given), lambda: call(other, given), expected)
    with torch.device("meta"):
        skeleton = spec.build().eval()
    shapes = given.to(torch.device("meta"), torch.float32)
    bench.note(
        case=label,
        baseline=baseline_layer,
        gflop=count_flops(lambda: call(skeleton, shapes)) / 1e9,
        parameters=sum(parameter.numel() for parameter in network.parameters()),
    )
    try:
        bench.note(peak_bytes=peak(LAYERS[label])["peak"])
    except UnmeasurableError as error:
        bench.note(peak_unknown=str(error))
