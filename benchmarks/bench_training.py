"""One training step of the denoiser: loss, gradients, and the update of the weights."""

import contextlib
import copy
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from benchmarks.measuring import MAX_ERROR, MAX_RELATIVE_ERROR, Bench, Place
from benchmarks.settings import Setting
from benchmarks.subjects import PUBLISHED, build_denoiser, denoiser_spec, temporal_layers
from lavie import Registry
from lavie.blocks.base import Conditioning
from lavie.samplers.prediction import add_noise, target
from lavie.samplers.schedule import LinearScheduleSpec
from lavie.training.losses import video_and_image_loss
from lavie.training.optimizer import Optimizer, OptimizerSpec, trainable


def loss_of(setting: Setting, place: Place) -> Callable[[nn.Module], Tensor]:
    """Return the loss of a network on one seeded clip; in half precision under autocast."""
    assert setting.training is not None
    generator = torch.Generator("cpu").manual_seed(5)
    latent, noise = (
        torch.randn(setting.training.of(4), generator=generator).to(place.device) for _ in ("latent", "noise")
    )
    text = torch.randn(1, setting.text.num_tokens, setting.text.dim, generator=generator).to(place.device)
    schedule = LinearScheduleSpec().build()
    sigma = schedule.sigmas[500:501].to(latent)
    noisy = add_noise(latent, noise, sigma, schedule)
    goal = target(latent, noise, sigma, schedule, "epsilon")
    timestep = torch.full((1,), 500.0, device=place.device)
    halves = place.dtype != torch.float32

    def loss(network: nn.Module) -> Tensor:
        with torch.autocast(place.device.type, place.dtype) if halves else contextlib.nullcontext():
            prediction = network(noisy, timestep, Conditioning(text))
        value, _ = video_and_image_loss(prediction.float(), goal, num_images=0)
        assert value is not None
        return value

    return loss


def library_step(network: nn.Module, loss: Callable[[nn.Module], Tensor]) -> Callable[[], Tensor]:
    """Return a step as the trainer does it: parameter groups, clipping, fused AdamW."""
    modules = {"denoiser": network.train()}
    optimizer = Optimizer(OptimizerSpec(warmup_steps=0), modules, trainable(modules, ()))

    def step() -> Tensor:
        optimizer.set_learning_rate(0, 1000)
        value = loss(network)
        optimizer.adamw.zero_grad(set_to_none=True)
        value.backward()
        optimizer.clip()
        optimizer.adamw.step()
        return value.detach()

    return step


def plain_step(network: nn.Module, loss: Callable[[nn.Module], Tensor]) -> Callable[[], Tensor]:
    """Return a step of plain AdamW, parameter by parameter."""
    parameters = list(network.train().requires_grad_().parameters())
    spec = OptimizerSpec()
    options = {"lr": spec.learning_rate, "betas": spec.betas, "weight_decay": spec.weight_decay}
    adamw = torch.optim.AdamW(parameters, foreach=False, fused=False, **options)

    def step() -> Tensor:
        value = loss(network)
        adamw.zero_grad(set_to_none=True)
        value.backward()
        nn.utils.clip_grad_norm_(parameters, spec.gradient_clip, foreach=False)
        adamw.step()
        return value.detach()

    return step


@pytest.mark.benchmark(group="train")
def bench_step(bench: Bench, place: Place, setting: Setting, registry: Registry) -> None:
    """Compare a step of the trainer with one of plain AdamW in float32.

    Their losses are compared first, before and after an update.
    """
    if setting.training is None:
        pytest.skip("weights, gradients and optimizer state of this setting need more than common memory")
    if place.dtype == torch.float16:
        pytest.skip("gradients in float16 need loss scaling, which the trainer has not")
    spec = denoiser_spec(setting, temporal_layers(registry)[PUBLISHED], registry)
    network = build_denoiser(spec).to(place.device).to(memory_format=torch.channels_last)
    other = copy.deepcopy(network)
    step = library_step(network, loss_of(setting, place))
    plain = plain_step(other, loss_of(setting, Place(place.device, torch.float32)))
    exact = place.dtype == torch.float32
    for number in range(2 if exact else 1):
        ours, theirs = float(step()), float(plain())
        allowed = max(1.0, theirs) * (MAX_ERROR if exact else MAX_RELATIVE_ERROR)
        assert abs(ours - theirs) <= allowed, f"loss of step {number}: {ours}, with plain AdamW {theirs}"
    bench.compare(step, plain)
    del bench.record.extra_info["cold_seconds"]
    bench.note(
        case="trainer's step",
        baseline="plain AdamW, float32",
        parameters=sum(parameter.numel() for parameter in network.parameters()),
        error=abs(ours - theirs),
    )
