"""What every registered solver must do, on a Gaussian whose denoiser is known in closed form.

For latents drawn from N(0, s²), denoised = s² / (s² + σ²) · noisy, and the probability flow scales a noisy latent by
√((s² + σ'²) / (s² + σ²)) on its way from σ to σ'.
"""

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

import lavie.builtin
from lavie.registry import Registry
from lavie.samplers import FlowScheduleSpec, LinearScheduleSpec, Sampler, SamplerSpec, Step
from lavie.samplers.schedule import Schedule
from lavie.spec import dump

REGISTRY = Registry(lavie.builtin)
SCHEDULES = {"vp": LinearScheduleSpec().build(), "flow": FlowScheduleSpec(shift=2.0).build()}
SHAPE = (2, 4, 3, 4, 4)
each_sampler = pytest.mark.parametrize("name", REGISTRY.components("sampler"))
each_schedule = pytest.mark.parametrize("schedule", SCHEDULES.values(), ids=SCHEDULES)


def make(name: str, schedule: Schedule, num_inference_steps: int = 10) -> Sampler:
    return REGISTRY.load(SamplerSpec, {"type": name, "num_inference_steps": num_inference_steps}).build(schedule)


def initial(dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(SHAPE, generator=torch.Generator().manual_seed(0), dtype=torch.float64).to(dtype)


def noise(step: int, shape: tuple[int, ...]) -> Tensor:
    assert shape == SHAPE
    return torch.randn(shape, generator=torch.Generator().manual_seed(100 + step), dtype=torch.float64)


def gaussian(noisy: Tensor, sigma: float) -> Tensor:
    return noisy / (1 + sigma**2)


@each_sampler
def test_spec_survives_a_round_trip(name: str) -> None:
    spec = REGISTRY.load(SamplerSpec, name)
    assert REGISTRY.load(SamplerSpec, dump(spec)) == spec


@each_schedule
@each_sampler
@pytest.mark.parametrize("num_inference_steps", [1, 2, 7])
def test_grid_decreases_and_each_step_reports_its_place(
    name: str, schedule: Schedule, num_inference_steps: int
) -> None:
    sampler = make(name, schedule, num_inference_steps)
    assert sampler.sigmas.dtype == torch.float64
    assert (sampler.sigmas.diff() < 0).all()
    one_pass = [schedule.timestep(sigma) for sigma in sampler.sigmas[:-1].tolist()]
    passes, rest = divmod(len(sampler.timesteps), num_inference_steps)
    assert rest == 0
    assert sampler.timesteps == passes * one_pass
    steps = list(sampler.steps(gaussian, initial(), noise))
    assert [step.index for step in steps] == list(range(passes * num_inference_steps))
    assert {step.num_steps for step in steps} == {len(steps)}
    assert [step.sigma for step in steps] == passes * sampler.sigmas[:-1].tolist()
    assert [step.sigma_next for step in steps] == passes * sampler.sigmas[1:].tolist()
    assert [step.timestep for step in steps] == sampler.timesteps


@each_schedule
@each_sampler
def test_a_known_latent_is_found(name: str, schedule: Schedule) -> None:
    latent = torch.linspace(-1, 1, initial().numel(), dtype=torch.float64).reshape(SHAPE)
    sampler = make(name, schedule)
    found = sampler.sample(lambda noisy, sigma: latent, initial(), noise)
    rest = 5 * sampler.sigmas[-1].item()
    torch.testing.assert_close(found, latent, rtol=0, atol=1e-4 + rest)


@each_schedule
@each_sampler
def test_network_input_has_unit_scale_all_along(name: str, schedule: Schedule) -> None:
    def denoise(noisy: Tensor, sigma: float) -> Tensor:
        spread = 1.0 if schedule is SCHEDULES["vp"] else max(schedule.scales(sigma))
        assert 0.4 * spread < (noisy * schedule.scales(sigma)[0]).std().item() < 1.6 * spread
        return gaussian(noisy, sigma)

    make(name, schedule, 20).sample(denoise, initial(), noise)


@each_sampler
def test_samples_are_independent_of_their_batch(name: str) -> None:
    sampler = make(name, SCHEDULES["vp"])
    both = sampler.sample(gaussian, initial(), noise)
    second = sampler.sample(gaussian, initial()[1:], lambda step, shape: noise(step, SHAPE)[1:])
    torch.testing.assert_close(second, both[1:], rtol=1e-12, atol=1e-12)


@each_sampler
def test_two_runs_of_one_sampler_do_not_disturb_each_other(name: str) -> None:
    sampler = make(name, SCHEDULES["vp"])
    alone = [step.noisy for step in sampler.steps(gaussian, initial(), noise)]
    runs: list[Iterator[Step]] = [sampler.steps(gaussian, sign * initial(), noise) for sign in (1, -1)]
    interleaved = [first.noisy for first, _ in zip(*runs, strict=True)]
    assert all(torch.equal(one, other) for one, other in zip(alone, interleaved, strict=True))


@each_sampler
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_half_precision_draws_are_solved_in_float32(name: str, dtype: torch.dtype) -> None:
    found = make(name, SCHEDULES["vp"]).sample(gaussian, initial(dtype), noise)
    assert found.dtype == torch.float32
    assert found.isfinite().all()


@each_sampler
def test_inputs_are_left_as_they_are(name: str) -> None:
    start, latent = initial(), initial()
    make(name, SCHEDULES["vp"]).sample(lambda noisy, sigma: latent, start, noise)
    assert torch.equal(start, initial())
    assert torch.equal(latent, initial())


@pytest.mark.parametrize(
    "options",
    [
        {"type": "ddpm"},
        {"type": "ddpm", "spacing": "trailing"},
        {"type": "ddim", "eta": 1.0, "set_alpha_to_one": True},
        {"type": "ddim", "eta": 0.5, "set_alpha_to_one": True},
        {"type": "euler_ancestral"},
        {"type": "euler_ancestral", "spacing": "karras"},
        {"type": "dpmpp_2m_sde"},
    ],
    ids=str,
)
def test_stochastic_solvers_keep_the_spread_of_the_data(options: dict[str, object]) -> None:
    sampler = REGISTRY.load(SamplerSpec, {**options, "num_inference_steps": 250}).build(SCHEDULES["vp"])
    generator = torch.Generator().manual_seed(0)
    start = torch.randn(1, 4, 16, 8, 8, generator=generator)
    found = sampler.sample(gaussian, start, lambda _, shape: torch.randn(shape, generator=generator))
    assert found.std().item() == pytest.approx(1, abs=0.06)
    assert torch.corrcoef(torch.stack([found.flatten(), start.flatten()]))[0, 1].abs() < 0.9


@pytest.mark.parametrize(
    "options",
    [
        {"type": "heun"},
        {"type": "dpmpp_2m"},
        {"type": "dpmpp_2m_sde", "eta": 0.0},
        {"type": "unipc"},
        {"type": "unipc", "order": 3},
        {"type": "euler"},
        {"type": "ddim"},
        {"type": "ddim", "stride": "constant"},
        {"type": "ddim", "clip": 1.0},
    ],
    ids=str,
)
def test_deterministic_solvers_never_ask_for_noise(options: dict[str, object]) -> None:
    def never(step: int, shape: tuple[int, ...]) -> Tensor:
        raise AssertionError("noise was drawn")

    sampler = REGISTRY.load(SamplerSpec, {**options, "num_inference_steps": 5}).build(SCHEDULES["vp"])
    sampler.sample(gaussian, initial(), never)
